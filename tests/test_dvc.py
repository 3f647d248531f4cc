"""dvc.yaml against the suites; then one ablation as two people make, share and change it, with the real commands.

The suite is pad_smoke with one seed and the two runs of its ablation `reward`, in a copy of the checkout.
"""

import json
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT
from dvc_checkouts import clone, commit, dvc, git, repository, run, shown_json

from prefdist.artefacts import PROVENANCE, provenance
from prefdist.errors import UserError
from prefdist.exports.export import ABLATION_FILES, export_ablation, forget, outdated
from prefdist.exports.sources import tables
from prefdist.plan import Artefact, Plan, plan
from prefdist.suites import load_suite

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
SUITES = {file.stem: load_suite(file.stem, ROOT) for file in (ROOT / "workflow/suites").glob("*.yaml")}
PLANS = cache(lambda: {name: plan(suite, ROOT) for name, suite in SUITES.items()})
STAGE, LATEST = "pad_smoke@reward", Path("results/latest/pad_smoke/reward")
SUITE = Path("workflow/suites/pad_smoke.yaml")


def test_every_suite_has_its_data_and_its_ablations():
    planned = PLANS()
    assert set(STAGES) == {"plan", "data"} | {name for name, made in planned.items() if made.ablations}
    assert set(STAGES["data"]["matrix"]["suite"]) == {name for name, made in planned.items() if tables(made)}
    assert {Path(name).stem for name in PIPELINE["params"]} == set(SUITES)
    for name, made in planned.items():
        if made.ablations:
            assert STAGES[name]["matrix"]["ablation"] == list(made.ablations)
            outs = [out for kind in ("outs", "metrics", "plots") for out in STAGES[name][kind]]
            files = {Path(out if isinstance(out, str) else next(iter(out))) for out in outs}
            assert files == {
                Path("results/latest", name, "${item.ablation}", file) for file in (*ABLATION_FILES, "metrics.json")
            }


def test_names_of_data_do_not_collide():
    """Two artefacts of a stage with one name would be one exported file."""
    for made in PLANS().values():
        found = [(artefact.stage, artefact.name) for artefact in tables(made)]
        assert len(found) == len(set(found))


def _made(root: Path, artefact: Artefact, **record: object) -> None:
    folder = root / artefact.path
    folder.mkdir(parents=True)
    content = {"code": artefact.code_digest, "inputs": {}, "outputs": {}, **record}
    (folder / PROVENANCE).write_text(json.dumps(content))


