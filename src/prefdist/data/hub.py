"""Models and prompts of the Hugging Face hub, as folders and rows of our own. No code and no pickle is taken from it.

Left out: what becomes of them (the plans), and other columns of a dataset than prompts and chosen answers.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefdist.errors import UserError
from prefdist.paths import SUITES, check_model_folder

MODEL_FILES = ("*.safetensors", "*.json", "*.jinja")
"""Weights, configuration, tokenizer and chat template. What is not listed is not fetched: no *.bin, *.pt, *.pth, *.py."""
INDEX = "model.safetensors.index.json"
"""Which of several files of weights holds which."""

ROW_FILES = ("*.jsonl", "*.jsonl.gz", "*.parquet", "*.json")
"""Of a dataset: rows, and no script."""
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def fetch_model(repo: str, revision: str, out: Path) -> None:
    """Download one revision (a commit, or a branch or tag) of a model into the folder `out`, and check that it is one.

    Shards without an index get one. UserError if the revision is a placeholder, the hub cannot be reached, or it does not give
    the files.
    """
    _check_revision("model", "hub", repo, revision)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        snapshot_download(repo, revision=revision, local_dir=out, allow_patterns=list(MODEL_FILES))
    except (OSError, HTTPError, HFValidationError) as error:
        raise UserError(_unreachable("model", repo, revision, error)) from error
    shutil.rmtree(out / ".cache", ignore_errors=True)  # the download's own notes, which hold times
    check_model_folder(out)
    _index_shards(out)


def _index_shards(folder: Path) -> None:
    """Write which shard holds which weight where the repository has an index of its pickles only, as mistral-7b-sft-beta does.

    transformers opens no shards without it. UserError if shards are missing, since it would make up their weights.
    """
    from safetensors import safe_open

    shards = sorted(folder.glob("model-[0-9]*-of-[0-9]*.safetensors"))
    if not shards or (folder / INDEX).is_file():
        return
    wanted = int(shards[0].stem.rpartition("-")[2])
    if len(shards) != wanted:
        raise UserError(f"{folder}: {len(shards)} of {wanted} shards model-*, and no {INDEX}; choose another commit")
    places: dict[str, str] = {}
    for shard in shards:
        with safe_open(shard, framework="pt") as weights:
            places |= dict.fromkeys(weights.keys(), shard.name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=1, sort_keys=True) + "\n")


def take_model(folder: Path, out: Path) -> None:
    """Copy a local model's files into `out`. UserError if the folder holds none."""
    check_model_folder(folder)
    _copy(folder, MODEL_FILES, out)


def _copy(folder: Path, patterns: Iterable[str], out: Path) -> None:
    """Files of these names, at any depth."""
    for file in sorted(set().union(*(folder.rglob(pattern) for pattern in patterns))):
        copy = out / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def fetch_dataset(repo: str, revision: str | None, out: Path, files: Sequence[str] | None = None) -> None:
    """The files of rows of a dataset in `out`: of one commit of the hub, or copied from a local folder. UserError as above.

    files: these paths instead, all of which must be there.
    """
    _take_dataset(repo, revision, out, ROW_FILES if files is None else files)
    for file in files or ():
        if not (out / file).is_file():
            raise UserError(f"dataset {repo}, revision {revision}: no file {file} in it; look at its page, or leave out files")


def _take_dataset(repo: str, revision: str | None, out: Path, patterns: Sequence[str]) -> None:
    if Path(repo).is_dir():
        _copy(Path(repo), patterns, out)
        return
    _check_revision("dataset", "dataset", repo, revision)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=out, allow_patterns=list(patterns))
    except (OSError, HTTPError, HFValidationError) as error:
        raise UserError(_unreachable("dataset", repo, revision, error)) from error
    shutil.rmtree(out / ".cache", ignore_errors=True)


