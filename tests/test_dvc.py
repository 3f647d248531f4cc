"""dvc.yaml: one stage an ablation, and one ablation made through it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from checkouts import environment

from prefdist.config_pad import PadSuite
from prefdist.plan import plan
from prefdist.suites import load_suite

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PAD_SUITES = [name for name in STAGES if isinstance(load_suite(name, ROOT), PadSuite)]


def test_every_suite_of_distillation_has_its_ablations():
    written = {file.stem for file in (ROOT / "workflow/suites").glob("*.yaml")}
    assert set(PAD_SUITES) == {name for name in written if isinstance(load_suite(name, ROOT), PadSuite)}
    for name in PAD_SUITES:
        made, stage = plan(load_suite(name, ROOT), ROOT), STAGES[name]
        assert stage["matrix"]["ablation"] == list(made.ablations)
        (out,) = (key for entry in stage["outs"] for key in entry)
        folders = {str(of.results): ablation for ablation, of in made.ablations.items()}
        assert {out.replace("${item.ablation}", ablation): ablation for ablation in made.ablations} == folders


@pytest.mark.slow
def test_one_ablation_is_made_once(tmp_path):
    """In a fresh checkout; the second time there is nothing to do, and a changed row makes it again."""
    for name in ("Snakefile", "workflow", "src", "profiles", "dvc.yaml", ".dvc", ".gitignore"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "cache", "tmp", "config.local")
        shutil.copytree(source, tmp_path / name, ignore=ignore) if source.is_dir() else shutil.copy(source, tmp_path / name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    def repro() -> str:
        command = ["dvc", "repro", "pad_smoke@reward"]
        done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    assert "Running stage 'pad_smoke@reward'" in repro()
    folder = tmp_path / "results/pad_smoke/v1-ablations/reward"
    first = (folder / "table.csv").read_bytes()
    assert {role.removeprefix("student/") for role in json.loads((folder / "manifest.json").read_text())["artefacts"]} == {
        "paper",
        "oracle",
    }
    assert "Running stage" not in repro()
    row = tmp_path / "workflow/objectives/pad_ppd_jsd.yaml"
    row.write_text(row.read_text().replace("beta: 10.0", "beta: 30.0"))
    assert "Running stage" in repro()
    assert (folder / "table.csv").read_bytes() != first
