"""`prefdist doctor <suite>`: what a suite lacks before anything is computed, without a network."""

import json
import re
from pathlib import Path

import pytest
import yaml
from chat_models import llama3_folder, neox_folder
from checkouts import ROOT, copy

from prefdist.cli import main
from prefdist.needs import examine_suite


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout on a machine that may reach the hub, has no token but a judge's key, and room for everything."""
    root = copy(tmp_path / "checkout")
    monkeypatch.chdir(root)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    set_free(monkeypatch, 10**18)
    return root


def set_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free})())


def chat(root: Path, old: str = "", new: str = "") -> dict[str, str]:
    """Findings that are missing, by what they are about, of chat.yaml with a text replaced everywhere."""
    file = root / "workflow/suites/chat.yaml"
    file.write_text(file.read_text().replace(old, new) if old else file.read_text())
    return {finding.what.split(": ")[0]: finding.what for finding in examine_suite("chat", root) if not finding.ok}


def test_placeholders_are_missing_and_named_with_their_licence(checkout: Path) -> None:
    text = (checkout / "workflow/suites/chat.yaml").read_text()
    for commit in set(re.findall("[0-9a-f]{40}", text)):
        missing = chat(checkout, commit, "0" * 40)
    assert len(missing) == 6, "two models and four datasets"
    llama = missing["model meta-llama/Meta-Llama-3-8B-Instruct (Meta Llama 3 Community License, gated)"]
    assert llama.endswith("its revision in workflow/suites/chat.yaml is a placeholder; put there the commit that you accept")
    assert main(["doctor", "chat"]) == 1


def test_a_gated_model_needs_a_token(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = chat(checkout)
    (llama,) = missing.values()
    assert "accept its licence on https://huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct, then hf auth login" in llama
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    assert not chat(checkout) and main(["doctor", "chat"]) == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(chat(checkout)) == 6


def test_what_a_suite_does_not_say_of_licences_the_list_of_models_does(checkout: Path) -> None:
    """Also of a dataset that is read without an artefact of its own."""
    what = {finding.what.split(": ")[0]: finding for finding in examine_suite("pad", checkout)}
    assert not what["model google/gemma-2-9b-it (gemma, gated)"].ok
    assert what["dataset HuggingFaceH4/ultrafeedback_binarized (mit)"].ok
    assert what["dataset tatsu-lab/alpaca_eval (CC-BY-NC-4.0)"].ok


def test_a_judge_needs_its_key(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert not any(what.startswith("key of the judge") for what in chat(checkout))
    monkeypatch.delenv("OPENAI_API_KEY")
    found = chat(checkout)["key of the judge gpt-4-1106-preview"]
    assert found.endswith("OPENAI_API_KEY is not set; export it, or remove the suite's sections judging")
    monkeypatch.setenv("OPENAI_API_KEY", "never-shown")
    main(["doctor", "chat"])
    assert "never-shown" not in capsys.readouterr().out


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
    (good / "config.json").write_text(json.dumps(config | {"vocab_size": 30}))
    assert "config.json has vocab_size 30, but the tokenizer" in chat(checkout)[f"model {good}"]


def test_a_full_disk_is_said(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_free(monkeypatch, 1000)
    assert "make room, or work on another file system" in chat(checkout)["disk"]


def test_suites_of_other_kinds_and_what_is_neither(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "exact"]) == 0
    assert main(["doctor", "tldrr"]) == 2
    assert "tldrr: not a use; there are demo, test, slurm" in capsys.readouterr().err
    (missing,) = (finding.what for finding in examine_suite("tldr", ROOT) if not finding.ok)
    assert missing.startswith("dataset cleanrl/summarize_from_feedback_tldr_3_filtered") and "is a placeholder" in missing
