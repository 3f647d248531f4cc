"""What many tests share: the library's text, a tiny world made by the project's own stages, and a server of processes."""

import copy
import json
import multiprocessing
import os
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import checkouts
import pytest
import torch
import yaml
from scipy.stats import chisquare
from torch import Tensor

from prefdist import artefacts
from prefdist.config.testbed import Suite
from prefdist.data import tables
from prefdist.data.stdlib import Extraction, extract
from prefdist.data.tokenizer import train_tokenizer
from prefdist.models import load_policy, load_scorer
from prefdist.objectives.registry import ROWS_FOLDER, read_row
from prefdist.plan import STAGES, Artefact, plan
from prefdist.suites import load_suite
from prefdist.tokens import TextCodec

torch.set_num_threads(1)  # so that a reduction adds in one order, and neighbours on the machine are left alone
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive a fork


def _of_pairs(row: Any) -> bool:
    """Whether a testbed suite can run it: the others learn from a teacher, or from longer lists."""
    return row.family != "token_distillation" and getattr(row, "model", "bradley_terry") == "bradley_terry"


OBJECTIVES = sorted(file.stem for file in ROWS_FOLDER.glob("*.yaml") if _of_pairs(read_row(file)))
# The suite's own reward model is an input of the others; `scorer` is one that tests may train again.
RUNS = sorted({*OBJECTIVES, "dpo_lora", "scorer"} - {"reward_model"})
LIBRARY_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


@pytest.fixture(scope="session")
def library() -> Extraction:
    """The interpreter's library, read once: it takes seconds."""
    return extract(fractions=LIBRARY_FRACTIONS, seed=0)


@dataclass(frozen=True)
class World:
    """A checkout with a tiny suite, and made of it: text, target, prior, pairs, their reference, a reward model."""

    root: Path
    artefacts: dict[str, Artefact]

    @property
    def codec(self) -> TextCodec:
        return TextCodec(self.folder("text") / "tokenizer")

    def folder(self, name: str) -> Path:
        return self.root / self.artefacts[name].path

    def policy(self, name: str) -> Any:
        return load_policy(self.folder(name))

    def reward_model(self) -> Any:
        return load_scorer(self.folder("reward_model-seed0"))

    def training(self, run: str, **optimisation: Any) -> tuple[dict[str, Any], dict[str, Path]]:
        """Specification and inputs of a training of the suite, its optimisation overridden."""
        artefact = self.artefacts[f"{run}-seed0"]
        spec: dict[str, Any] = copy.deepcopy(artefact.spec)
        spec["optimisation"] |= optimisation
        return spec, {role: self.root / source.path for role, source in artefact.inputs.items()}

    def train(self, run: str, out: Path, **optimisation: Any) -> list[dict[str, float]]:
        """Train from scratch into `out`; returns the log."""
        spec, inputs = self.training(run, **optimisation)
        import_module(STAGES["train"]).run(spec, inputs, out, out.with_name(out.name + ".scratch"))
        return read_log(out)


def read_log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _suite(root: Path) -> Suite:
    """Written as a suite of a checkout, so that `prefdist make` finds it in there."""
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    runs: dict[str, Any] = {"dpo_lora": {"objective": "dpo", "lora": lora}, "scorer": {"objective": "reward_model"}}
    for name in set(OBJECTIVES) - {"reward_model"}:
        row = read_row(name)
        runs[name] = {"objective": name}
        if row.responses == "policy" or getattr(row, "regulariser", None):
            several = {"minibatches": 2, "epochs": 2} if getattr(row, "algorithm", "") == "ppo" else {}
            runs[name]["rollouts"] = {"samples": 2, "max_new_tokens": 8, **several}
    mapping = {
        "suite": "tiny",
        "version": "v1",
        "seeds": [0],
        "text": {"vocabulary": 320},
        "architecture": {
            "model_type": "llama",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
        },
        "target": {"temperature": 0.7, "optimisation": {"steps": 120, "batch_size": 16, "learning_rate": 2e-2}},
        "prior": {"noise": 0.3, "optimisation": {"steps": 40, "batch_size": 16, "learning_rate": 2e-2}},
        "preferences": {
            "gamma": 0.1,
            "pairs_per_prompt": 1,
            "train_prompts": 48,
            "test_prompts": 8,
            "max_new_tokens": 8,
        },
        "reward_model": {
            "objective": "reward_model",
            "optimisation": {"steps": 20, "batch_size": 8, "learning_rate": 1e-2},
        },
        # No split of 7 examples is even: 3 or fewer in micro-batches, 4 and 3 in two processes.
        "defaults": {"optimisation": {"steps": 8, "batch_size": 7, "micro_batch_size": 3, "learning_rate": 1e-3}},
        "runs": runs,
        "evaluation": {"prompts": 4, "samples": 2, "max_new_tokens": 8},
    }
    (root / "workflow" / "suites").mkdir(parents=True)
    (root / "Snakefile").touch()
    (root / "workflow" / "suites" / "tiny.yaml").write_text(yaml.safe_dump(mapping))
    suite = load_suite("tiny", root)
    assert isinstance(suite, Suite)
    return suite


