"""Models and prompts of the hub, without a network: a stand-in for the download, and datasets in local files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from chat_models import llama3_folder
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForCausalLM

from prefdist.data import tables
from prefdist.data.hub import INDEX, fetch_model, hub_prompts
from prefdist.errors import UserError
from prefdist.models import load_policy
from prefdist.tokens import TextCodec

MENDED = r"; run `hf auth login`, accept its licence on the hub, or give a local folder$"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model as repositories hold it: with pickled weights and code beside what we want."""
    folder = llama3_folder(tmp_path / "repository")
    for name in ("pytorch_model.bin", "consolidated.00.pth", "modeling.py", "README.md"):
        (folder / name).write_text("no")
    return folder


def downloads(repository: Path) -> Callable[..., None]:
    """snapshot_download of that repository, with the library's own reading of patterns."""

    def snapshot_download(repo: str, *, revision: str, local_dir: Path, allow_patterns: list[str]) -> None:
        assert (repo, revision) == ("someone/model", "abc123")
        names = [file.name for file in repository.iterdir()]
        (local_dir / ".cache" / "huggingface").mkdir(parents=True)
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            shutil.copy(repository / name, local_dir / name)

    return snapshot_download


def test_a_fetched_model_is_complete_and_holds_no_pickle(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", downloads(repository))
    out = tmp_path / "out"
    fetch_model("someone/model", "abc123", out)
    assert TextCodec(out).prompt("open it") == TextCodec(repository).prompt("open it")
    assert load_policy(out).config.model_type == "llama"
    assert {file.suffix for file in out.iterdir()} == {".json", ".safetensors", ".jinja"}


def test_a_repository_of_pickles_is_refused(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", downloads(repository))
    with pytest.raises(UserError, match=r"no \*.safetensors weights there"):
        fetch_model("someone/model", "abc123", tmp_path / "out")


def sharded(repository: Path) -> int:
    """The repository with its weights in several files and no index of them; how many files."""
    AutoModelForCausalLM.from_pretrained(repository).save_pretrained(repository, max_shard_size="20KB")
    (repository / INDEX).unlink()
    (repository / "model.safetensors").unlink()
    return len(list(repository.glob("*.safetensors")))


def test_shards_without_an_index_get_one(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in mistral-7b-sft-beta. Every weight is the one of the model that was in one file."""
    weights = load_policy(repository).state_dict()
    assert sharded(repository) > 2
    (repository / "pytorch_model.bin").unlink()
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        load_policy(repository)
    monkeypatch.setattr("huggingface_hub.snapshot_download", downloads(repository))
    fetch_model("someone/model", "abc123", tmp_path / "out")
    torch.testing.assert_close(load_policy(tmp_path / "out").state_dict(), weights, rtol=0, atol=0)


def test_an_index_that_is_there_is_kept(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(repository)
    (repository / INDEX).write_text("its own")
    monkeypatch.setattr("huggingface_hub.snapshot_download", downloads(repository))
    fetch_model("someone/model", "abc123", tmp_path / "out")
    assert (tmp_path / "out" / INDEX).read_text() == "its own"


def test_missing_shards_are_refused(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = sharded(repository)
    min(repository.glob("*.safetensors")).unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", downloads(repository))
    with pytest.raises(UserError, match=rf"out: {count - 1} of {count} shards .*choose another commit$"):
        fetch_model("someone/model", "abc123", tmp_path / "out")


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("cannot be reached.\nMore."),
        HTTPError("cannot be reached."),
        HFValidationError("cannot be reached"),
        ConnectionError("cannot be reached"),
    ],
)
def test_a_hub_out_of_reach_is_one_sentence(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError, match=r"^model a/b, revision main: not available \(cannot be reached\)" + MENDED):
        fetch_model("a/b", "main", tmp_path)
    if not isinstance(error, HFValidationError):  # a ValueError, as an unknown split is
        monkeypatch.setattr("datasets.load_dataset", refuse)
        with pytest.raises(UserError, match=r"^dataset a/b, revision main: not available \(cannot be reached\)" + MENDED):
            hub_prompts({"dataset": "a/b", "revision": "main", "splits": {"train": "train"}, "seed": 0})


@pytest.mark.parametrize("revision", ["0" * 40, "0" * 7])
def test_a_placeholder_is_refused_before_the_network(revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming the suites that hold the repository."""
    monkeypatch.chdir(tmp_path)
    suites = tmp_path / "workflow" / "suites"
    suites.mkdir(parents=True)
    (suites / "mine.yaml").write_text(
        f"models: {{a: {{hub: some/model, revision: '{revision}'}}}}\nprompts: {{dataset: some/data}}"
    )
    (suites / "other.yaml").write_text("models: {a: {hub: another/model}}")
    wanted = "put there the commit that you accept"
    with pytest.raises(
        UserError, match=rf"^workflow/suites/mine\.yaml: revision beside hub: some/model is {revision}, .*{wanted}"
    ):
        fetch_model("some/model", revision, tmp_path / "out")
    with pytest.raises(UserError, match=rf"^workflow/suites/mine\.yaml: revision beside dataset: some/data is .*{wanted}"):
        hub_prompts(spec(Path("some/data"), revision=revision))
    assert not (tmp_path / "out").exists()


# ---- prompts ---------------------------------------------------------------------------------------------------------


def example(prompt: str, answer: str) -> dict[str, Any]:
    """As in UltraFeedback, binarised."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"prompt": prompt, "chosen": turns, "score_chosen": 7.5}


TRAIN = [example(f"task {i}", f"answer {i}") for i in range(30)]
TEST = [example(f"held-out {i}", f"answer {i}") for i in range(5)]


def write(folder: Path, name: str, examples: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(examples), folder / name)
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in examples))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def spec(folder: Path, **changes: Any) -> dict[str, Any]:
    splits = {"train": "train_prefs", "test": "test_prefs"}
    return {"dataset": str(folder), "splits": splits, "seed": 0, "max_prompt_chars": None} | changes


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_prompts_of_local_files(ending: str, tmp_path: Path) -> None:
    folder = tmp_path / "feedback"
    write(folder, f"train_prefs-00000-of-00002.{ending}", TRAIN[:20])
    write(folder, f"train_prefs-00001-of-00002.{ending}", TRAIN[20:])
    write(folder, f"test_prefs.{ending}", TEST)
    write(folder, f"train_sft.{ending}", [example("another split", "")])
    rows = hub_prompts(spec(folder))
    tables.write_table(tmp_path / "prompts.parquet", rows, tables.PROMPTS)
    expected = [("train", f"task {i}", f"answer {i}") for i in range(30)]
    expected += [("test", f"held-out {i}", f"answer {i}") for i in range(5)]
    assert sorted((row["split"], row["prompt"], row["reference"]) for row in rows) == sorted(expected)
    assert {row["module"] for row in rows} == {"feedback"}
    assert len({row["prompt_id"] for row in rows}) == 35


def test_longer_prompts_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "train_prefs.jsonl", [example("x" * 9, "nine"), example("x" * 10, "ten")])
    write(tmp_path, "test_prefs.jsonl", TEST)
    assert [row["reference"] for row in hub_prompts(spec(tmp_path, max_prompt_chars=9)) if row["split"] == "train"] == ["nine"]


def test_the_order_depends_on_the_seed_and_the_texts_alone(tmp_path: Path) -> None:
    """Not on the order of the files' lines; and the ids on the texts alone."""
    for name, train in (("one", TRAIN), ("other", TRAIN[::-1])):
        write(tmp_path / name, "train_prefs.jsonl", train)
        write(tmp_path / name, "test_prefs.jsonl", TEST)
    orders = [
        [row["prompt_id"] for row in hub_prompts(spec(tmp_path / name, seed=seed))]
        for name, seed in (("one", 0), ("other", 0), ("one", 1))
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != sorted(orders[0])


def test_a_prompt_occurs_once_and_never_in_training_if_held_out(tmp_path: Path) -> None:
    again = [example(" task 3\n", "another answer"), example("held-out 1", "leaked"), example("  ", "to nothing")]
    write(tmp_path / "data", "train_prefs.jsonl", TRAIN + again)
    write(tmp_path / "data", "test_prefs.jsonl", TEST)
    rows = hub_prompts(spec(tmp_path / "data"))
    assert len(rows) == 35
    assert [(row["split"], row["reference"]) for row in rows if row["prompt"] == "held-out 1"] == [("test", "answer 1")]
    assert [row["reference"] for row in rows if row["prompt"] == "task 3"] == ["answer 3"]


@pytest.mark.parametrize(("chosen", "reference"), [({}, ""), ({"chosen": " a text "}, "a text"), ({"chosen": []}, "")])
def test_references_are_optional(chosen: dict[str, Any], reference: str, tmp_path: Path) -> None:
    write(tmp_path / "data", "train_prefs.jsonl", [{"prompt": "do it"} | chosen])
    (row,) = hub_prompts(spec(tmp_path / "data", splits={"train": "train_prefs"}))
    assert row["reference"] == reference


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"data: no file for split train_prefs; put train_prefs\.parquet or train_prefs\.jsonl there"),
        ({"train_prefs.jsonl": TRAIN, "train_prefs.parquet": TRAIN}, "data: files of 2 formats for split train_prefs"),
        (
            {"train_prefs.jsonl": [{"question": "why", "id": 1}]},
            "data: split train_prefs has no column `prompt` of texts; its columns are question, id",
        ),
        (
            {"train_prefs.jsonl": [{"prompt": [{"role": "user", "content": "why"}]}]},
            "data: split train_prefs has no column `prompt` of texts; its columns are prompt",
        ),
    ],
)
def test_files_that_cannot_serve(files: dict[str, list[dict[str, Any]]], message: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, examples in files.items():
        write(tmp_path / "data", name, examples)
    with pytest.raises(UserError, match=message):
        hub_prompts(spec(tmp_path / "data", splits={"train": "train_prefs"}))
