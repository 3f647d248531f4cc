"""What the README claims is what is there: its table, its example row, its commands."""

import re
from pathlib import Path

import torch
import yaml

from prefdist.objectives import load
from prefdist.results.metrics import POLICY
from prefdist.results.tables import read_csv, write_markdown

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_the_committed_one(tmp_path):
    shown = README.split("<!-- table -->\n")[1].split("<!-- /table -->")[0]
    metrics = POLICY[:4]
    kept = {spec.key for spec in metrics}
    cells = [cell for cell in read_csv(ROOT / "results/testbed/v1/table.csv") if cell["metric"] in kept]
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