def _write_text(out: Path) -> None:
    """240 made-up functions, a reference each; one in ten is held out, one in ten for validation."""
    verbs = ("open", "close", "read", "write", "copy", "move", "sort", "send", "parse", "print", "check", "count")
    nouns = ("file", "path", "list", "line", "name", "text", "code", "node", "tree", "key", "page", "row")
    rows = []
    for i, (verb, noun) in enumerate((verb, noun) for verb in verbs for noun in nouns):
        split = {0: "test", 1: "validation"}.get(i % 10, "train")
        prompt = f"{noun}s: def {verb}({noun})"
        reference = f"{verb.capitalize()} the {noun}."
        rows.append({"prompt_id": str(i), "module": noun, "split": split, "prompt": prompt, "reference": reference})
    tables.write_table(out / "prompts.parquet", rows, tables.PROMPTS)
    train_tokenizer((f"{row['prompt']}\n{row['reference']}" for row in rows), 320, out / "tokenizer")


def _make(root: Path, artefact: Artefact) -> None:
    out = root / artefact.path
    if (out / artefacts.PROVENANCE).is_file():
        return
    for source in artefact.inputs.values():
        _make(root, source)
    inputs = {role: root / source.path for role, source in artefact.inputs.items()}
    stage = import_module(STAGES[artefact.stage])
    scratch = root / "scratch" / artefact.path.name
    run = _write_text if artefact.stage == "text" else lambda folder: stage.run(artefact.spec, inputs, folder, scratch)
    artefacts.make(out, identity={"stage": artefact.stage}, inputs=inputs, run=run)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    made = plan(_suite(root))
    # One seed, so every stage but the trainings has one artefact that matters here.
    named = {a.stage: a for a in made.artefacts.values()} | {a.name: a for a in made.of_stage("train")}
    for name in ("target", "prior", "preferences", "reference", "reward_model-seed0"):
        _make(root, named[name])
    return World(root, named)


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts real processes in a few milliseconds each: they are forked from one that has imported the packages."""
    context = multiprocessing.get_context("forkserver")
    imported = ["prefdist.training.stage", "transformers.models.llama", "accelerate", "peft", "pyarrow.dataset", "pytest"]
    context.set_forkserver_preload(imported)
    return context


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout in which the smallest suite has been run. Whoever changes it puts it back."""
    checkout = checkouts.copy(tmp_path_factory.mktemp("checkout"))
    done = checkouts.snakemake(checkout, "smoke")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return checkout


def plain_logps(model: Any, prompt: list[int], response: list[int], temperature: float = 1.0) -> Tensor:
    """log π of each response token [T] by one unpadded forward pass of transformers: what packed rows must agree with."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]


def p_value(tokens: list[int], probabilities: Tensor) -> float:
    """Of a chi-square test; tokens expected fewer than 5 times share a bin."""
    counts = torch.bincount(torch.tensor(tokens), minlength=len(probabilities)).double()
    expected = probabilities * len(tokens)
    rare = expected < 5
    found, wanted = (torch.cat([values[~rare], values[rare].sum(0, keepdim=True)]) for values in (counts, expected))
    filled = wanted > 0
    assert found[~filled].sum() == 0
    assert filled.sum() > 1, "too few tokens for a second bin"
    return float(chisquare(found[filled], wanted[filled]).pvalue)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of a judge's endpoint on loopback: short waits, and no proxy between."""
    monkeypatch.setattr("prefdist.judging.pace.FIRST_WAIT", 0.01)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
