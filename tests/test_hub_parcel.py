"""What of an artefact may go to the hub, what its card says, under which licence, and which manifests are believed."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hub_checkouts import Checkout

from prefdist import artefacts
from prefdist.cli import main
from prefdist.errors import UserError
from prefdist.hub.origins import licence, origins_of
from prefdist.hub.parcel import identity_of, pack, read_manifest
from prefdist.plan import Artefact
from prefdist.results.tables import COLUMNS, write_csv


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("made") / "checkout")
    checkout.fill()
    return checkout


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "state.pkl", "modeling_own.py", "adapter/x.pth"])
def test_pickles_and_code_are_refused(name: str, made: Checkout, tmp_path: Path) -> None:
    artefact = Artefact("train", "bad", {"seed": 0})
    checkout = Checkout(tmp_path / "checkout")

    def run(out: Path) -> None:
        shutil.copytree(made.root / made.prior.path, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("provenance*"))
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"x")

    checkout.make(artefact, run)
    with pytest.raises(UserError, match=rf"{name}: not pushed: weights go as safetensors"):
        pack(checkout.root / artefact.path)


def test_a_changed_artefact_is_not_pushed(made: Checkout, tmp_path: Path) -> None:
    shutil.copytree(made.root / made.prior.path, tmp_path / "copy")
    (tmp_path / "copy/config.json").write_text("{}")
    with pytest.raises(UserError, match=r"its content is not what provenance\.json says"):
        pack(tmp_path / "copy")


@pytest.mark.parametrize("name", ["../../x.json", "/etc/x.json", "a/../x.json", "x.bin", "x.py", "a//x.json", "*.json", "x"])
def test_a_manifest_may_not_name_what_is_not_safe(name: str, made: Checkout) -> None:
    manifest = json.loads(pack(made.root / made.prior.path).manifest())
    manifest["files"][name] = "0" * 64
    with pytest.raises(UserError, match=r"somewhere: prefdist\.json lists .*, which is not fetched"):
        read_manifest(json.dumps(manifest), "somewhere")


@pytest.mark.parametrize("change", [{"stage": "../.."}, {"name": "../x"}, {"digest": "x"}, {"kind": "space"}, {"files": []}])
def test_a_manifest_must_be_one(change: dict[str, Any], made: Checkout) -> None:
    manifest = json.loads(pack(made.root / made.prior.path).manifest()) | change
    with pytest.raises(UserError, match="not one of prefdist hub push"):
        read_manifest(json.dumps(manifest), "somewhere")


def test_the_identity_is_the_plans(made: Checkout) -> None:
    for artefact in (made.text, made.prior):
        assert identity_of(artefacts.provenance(made.root / artefact.path)) == artefact.digest


def stored(hub_name: str, revision: str = "1" * 40) -> dict[str, Any]:
    return {"stage": "model", "name": "m", "spec": {"hub": hub_name, "revision": revision, "folder": None}, "inputs": {}}


def test_licences_follow_from_what_it_was_made_from(made: Checkout, tmp_path: Path) -> None:
    (tmp_path / "workflow").mkdir()
    shutil.copy(Path(__file__).parents[1] / "workflow/hub_models.yaml", tmp_path / "workflow")
    gemma = origins_of(stored("google/gemma-2-2b-it"), tmp_path)
    assert gemma.models == {"google/gemma-2-2b-it": "1" * 40}
    assert licence(gemma, tmp_path, is_data=False, given=None) == "gemma"
    assert licence(gemma, tmp_path, is_data=False, given="mit") == "mit"
    with pytest.raises(UserError, match=r"--license is missing: that of nobody/nothing is not known here"):
        licence(origins_of(stored("nobody/nothing"), tmp_path), tmp_path, is_data=False, given=None)
    both = origins_of(stored("google/gemma-2-2b-it"), tmp_path)
    both.datasets["HuggingFaceH4/ultrafeedback_binarized"] = "2" * 40
    with pytest.raises(UserError, match="as there are several: gemma of google/gemma-2-2b-it, mit of HuggingFaceH4/"):
        licence(both, tmp_path, is_data=False, given=None)
    # Through all that it was made from: the policy from π₀, π₀ from the text.
    own = origins_of(artefacts.provenance(made.root / made.adapted.path), made.root)
    assert (own.texts, own.models, own.gone) == ({"stdlib"}, {}, set())
    assert licence(own, made.root, is_data=False, given=None) == "apache-2.0"
    assert licence(own, made.root, is_data=True, given=None) == "psf-2.0"
    gone = origins_of(artefacts.provenance(made.root / made.adapted.path), tmp_path)
    assert str(made.prior.path) in gone.gone
    with pytest.raises(UserError, match="--license is missing"):
        licence(gone, tmp_path, is_data=False, given=None)


def test_the_card_tells_what_was_measured_of_this_very_model(
    made: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(made.root, root)
    monkeypatch.chdir(root)
    record = artefacts.provenance(root / made.adapted.path)
    release = root / "results/tiny/v1"
    release.mkdir(parents=True)
    policy = {"path": str(made.adapted.path), "content": artefacts.content_digest(record)}
    manifest = {"artefacts": {"evaluation/dpo_lora": {"name": "dpo_lora", "inputs": {"policy/0": policy}}}}
    (release / "manifest.json").write_text(json.dumps(manifest))
    cells = [
        dict(zip(COLUMNS, (run, "forward_kl", value, value - 0.5, value + 0.5, 150, 2, 300, 0), strict=True))
        for run, value in (("dpo", 9.0), ("dpo_lora", 4.0))
    ]
    write_csv(cells, release / "table.csv")
    (release / "release.json").write_text(json.dumps({"files": {}}))
    card = ["hub", "card", str(made.adapted.path), "somebody/policy"]
    assert main(card) == 0
    said = capsys.readouterr().out
    assert "No release of the repository that made it has measured it." in said  # it isn't committed
    for line in (["init", "-q"], ["add", "results"]):
        subprocess.run(["git", *line], cwd=root, check=True)
    assert main(card) == 0
    said = capsys.readouterr().out
    assert "As run `dpo_lora` of results/tiny/v1" in said
    assert "| forward_kl | 4 [3.5, 4.5] | 150 | 2 |" in said
    assert "9 [8.5" not in said
    assert f"| digest of its code | {made.adapted.code_digest} |" in said
    assert '"lora_alpha": 4' in said
    assert "It is not for use by the public" in said
    other = {**record, "outputs": {**record["outputs"], "config.json": "0" * 64}}
    (root / made.adapted.path / artefacts.PROVENANCE).write_text(json.dumps(other))
    assert main(card) == 2
    assert "its content is not what" in capsys.readouterr().err
