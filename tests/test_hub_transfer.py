"""Artefacts pushed to a hub on loopback and pulled into another checkout, by huggingface_hub's own client."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_checkouts import Checkout
from huggingface_hub import constants
from services.hub import TOKEN, Hub, serve

from prefdist import artefacts
from prefdist.cli import main
from prefdist.data import tables
from prefdist.hub.parcel import MANIFEST
from prefdist.models import load_policy

# The client passes its file under httpx2's old name
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("made") / "checkout")
    checkout.fill()
    return checkout


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`prefdist hub …` in a checkout, in this process, with huggingface_hub's real client and nothing of this machine's own."""
    own = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_CACHE": str(tmp_path / "hf"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }
    for name, value in own.items():
        monkeypatch.setattr(constants, name, value)

    def run(checkout: Path, *arguments: str, token: str | None = TOKEN) -> Done:
        monkeypatch.setenv("HF_TOKEN", token or "")
        monkeypatch.chdir(checkout)
        code = main(["hub", *arguments])
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
        return Done(code, said.out, said.err)

    return run


def by_command_line(hub: Hub, home: Path, checkout: Path, *arguments: str) -> Done:
    """The same in a process of its own, as a user starts it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    line = [sys.executable, "-m", "prefdist.cli", "hub", *arguments]
    done = subprocess.run(line, cwd=checkout, env={**kept, **own}, capture_output=True, text=True, check=False)
    assert TOKEN not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def good(done: Done) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def refused(done: Done) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr.strip()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def front(card: bytes) -> dict[str, Any]:
    found = yaml.safe_load(card.decode().split("---\n")[1])
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_the_command_line_pushes_and_pulls(made: Checkout, hub: Hub, tmp_path: Path) -> None:
    path = str(made.prior.path)
    good(by_command_line(hub, tmp_path, made.root, "push", path, "somebody/tiny-prior"))
    other = Checkout(tmp_path / "other")
    assert good(by_command_line(hub, tmp_path, other.root, "pull", "somebody/tiny-prior")) == path
    assert artefacts.verify(other.root / path) == artefacts.verify(made.root / path)


@pytest.mark.parametrize("name", ["notaname", "a/", "/b", "a/b/c"])
def test_a_repository_has_an_owner_and_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before the network is asked."""
    assert main(["hub", "pull", name]) == 2
    assert f"{name}: a repository of the hub is owner/name" in capsys.readouterr().err


def test_a_model_comes_back_as_it_went(made: Checkout, hub: Hub, command: Command, tmp_path: Path) -> None:
    path = str(made.prior.path)
    said = good(command(made.root, "push", path, "somebody/tiny-prior"))
    repository = hub.repositories["models", "somebody/tiny-prior"]
    assert repository.private
    assert said.endswith(f"commit {repository.head}")
    # Weights went by LFS, everything else inside the commit.
    assert {name for name, file in repository.at("main").items() if file.lfs} == {"model.safetensors"}
    assert sum(method == "PUT" for method, _ in hub.seen) == 1

    other = Checkout(tmp_path / "other")
    assert good(command(other.root, "pull", "somebody/tiny-prior")) == path
    pulled = contents(other.root / path)
    assert set(pulled) - set(contents(made.root / path)) == {"README.md", MANIFEST}
    assert all(pulled[name] == content for name, content in contents(made.root / path).items())
    assert artefacts.verify(other.root / path) == artefacts.verify(made.root / path)
    assert artefacts.provenance(other.root / path) == artefacts.provenance(made.root / path)
    assert not list((other.root / "artefacts").glob(".pull*"))

    loaded, own = load_policy(other.root / path), load_policy(made.root / path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), own.parameters(), strict=True))
    # Once more: what is there is checked and kept.
    assert good(command(other.root, "pull", "somebody/tiny-prior")) == path


def test_tables_come_back_as_they_went(made: Checkout, hub: Hub, command: Command, tmp_path: Path) -> None:
    path = str(made.text.path)
    good(command(made.root, "push", path, "somebody/tiny-text", "--public"))
    repository = hub.repositories["datasets", "somebody/tiny-text"]
    assert not repository.private
    card = front(hub.files("somebody/tiny-text", "datasets")["README.md"])
    assert card["license_name"] == "psf-2.0"
    assert card["configs"] == [{"config_name": "prompts", "data_files": "prompts.parquet"}]
    assert (
        b"| prompts.parquet | 144 | prompt_id, module, split, prompt, reference |"
        in hub.files("somebody/tiny-text", "datasets")["README.md"]
    )
    other = Checkout(tmp_path / "other")
    # Public: no token is needed.
    assert good(command(other.root, "pull", "somebody/tiny-text", "--dataset", token=None)) == path
    rows = tables.read_table(other.root / path / "prompts.parquet", tables.PROMPTS)
    assert rows == tables.read_table(made.root / path / "prompts.parquet", tables.PROMPTS)


