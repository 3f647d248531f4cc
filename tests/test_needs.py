"""`prefdist doctor <suite>`: what a suite lacks before anything is computed, without a network."""

import json
from pathlib import Path

import pytest
import yaml
from chat_models import llama3_folder, neox_folder
from checkouts import ROOT, copy

from prefdist.cli import main
from prefdist.needs import examine_suite


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout on a machine that may reach the hub and has no token."""
    root = copy(tmp_path / "checkout")
    monkeypatch.chdir(root)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    return root


def chat(root: Path, old: str = "", new: str = "") -> dict[str, str]:
    """Findings that are missing, by what they are about, of chat.yaml with a text replaced everywhere."""
    file = root / "workflow/suites/chat.yaml"
    file.write_text(file.read_text().replace(old, new) if old else file.read_text())
    return {finding.what.split(": ")[0]: finding.what for finding in examine_suite("chat", root) if not finding.ok}


def test_placeholders_are_missing_and_named_with_their_licence(checkout: Path) -> None:
    missing = chat(checkout)
    assert len(missing) == 6, "two models and four datasets"
    llama = missing["model meta-llama/Meta-Llama-3-8B-Instruct (Meta Llama 3 Community License, gated)"]
    assert llama.endswith("its revision in workflow/suites/chat.yaml is a placeholder; put there the commit that you accept")
    assert main(["doctor", "chat"]) == 1


def test_a_gated_model_needs_a_token(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = chat(checkout, "0" * 40, "1" * 40)
    (llama,) = missing.values()
    assert "accept its licence on https://huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct, then hf auth login" in llama
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    assert not chat(checkout) and main(["doctor", "chat"]) == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(chat(checkout)) == 6


def test_a_local_model_is_looked_at(checkout: Path) -> None:
    """Its template, and whether its vocabulary fits: before anything runs."""
    mapping = yaml.safe_load((checkout / "workflow/suites/chat.yaml").read_text())
    plain = neox_folder(checkout / "plain")
    mapping["bases"]["llama3"] = {"folder": str(plain)}
    (checkout / "workflow/suites/chat.yaml").write_text(yaml.safe_dump(mapping))
    assert "its tokenizer has no chat template; set template to one, as Jinja" in chat(checkout)[f"model {plain}"]
    good = llama3_folder(checkout / "good")
    assert f"model {good}" not in chat(checkout, str(plain), str(good))
    config = json.loads((good / "config.json").read_text())
    (good / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    assert "config.json has vocab_size 100, but the tokenizer" in chat(checkout)[f"model {good}"]


def test_a_full_disk_is_said(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert "make room, or work on another file system" in chat(checkout)["disk"]


def test_suites_of_other_kinds_and_what_is_neither(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "exact"]) == 0
    assert main(["doctor", "tldrr"]) == 2
    assert "tldrr: not a use; there are demo, test, slurm" in capsys.readouterr().err
    assert sum(not finding.ok for finding in examine_suite("tldr", ROOT)) == 5, "three sizes and two datasets"