def test_what_other_code_or_inputs_made_is_refused_and_forgotten(tmp_path):
    source = Artefact("text", "source", {})
    final = Artefact("ablation", "final", {}, {"text": source})
    other = {"text": {"path": str(source.path), "content": "other"}}
    _made(tmp_path, source)
    _made(tmp_path, final, inputs=other, code="other")
    assert "made by code other" in outdated([final], tmp_path)[final.path]
    shutil.rmtree(tmp_path / final.path)
    _made(tmp_path, final, inputs=other)
    assert outdated([final], tmp_path) == {final.path: "made from another text"}
    with pytest.raises(UserError, match=r"ablation/final-\w+: made from another text; run prefdist forget"):
        export_ablation(Plan(final, Path("results")), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(forget([final], tmp_path)) == {final.path}
    assert not (tmp_path / final.path / PROVENANCE).exists()
    assert (tmp_path / source.path / PROVENANCE).exists()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person's checkout, in which the ablation was made, shared through a folder and committed."""
    folder = tmp_path_factory.mktemp("dvc")
    checkout = folder / "first"
    checkout.mkdir()
    repository(checkout)
    mapping = yaml.safe_load((checkout / SUITE).read_text())
    mapping["seeds"] = [0]
    mapping["runs"] = {name: mapping["runs"][name] for name in ("paper", "released", "oracle")}
    _write(checkout, mapping)
    commit(checkout, "a smaller suite")
    dvc(checkout, "remote", "add", "-q", "-d", "folder", str(folder / "remote"))
    output = dvc(checkout, "repro", STAGE)
    assert _ran(output) == ["plan", STAGE]
    _share(checkout, "first tables")
    return checkout


def _write(checkout: Path, mapping: dict[str, object]) -> None:
    (checkout / SUITE).write_text(yaml.safe_dump(mapping, sort_keys=False))


def _change(checkout: Path, **runs: dict[str, object]) -> None:
    mapping = yaml.safe_load((checkout / SUITE).read_text())
    for name, change in runs.items():
        mapping["runs"][name] |= change
    _write(checkout, mapping)


def _share(checkout: Path, message: str) -> None:
    dvc(checkout, "add", "-q", "artefacts")
    commit(checkout, message)
    dvc(checkout, "push", "-q")


def _ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(.*)'", output)


def _artefacts(checkout: Path) -> set[str]:
    return {re.sub(r"-[0-9a-f]{10}$", "", folder.parent.name) for folder in checkout.glob(f"artefacts/*/*/{PROVENANCE}")}


def _pulled(first: Path, folder: Path) -> Path:
    """Another person's checkout."""
    second = clone(first, folder)
    dvc(second, "pull", "-q", "--allow-missing")
    return second


@pytest.mark.dvc
def test_an_ablation_is_made_with_what_it_needs_and_once(first):
    assert {"paper-seed0", "oracle-seed0", "pad_smoke-reward"} <= _artefacts(first)
    assert not {name for name in _artefacts(first) if "released" in name}
    metrics = json.loads((first / LATEST / "metrics.json").read_text())
    assert set(metrics) == {"calibrated", "oracle"}
    assert {"estimate", "low", "high"} == set(metrics["oracle"]["win_rate_start"])
    assert _ran(dvc(first, "repro", STAGE)) == []
    assert not git(first, "status", "--short")
    tracked = git(first, "ls-files").splitlines()
    assert not [name for name in tracked if name.startswith(("data/", "artefacts/", "results/"))]


@pytest.mark.dvc
def test_a_clone_that_pulls_runs_nothing_and_snakemake_keeps_what_it_finds(first, tmp_path):
    second = _pulled(first, tmp_path / "second")
    assert _ran(dvc(second, "repro", STAGE)) == []
    for file in (*ABLATION_FILES, "metrics.json"):
        assert (second / LATEST / file).read_bytes() == (first / LATEST / file).read_bytes()
    before = {path: path.read_bytes() for path in second.glob(f"artefacts/*/*/{PROVENANCE}")}
    done = run(second, "snakemake", "--cores", "2", "ablation_pad_smoke_reward")
    assert done.returncode == 0, done.stdout[-3000:]
    assert all("verified and kept" in log.read_text() for log in second.glob("logs/*/*.log"))
    assert {path: path.read_bytes() for path in second.glob(f"artefacts/*/*/{PROVENANCE}")} == before
    assert "up to date" in dvc(second, "status", "artefacts.dvc", STAGE)


@pytest.mark.dvc
def test_a_comment_runs_only_the_plan_and_a_parameter_what_depends_on_it(first, tmp_path):
    """The change is made in a pulled clone, where Snakemake has no records of what made the artefacts."""
    second = _pulled(first, tmp_path / "second")
    (second / "README.md").write_text("new")
    module = second / "src/prefdist/training/loop.py"
    module.write_text("# a comment\n" + module.read_text())
    assert _ran(dvc(second, "repro", STAGE)) == ["plan"]
    _change(second, released={"parameters": {"beta_teacher": 3.0}})
    assert _ran(dvc(second, "repro", STAGE)) == ["plan"]

    before, kept = json.loads((second / LATEST / "metrics.json").read_text()), set(second.glob("artefacts/*/*"))
    _change(second, paper={"parameters": {"beta_teacher": 30.0}})
    assert _ran(dvc(second, "repro", STAGE)) == ["plan", STAGE]
    made = {re.sub(r"-[0-9a-f]{10}$", "", path.name) for path in set(second.glob("artefacts/*/*")) - kept if path.suffix == ""}
    assert {name for name in made if not name.startswith(".")} == {"paper-seed0", "paper", "pad_smoke-reward"}
    after = json.loads((second / LATEST / "metrics.json").read_text())
    assert after["oracle"] == before["oracle"]
    assert after["calibrated"] != before["calibrated"]

    commit(second, "beta_teacher: 30")
    parameters = shown_json(second, "params", "diff", "HEAD~1")
    assert parameters[str(SUITE)]["runs.paper.parameters.beta_teacher"]["new"] == 30.0
    metrics = shown_json(second, "metrics", "diff", "HEAD~1")[str(LATEST / "metrics.json")]
    assert {name.split(".")[0] for name in metrics} == {"calibrated"}
    plots = shown_json(second, "plots", "diff", "HEAD~1", "-o", str(tmp_path / "plots"))["data"]
    assert {revision for plot in plots[str(LATEST / "table.csv")] for revision in plot["revisions"]} == {"HEAD~1", "workspace"}


@pytest.mark.dvc
def test_changed_code_is_seen_where_snakemake_has_no_records(first, tmp_path):
    """Only the evaluation of students depends on the module; its artefacts keep their paths and are made again."""
    second = _pulled(first, tmp_path / "second")
    module = second / "src/prefdist/evaluation/student.py"
    module.write_text(module.read_text() + "\nUNUSED = 1\n")
    (student,) = second.glob("artefacts/student/oracle-*")
    (training,) = second.glob("artefacts/train/oracle-seed0-*")
    before = provenance(student), provenance(training)
    output = dvc(second, "repro", STAGE)
    assert _ran(output) == ["plan", STAGE]
    assert re.search(r"artefacts/student/oracle-\w+: made by code \w+, which is \w+ now; to be made again", output)
    assert provenance(student)["code"] != before[0]["code"]
    assert provenance(training) == before[1]


@pytest.mark.dvc
def test_two_histories_of_the_artefacts_make_one(first, tmp_path):
    """Two people each make something, and git merges the pointers: the folder has the files of both."""
    second, third = _pulled(first, tmp_path / "second"), _pulled(first, tmp_path / "third")
    for person in (second, third):
        folder = person / "artefacts/text" / person.name
        folder.mkdir()
        (folder / PROVENANCE).write_text(json.dumps({"of": person.name}))
        _share(person, f"{person.name}'s")
    git(third, "config", "merge.dvc.driver", "dvc git-hook merge-driver --ancestor %O --our %A --their %B")
    git(third, "fetch", "-q", str(second), "HEAD:theirs")
    dvc(third, "fetch", "-q", "artefacts.dvc", "--all-commits")
    git(third, "merge", "-q", "--no-edit", "theirs")
    dvc(third, "pull", "-q", "artefacts.dvc")
    for person in (second, third):
        assert (third / "artefacts/text" / person.name / PROVENANCE).is_file()
