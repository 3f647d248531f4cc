"""What the README claims is what is there: its table, its example row, its commands."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from prefdist.objectives import load
from prefdist.results.metrics import POLICY, STUDENT
from prefdist.results.tables import read_csv, write_markdown

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("mark", "table", "metrics"),
    [("table", "testbed/v1", POLICY[:4]), ("students", "pad_testbed/v1-ablations/baselines", STUDENT[:5])],
)
def test_the_tables_are_the_committed_ones(mark, table, metrics, tmp_path):
    shown = README.split(f"<!-- {mark} -->\n")[1].split(f"<!-- /{mark} -->")[0]
    kept = {spec.key for spec in metrics}
    cells = [cell for cell in read_csv(ROOT / "results" / table / "table.csv") if cell["metric"] in kept]
    write_markdown(cells, metrics, tmp_path / "table.md")
    assert shown == (tmp_path / "table.md").read_text()


def test_the_example_row_is_an_objective():
    block = re.search(r"```yaml\n(title: .*?)```", README, flags=re.DOTALL)
    assert block is not None
    objective = load(yaml.safe_load(block.group(1)))
    logps = torch.tensor([[-1.0, -3.0]], dtype=torch.float64)
    # −log σ(0.1·2), by hand
    assert torch.allclose(objective({"policy": logps}, {}), torch.tensor([0.598138869], dtype=torch.float64))


def test_every_make_target_that_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, flags=re.MULTILINE)) <= targets
