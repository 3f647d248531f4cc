"""The stage `responses`: n distinct responses of a policy to each prompt.

Distinct after white space is made equal; blank texts are dropped. A prompt with fewer than n such texts is left out.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from prefdist.config.common import TRANSFORMERS
from prefdist.data import tables
from prefdist.data.selection import first_prompts, held_out
from prefdist.errors import UserError
from prefdist.sampling.engines import opened, write_about
from prefdist.sampling.law import Sampler
from prefdist.sampling.rows import asked, check_context, draw
from prefdist.sampling.subsets import max_min_subset
from prefdist.scoring.shards import sharded
from prefdist.tokens import TextCodec

Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes responses.parquet and summary.json. Resumes from `scratch`, which is removed at the end.

    UserError if the split has no prompt, or none with n distinct responses.
    """
    text, split = inputs["text"], spec["split"]
    prompts = (first_prompts if split == "train" else held_out)(text, split, spec["prompts"])
    if not prompts:
        raise UserError(f"{text / 'prompts.parquet'}: no prompt of split {split!r}; name one of its splits")
    drawn, about = _drawn(spec, inputs["policy"], prompts, scratch)
    by_prompt = [drawn[start : start + spec["draws"]] for start in range(0, len(drawn), spec["draws"])]
    rows, summary = choose(by_prompt, spec["n"], spec["select"])
    if not rows:
        raise UserError(
            f"{inputs['policy']}: no prompt of split {split!r} has n = {spec['n']} distinct responses among {spec['draws']} "
            f"draws at temperature {spec['temperature']}; raise draws or temperature"
        )
    write_about(about, out)
    tables.write_table(out / "responses.parquet", rows, tables.SAMPLES)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    shutil.rmtree(scratch, ignore_errors=True)


def _drawn(spec: dict[str, Any], policy: Path, prompts: list[Row], scratch: Path) -> tuple[list[Row], dict[str, Any]]:
    """`draws` rows of the samples table for each prompt, in their order, and what drew them."""
    codec = TextCodec(policy)
    questions = asked(codec, prompts)
    lengths = [len(question.ids) for question in questions]
    sampler = Sampler(temperature=spec["temperature"], top_p=spec["top_p"])
    size = {"num_samples": spec["draws"], "max_new_tokens": spec["max_new_tokens"]}
    with opened(spec.get("engine", TRANSFORMERS), policy, max(lengths) + spec["max_new_tokens"]) as source:
        # The longest prompts come last, perhaps after hours.
        check_context(source.model, codec, questions, spec["max_new_tokens"])

        def compute(part: list[Row]) -> list[Row]:
            prompt_of = {row["prompt_id"]: row["prompt"] for row in part}
            rows = draw(source.model, codec, part, spec["key"], sampler=sampler, sample=source.sample, **size)
            return [{**row, "prompt": prompt_of[row["prompt_id"]]} for row in rows]

        rows = sharded(
            prompts,
            lengths,
            compute,
            per_shard=max(1, source.rows // spec["draws"]),
            schema=tables.SAMPLES,
            scratch=scratch,
            what="prompts sampled",
        )
    return rows, source.about


def choose(by_prompt: list[list[Row]], n: int, select: str) -> tuple[list[Row], dict[str, Any]]:
    """n rows of each prompt that has n distinct texts, numbered from 0 as chosen, and what became of the others.

    `select` is first (in the order drawn) or max_min (far apart in edit distance, see subsets.py). The summary counts
    prompts (asked, kept, dropped) and draws (duplicates, blanks); truncated is a share of the rows.
    """
    rows: list[Row] = []
    duplicates = blanks = kept = 0
    for drawn in by_prompt:
        distinct: dict[str, Row] = {}
        for row in drawn:
            normalised = " ".join(row["text"].split())
            blanks += not normalised
            duplicates += normalised in distinct
            if normalised:
                distinct.setdefault(normalised, row)
        usable = list(distinct.values())
        if len(usable) >= n:
            chosen = range(n) if select == "first" else max_min_subset([row["text"] for row in usable], n)
            rows += [{**usable[i], "sample": k} for k, i in enumerate(chosen)]
            kept += 1
    truncated = sum(row["finish_reason"] == "length" for row in rows) / max(1, len(rows))
    summary = {"prompts": len(by_prompt), "kept": kept, "dropped": len(by_prompt) - kept}
    return rows, summary | {"duplicates": duplicates, "blanks": blanks, "truncated": truncated}