def hub_prompts(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of tables.PROMPTS, in an order that is a pure function of the seed and the texts.

    `spec`: dataset (a repository of the hub, or a local folder of Parquet or JSON-lines files named <split>.… or
    <split>-….…), revision (hub only), splits (ours -> the dataset's, such as {"train": "train_prefs"}), seed and
    max_prompt_chars (None: all).
    Of the dataset, `prompt` is read and, where it is there, `chosen`: a text, or messages whose last is the answer.
    Texts are stripped. A prompt that occurs again is left out, in training also when it is held out elsewhere.
    UserError if the dataset cannot be had or has no texts in a column `prompt`.
    """
    rows: dict[str, dict[str, str]] = {}
    module = Path(spec["dataset"]).name if Path(spec["dataset"]).is_dir() else spec["dataset"]
    for split in sorted(spec["splits"], key=lambda name: (name == "train", name)):  # training last
        for prompt, reference in _read(spec, spec["splits"][split]):
            prompt_id = hashlib.sha256(prompt.encode()).hexdigest()[:16]
            row = {"prompt_id": prompt_id, "module": module, "split": split, "prompt": prompt, "reference": reference}
            if spec["max_prompt_chars"] is None or len(prompt) <= spec["max_prompt_chars"]:
                rows.setdefault(prompt_id, row)
    return sorted(rows.values(), key=lambda row: hashlib.sha256(f"{spec['seed']}:{row['prompt_id']}".encode()).digest())


def _read(spec: Mapping[str, Any], split: str) -> Iterable[tuple[str, str]]:
    """(prompt, chosen answer or "") of every example that has a prompt."""
    dataset = _load(spec, split)
    if getattr(dataset.features.get("prompt"), "dtype", None) not in ("string", "large_string"):
        names = ", ".join(dataset.column_names)
        raise UserError(f"{spec['dataset']}: split {split} has no column `prompt` of texts; its columns are {names}")
    columns = ["prompt", "chosen"] if "chosen" in dataset.column_names else ["prompt"]
    for example in dataset.select_columns(columns):
        prompt = example["prompt"].strip()
        if prompt:
            yield prompt, _answer(example.get("chosen")).strip()


def _load(spec: Mapping[str, Any], split: str) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    folder = Path(spec["dataset"])
    if folder.is_dir():
        files = sorted(f for f in folder.rglob("*") if f.suffix in FORMATS and f.stem.split("-")[0] == split)
        kinds = {FORMATS[file.suffix] for file in files}
        if len(kinds) != 1:
            found = f"files of {len(kinds)} formats" if kinds else "no file"
            raise UserError(f"{folder}: {found} for split {split}; put {split}.parquet or {split}.jsonl there")
        return load_dataset(kinds.pop(), data_files=[str(file) for file in files], split="train")
    _check_revision("dataset", "dataset", spec["dataset"], spec["revision"])
    try:
        return load_dataset(spec["dataset"], revision=spec["revision"], split=split)
    except (OSError, ValueError, DatasetsError, HTTPError) as error:
        raise UserError(_unreachable("dataset", spec["dataset"], spec["revision"], error)) from error


def _answer(chosen: Any) -> str:
    if isinstance(chosen, list):
        return str(chosen[-1]["content"]) if chosen else ""
    return str(chosen or "")


def _check_revision(kind: str, key: str, repo: str, revision: str | None) -> None:
    """UserError for a commit of zeros, which stands in a suite where none was found and its user has chosen none."""
    if revision and revision.strip("0"):
        return
    files = [str(file) for file in sorted(SUITES.glob("*.yaml")) if f"{key}: {repo}" in file.read_text()]
    raise UserError(
        f"{' and '.join(files) or SUITES}: revision beside {key}: {repo} is {revision}, a placeholder; put there the commit "
        f"that you accept, as the {kind}'s page on the hub lists it"
    )


def _unreachable(kind: str, repo: str, revision: str | None, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{kind} {repo}, revision {revision}: not available ({reason.rstrip('.')}); run `hf auth login`, accept its licence "
        f"on the hub, or give a local folder"
    )
