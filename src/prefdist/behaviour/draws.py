"""The stage `draws`: samples of a policy under a law of its tokens, duplicates and all, which several measures share."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefdist.config.common import TRANSFORMERS
from prefdist.data import tables
from prefdist.data.selection import held_out
from prefdist.errors import UserError
from prefdist.models import load_frozen
from prefdist.sampling.contrastive import Contrast, Pair
from prefdist.sampling.engines import Source, local, opened, write_about
from prefdist.sampling.law import Sampler
from prefdist.sampling.rows import Asked, asked, check_context, draw_with_law
from prefdist.scoring.shards import sharded
from prefdist.tokens import TextCodec

Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes draws.parquet, in the order of the prompts. Resumes from `scratch`, which is removed at the end.

    With an input `first`, draws of the same policy, the second questions of text's second_turns.parquet are answered, each once
    behind each of the first `samples` answers to the first question.

    UserError if the split has no prompt, or one is too long for the model.
    """
    rows = held_out(inputs["text"], spec["split"], spec["prompts"])
    if not rows:
        raise UserError(f"{inputs['text'] / 'prompts.parquet'}: no prompt of split {spec['split']!r}")
    codec, follows = TextCodec(inputs["policy"]), "first" in inputs
    prompts = _second_turns(codec, rows, inputs, spec["samples"]) if follows else asked(codec, rows)
    lengths = [len(prompt.ids) for prompt in prompts]
    size = {"num_samples": 1 if follows else spec["samples"], "max_new_tokens": spec["max_new_tokens"]}
    with _source(spec, inputs, max(lengths) + spec["max_new_tokens"]) as (source, sampler):
        check_context(source.model, codec, prompts, spec["max_new_tokens"])
        options = {"sampler": sampler, "sample": source.sample, **size}
        drawn = sharded(
            prompts,
            lengths,
            lambda part: draw_with_law(source.model, codec, part, spec["key"], **options),
            per_shard=max(1, source.rows // size["num_samples"]),
            schema=tables.DRAWS,
            scratch=scratch,
            what="prompts sampled",
        )
    write_about(source.about, out)
    tables.write_table(out / "draws.parquet", drawn, tables.DRAWS)
    shutil.rmtree(scratch, ignore_errors=True)


def _second_turns(codec: TextCodec, rows: list[Row], inputs: dict[str, Path], samples: int) -> list[Asked]:
    """Of each prompt, the second question behind each of the first `samples` answers."""
    table = tables.read_table(inputs["text"] / "second_turns.parquet", tables.SECOND_TURNS)
    second, answers = {row["prompt_id"]: row["prompt"] for row in table}, read_draws(inputs["first"])
    found = []
    for row in rows:
        name = row["prompt_id"]
        for answer in answers[name][:samples]:
            ids = codec.second_prompt(row["prompt"], answer["token_ids"], second[name])
            found.append(Asked(name, ids, answer["sample"]))
    return found


@contextmanager
def _source(spec: dict[str, Any], inputs: dict[str, Path], longest: int) -> Iterator[tuple[Source, Sampler]]:
    if "contrast" in spec["law"]:
        model, sampler = sampled_from(spec["law"], inputs)
        yield local(model), sampler
    else:
        with opened(spec.get("engine", TRANSFORMERS), inputs["policy"], longest) as source:
            yield source, Sampler(**spec["law"])


def sampled_from(law: dict[str, Any], inputs: dict[str, Path]) -> tuple[Any, Sampler]:
    """The model, or the pair of models that a contrast takes, and the law of its tokens; `law` is a Decoder's."""
    filters = dict(law)
    contrast = filters.pop("contrast", None)
    model = load_frozen(inputs["policy"])
    if contrast is not None:
        model = Pair(model, load_frozen(inputs["reference"]), Contrast(**contrast))
    return model, Sampler(**filters)


def read_draws(folder: Path) -> dict[str, list[Row]]:
    """Samples by prompt, in the order of the prompts."""
    groups: dict[str, list[Row]] = {}
    for row in tables.read_table(folder / "draws.parquet", tables.DRAWS):
        groups.setdefault(row["prompt_id"], []).append(row)
    return groups
