"""What both sides train on: real functions with right and wrong summary lines, and tiny Llama models, in one folder.

A prompt is a function of the standard library, its docstring removed, cut at a line's end. Its responses are its own
summary line, best, and those of other functions. TRL tokenises the texts itself; measure_trl.py checks that the ids agree.
"""

import ast
import json
import random
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.data.stdlib import summary_line
from prefdist.data.tokenizer import train_tokenizer
from prefdist.models import new_policy
from prefdist.tokens import TextCodec
from prefdist.training.batch import Batch

LONGEST_PROMPT = 126
"""Tokens, BOS and the newline behind it included."""
LONGEST_REFERENCE = 100
"""Characters."""
VOCABULARY = 2048
EXAMPLES = 512
RESPONSES = 4
_PACKAGES = ("asyncio", "collections", "concurrent", "email", "http", "importlib", "json", "logging", "unittest", "xml")

_SHARED = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": {
        **_SHARED,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "tie_word_embeddings": True,
    },
    "1M": {
        **_SHARED,
        "hidden_size": 128,
        "intermediate_size": 344,
        "num_hidden_layers": 4,
        "tie_word_embeddings": True,
    },
    "5M": {
        **_SHARED,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 6,
        "tie_word_embeddings": True,
    },
}
"""1.05 and 5.27 million weights at the full vocabulary; `tiny` is for tests."""


@dataclass(frozen=True)
class Workload:
    """The folder's tokenizer, its examples as texts, and the same examples as ids."""

    folder: Path
    texts: list[dict[str, Any]]
    codec: TextCodec

    def model(self, name: str) -> Path:
        return self.folder / name

    def batch(self, responses: int) -> Batch:
        """Every example with its first `responses` responses, best first."""
        return Batch(
            [str(i) for i in range(len(self.texts))],
            [self.codec.prompt(text["prompt"]) for text in self.texts],
            [[self.codec.response(y) for y in text["responses"][:responses]] for text in self.texts],
        )


def create(folder: Path, models: Sequence[str]) -> Workload:
    """Write tokenizer, examples and models."""
    pairs = list(_functions())
    train_tokenizer([text for pair in pairs for text in pair], VOCABULARY, folder / "tokenizer")
    codec = TextCodec(folder / "tokenizer")
    draw = random.Random(0)
    draw.shuffle(pairs)
    summaries = sorted({summary for _, summary in pairs})
    texts: list[dict[str, Any]] = []
    for source, summary in pairs:
        prompt = _cut(source, codec)
        if prompt:
            others = [other for other in draw.sample(summaries, RESPONSES) if other != summary]
            texts.append({"prompt": prompt, "responses": [summary, *others[: RESPONSES - 1]]})
        if len(texts) == EXAMPLES:
            break
    (folder / "examples.json").write_text(json.dumps(texts))
    for name in models:
        model = new_policy(ARCHITECTURES[name], codec, seed=0)
        model.save_pretrained(folder / name)
        codec.save(folder / name)
    return Workload(folder, texts, codec)


def load(folder: Path) -> Workload:
    return Workload(folder, json.loads((folder / "examples.json").read_text()), TextCodec(folder / "tokenizer"))


def useful_tokens(batch: Batch) -> list[int]:
    """Per example: tokens of each prompt with each of its responses, padding apart: what TRL's rows hold."""
    return [len(ys) * len(prompt) + sum(len(y) for y in ys) for prompt, ys in zip(batch.prompts, batch.responses, strict=True)]


def _functions() -> Iterator[tuple[str, str]]:
    """Source without docstring, and summary line, of documented functions and methods of some large packages."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(file for name in _PACKAGES for file in (library / name).glob("*.py")):
        with warnings.catch_warnings(), tokenize.open(path) as file:
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
                continue
            summary = summary_line(ast.get_docstring(node) or "", node.name)
            if summary and len(summary) <= LONGEST_REFERENCE and summary.isascii() and summary.isprintable():
                node.body = node.body[1:]
                yield ast.unparse(node), summary


def _cut(source: str, codec: TextCodec) -> str:
    """The first whole lines that fit; empty if none does."""
    lines = source.splitlines()
    while lines and len(codec.prompt("\n".join(lines))) > LONGEST_PROMPT:
        lines.pop()
    return "\n".join(lines)
