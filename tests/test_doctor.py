"""`prefdist doctor`: what it says of machines that lack something, and when it fails."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from checkouts import ROOT

from prefdist import containers
from prefdist.cli import main
from prefdist.doctor import USES, Finding, examine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, and a PATH with nothing on it but what a test puts into bin/."""
    for image in containers.IMAGES:
        for file in containers.recipe(image):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / file)
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    (tmp_path / "workflow").mkdir()
    (tmp_path / "Snakefile").touch()
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def program(machine: Path, name: str, prints: str = "", code: int = 0) -> None:
    file = machine / "bin" / name
    file.write_text(f"#!{sys.executable}\nimport sys\nprint({prints!r}, end='')\nsys.exit({code})\n")
    file.chmod(0o755)


def slurm(machine: Path, partitions: str, code: int = 0) -> list[Finding]:
    for name in ("sbatch", "srun", "squeue", "scancel"):
        program(machine, name)
    program(machine, "sinfo", partitions, code)
    return examine("slurm", machine)


def missing(findings: list[Finding]) -> str:
    return "\n".join(finding.what for finding in findings if not finding.ok)


def test_a_cluster_with_all_that_the_profile_names_is_ready(machine: Path) -> None:
    assert missing(slurm(machine, "cpu|(null)\ngpu|gpu:a100:4\n")) == ""
    assert main(["doctor", "slurm"]) == 0


def test_without_slurm_every_command_is_named(machine: Path) -> None:
    said = missing(examine("slurm", machine))
    assert all(f"no {name} on PATH" in said for name in ("sbatch", "srun", "squeue", "scancel", "sinfo"))
    assert main(["doctor", "slurm"]) == 1


def test_a_silent_controller_a_wrong_partition_and_one_without_gpus(machine: Path) -> None:
    assert "controller does not answer" in missing(slurm(machine, "", code=1))
    assert "partition gpu: slurm/config.yaml names it, the cluster has cpu, long" in missing(slurm(machine, "cpu|\nlong|\n"))
    assert "partition gpu: slurm/config.yaml asks for GPUs there" in missing(slurm(machine, "cpu|(null)\ngpu|(null)\n"))


def test_an_image_is_missing_then_built_then_out_of_date_then_another_file(machine: Path) -> None:
    assert "no apptainer on PATH" in missing(examine("containers", machine))
    program(machine, "apptainer", "apptainer version 1.4.5\n")
    assert "containers/train.sif: not built here" in missing(examine("containers", machine))
    image = machine / "containers/train.sif"
    image.write_bytes(b"four")
    record = {"identity": containers.identity(machine, "train"), "bytes": 4}
    (machine / "containers/train.json").write_text(json.dumps(record))
    assert "train.sif" not in missing(examine("containers", machine))
    image.write_bytes(b"other")
    assert "not the file that containers/build made" in missing(examine("containers", machine))
    image.write_bytes(b"four")
    with (machine / "requirements/lock.txt").open("a") as lock:
        lock.write("another==1.0\n")
    assert "another definition or lock" in missing(examine("containers", machine))


def test_either_build_of_vllm_will_do(machine: Path) -> None:
    program(machine, "apptainer", "apptainer version 1.4.5\n")
    (machine / "containers/sample-cpu.sif").write_bytes(b"four")
    record = {"identity": containers.identity(machine, "sample-cpu"), "bytes": 4}
    (machine / "containers/sample-cpu.json").write_text(json.dumps(record))
    assert missing(examine("sample", machine)) == ""


def test_the_token_is_never_shown(machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["doctor", "hub"]) == 0
    shown = capsys.readouterr().out
    assert "hub token: present" in shown
    assert "hf_secret" not in shown


def test_a_report_on_everything_has_exit_code_0(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{use}: " in shown for use in USES)
    assert "C compiler: no cc on PATH" in shown
    assert "DVC remote: none configured" in shown


def test_a_use_that_is_not_there_is_refused(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "nothing"]) == 2
    assert "nothing: not a use; there are demo, test, slurm" in capsys.readouterr().err