def test_an_adapter_names_its_base(made: Checkout, hub: Hub, command: Command, tmp_path: Path) -> None:
    path = str(made.adapted.path)
    assert "--base is missing" in refused(command(made.root, "push", path, "somebody/adapter", "--adapter"))
    good(command(made.root, "push", path, "somebody/adapter", "--adapter", "--base", "somebody/tiny-prior"))
    files = hub.files("somebody/adapter")
    assert set(files) == {
        ".gitattributes",
        "README.md",
        MANIFEST,
        artefacts.PROVENANCE,
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    own = contents(made.root / path)
    assert files["adapter_model.safetensors"] == own["adapter/adapter_model.safetensors"]
    sent, kept = json.loads(files["adapter_config.json"]), json.loads(own["adapter/adapter_config.json"])
    assert sent.pop("base_model_name_or_path") == "somebody/tiny-prior"
    assert str(made.root) in kept.pop("base_model_name_or_path")  # a path of this machine, which stays here
    assert sent == kept
    assert not any(str(made.root).encode() in content for content in files.values())
    card = front(files["README.md"])
    assert (card["base_model"], card["base_model_relation"]) == (["somebody/tiny-prior"], "adapter")
    assert (card["library_name"], card["license"]) == ("peft", "apache-2.0")

    other = Checkout(tmp_path / "other")
    assert "give --out" in refused(command(other.root, "pull", "somebody/adapter"))
    good(command(other.root, "pull", "somebody/adapter", "--out", "adapter"))
    import peft

    applied = peft.PeftModel.from_pretrained(load_policy(made.root / made.prior.path), other.root / "adapter")
    merged = load_policy(made.root / path)
    ids = torch.arange(12).unsqueeze(0)
    # Merged weights are rounded once more than the adapter's product.
    torch.testing.assert_close(applied(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_what_is_private_or_not_ones_own_is_not_touched(made: Checkout, hub: Hub, command: Command, tmp_path: Path) -> None:
    path = str(made.prior.path)
    good(command(made.root, "push", path, "somebody/prior"))
    head = hub.repositories["models", "somebody/prior"].head
    assert "somebody/prior is private already" in refused(command(made.root, "push", path, "somebody/prior", "--public"))
    other = Checkout(tmp_path / "other")
    for token in (None, "hf_another"):
        said = refused(command(other.root, "pull", "somebody/prior", token=token))
        assert said.startswith("prefdist: somebody/prior: ")
        assert not (other.root / path).exists()
    assert "somebody/prior: " in refused(command(made.root, "push", path, "somebody/prior", token=None))
    hub.change("somebody/prior", prefdist__json=None, notes__txt=b"mine")
    said = refused(command(made.root, "push", path, "somebody/prior"))
    assert "which prefdist did not push; choose another name" in said
    assert list(hub.repositories["models", "somebody/prior"].commits)[0:2][-1] == head


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"model__safetensors": b"other weights"}, "model.safetensors is not the file that was pushed"),
        ({"model__safetensors": None}, "model.safetensors is missing"),
        ({"provenance__json": b"{}"}, "provenance.json is not the file that was pushed"),
        ({"prefdist__json": b"{}"}, "prefdist.json there is not one of prefdist hub push"),
    ],
)
def test_what_was_changed_on_the_hub_is_not_put_in_place(
    change: dict[str, bytes | None], wanted: str, made: Checkout, hub: Hub, command: Command, tmp_path: Path
) -> None:
    path = str(made.prior.path)
    good(command(made.root, "push", path, "somebody/prior"))
    pushed = hub.repositories["models", "somebody/prior"].head
    hub.change("somebody/prior", **change)
    other = Checkout(tmp_path / "other")
    assert wanted in refused(command(other.root, "pull", "somebody/prior"))
    assert not (other.root / path).exists()
    assert not list((other.root / "artefacts").iterdir())
    # The commit that was pushed is still there.
    assert good(command(other.root, "pull", "somebody/prior", "--revision", pushed)) == path


def test_what_is_in_place_is_not_overwritten(made: Checkout, command: Command, tmp_path: Path) -> None:
    path = str(made.prior.path)
    good(command(made.root, "push", path, "somebody/prior"))
    other = Checkout(tmp_path / "other")
    (other.root / path).mkdir(parents=True)
    (other.root / path / "mine").write_text("kept")
    assert "move it away first" in refused(command(other.root, "pull", "somebody/prior"))
    assert contents(other.root / path) == {"mine": b"kept"}
