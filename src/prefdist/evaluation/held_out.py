"""The stage `held_out`: samples of an untrained model on held-out prompts, with log π* of each where it is known.

Plain samples at T = 1, duplicates and all: the law of the model, not a list to be ranked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.selection import held_out
from prefdist.models import load_frozen, load_policy
from prefdist.sampling.rows import draw
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes responses.parquet and, with a target, oracle.parquet."""
    prompts = held_out(inputs["text"], "test", spec["prompts"])
    judge = Judge.load(inputs["target"]) if "target" in inputs else None
    rows = sample(inputs["policy"], prompts, "held_out", spec)
    tables.write_table(out / "responses.parquet", rows, tables.RESPONSES)
    if judge is not None:
        tables.write_table(out / "oracle.parquet", judge.scores(prompts, rows), tables.SCORES)


def sample(policy: Path, prompts: list[dict[str, Any]], key: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the responses table. Equal keys give equal random numbers, whatever the policy."""
    size = {"num_samples": spec["samples"], "max_new_tokens": spec["max_new_tokens"]}
    return draw(load_frozen(policy), TextCodec(policy), prompts, key, **size)


@dataclass(frozen=True)
class Judge:
    """π* and its tokenizer."""

    model: Any
    codec: TextCodec

    @classmethod
    def load(cls, folder: Path) -> "Judge":
        return cls(load_policy(folder), TextCodec(folder))

    def scores(self, prompts: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """log π* of each response, in π*'s own tokens; EOS counts where the response ended."""
        texts = {row["prompt_id"]: row["prompt"] for row in prompts}
        ids: dict[str, list[list[int]]] = {}
        for row in rows:
            ids.setdefault(row["prompt_id"], []).append(self.codec.response(row["text"])[: _end(row)])
        questions = [self.codec.prompt(texts[name]) for name in ids]
        logps = response_logps(self.model, questions, list(ids.values()), pad_id=self.codec.pad_id)
        values = (float(logp) for of_prompt in logps for logp in of_prompt)
        lengths = (len(y) for ys in ids.values() for y in ys)
        return [
            {
                "prompt_id": row["prompt_id"],
                "sample": row["sample"],
                "scorer": "target",
                "logp": logp,
                "n_tokens": n,
                "reward": None,
            }
            for row, logp, n in zip(rows, values, lengths, strict=True)
        ]


def _end(row: dict[str, Any]) -> int | None:
    """Where to cut a response's ids: a truncated one has no end token. A truncated blank keeps it: nothing else is left."""
    return -1 if row["finish_reason"] == "length" and row["text"] else None
