"""Judges without an endpoint: the known preference in closed form, a reward model by a plain forward pass."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World, plain_logps
from judge_inputs import judged, write_answers
from scipy.special import expit

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.tokens import TextCodec

GAMMA = 0.3
Row = dict[str, Any]


@pytest.fixture
def inputs(world: World, tmp_path: Path) -> dict[str, Path]:
    """Two samples of each of three prompts beside the prompts' references; the last answer is cut off."""
    codec = world.codec
    prompts = tables.read_table(world.folder("text") / "prompts.parquet", tables.PROMPTS)[:3]
    rows = []
    for prompt in prompts:
        for k, text in enumerate(("Read the file.", "Open the list")):
            ids = codec.response(text)[: 3 if k else None]
            rows.append(
                {
                    "prompt_id": prompt["prompt_id"],
                    "sample": k,
                    "token_ids": ids,
                    "text": codec.decode(ids),
                    "finish_reason": "length" if k else "stop",
                    "n_tokens": len(ids),
                    "logp": 0.0,
                    "logq": 0.0,
                }
            )
    (tmp_path / "answers").mkdir()
    tables.write_table(tmp_path / "answers/draws.parquet", rows, tables.DRAWS)
    return {
        "prompts": world.folder("text"),
        "answers": tmp_path / "answers",
        "target": world.folder("target"),
        "reward_model": world.folder("reward_model-seed0"),
    }


def _expected(
    world: World, inputs: dict[str, Path], score: Callable[[list[int], list[int]], float], scale: float
) -> list[float]:
    """1 + σ(scale·(score(answer) − score(reference))) of every answer."""
    prompts = {row["prompt_id"]: row for row in tables.read_table(inputs["prompts"] / "prompts.parquet", tables.PROMPTS)}
    found = []
    for row in tables.read_table(inputs["answers"] / "draws.parquet", tables.DRAWS):
        prompt = prompts[row["prompt_id"]]
        ids = world.codec.prompt(prompt["prompt"])
        margin = score(ids, row["token_ids"]) - score(ids, world.codec.response(prompt["reference"]))
        found.append(1.0 + float(expit(scale * margin)))
    return found


def test_known_preference_is_the_closed_form(world: World, inputs: dict[str, Path], tmp_path: Path) -> None:
    target = world.policy("target")
    spec = {"run": "dpo", "seed": 3, "judge": {"kind": "known", "gamma": GAMMA}}
    rows = judged(spec, inputs, tmp_path)
    wanted = _expected(world, inputs, lambda prompt, answer: float(plain_logps(target, prompt, answer).sum()), GAMMA)
    # float32 forward passes, packed and plain: 1e-5 nats of about 20 each
    assert [row["preference"] for row in rows] == pytest.approx(wanted, abs=1e-5)
    assert len({round(value, 3) for value in wanted}) > 3, "preferences that differ"
    metrics = tables.read_table(tmp_path / "out/metrics.parquet", tables.METRICS)
    wins = {row["prompt_id"]: row["value"] for row in metrics if row["metric"] == "win_rate"}
    assert list(wins.values()) == pytest.approx([(wanted[2 * i] + wanted[2 * i + 1]) / 2 - 1 for i in range(3)], abs=1e-5)
    assert {(row["run"], row["seed"]) for row in metrics} == {("dpo", 3)}
    assert {row["metric"] for row in metrics} == {"win_rate", "length_answer", "length_baseline"}


def test_reward_model_is_bradley_terrys(world: World, inputs: dict[str, Path], tmp_path: Path) -> None:
    scorer = world.reward_model()

    def score(prompt: list[int], answer: list[int]) -> float:
        with torch.no_grad():
            return float(scorer.model(torch.tensor([prompt + answer])).logits[0, 0])

    rows = judged({"run": "dpo", "seed": 0, "judge": {"kind": "reward_model"}}, inputs, tmp_path)
    assert [row["preference"] for row in rows] == pytest.approx(_expected(world, inputs, score, 1.0), abs=1e-5)
    assert {row["reply"] for row in rows} == {None}
    assert json.loads((tmp_path / "out/summary.json").read_text())["unparsable"] == 0


def test_ids_of_another_tokenizer_are_encoded_anew(world: World, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Same texts under made-up ids: what is judged are the texts."""
    spec = {"run": "dpo", "seed": 0, "judge": {"kind": "known", "gamma": GAMMA}}
    first = [row for row in judged(spec, inputs, tmp_path) if row["sample"] == 0]
    names = [row["prompt_id"] for row in first]
    others = write_answers(tmp_path / "others", {name: ["Read the file."] for name in names})
    again = judged(spec, {**inputs, "answers": others}, tmp_path)
    assert [row["preference"] for row in again] == pytest.approx([row["preference"] for row in first], abs=1e-6)


def test_swapping_answer_and_baseline_turns_the_preference_round(world: World, inputs: dict[str, Path], tmp_path: Path) -> None:
    names = [row["prompt_id"] for row in tables.read_table(inputs["prompts"] / "prompts.parquet", tables.PROMPTS)[:3]]
    one = write_answers(tmp_path / "one", {name: ["Read the file."] for name in names})
    two = write_answers(tmp_path / "two", {name: ["Sort."] for name in names})
    spec = {"run": "dpo", "seed": 0, "judge": {"kind": "known", "gamma": GAMMA}}
    forth = judged(spec, {**inputs, "answers": one, "baseline": two}, tmp_path)
    back = judged(spec, {**inputs, "answers": two, "baseline": one}, tmp_path)
    for a, b in zip(forth, back, strict=True):
        assert math.isclose(a["preference"] + b["preference"], 3.0, abs_tol=1e-6)


def test_an_answer_without_a_token_is_named(world: World, inputs: dict[str, Path], tmp_path: Path) -> None:
    rows = tables.read_table(inputs["answers"] / "draws.parquet", tables.DRAWS)[:1]
    rows[0] |= {"token_ids": [], "text": "", "finish_reason": "length"}
    tables.write_table(inputs["answers"] / "draws.parquet", rows, tables.DRAWS)
    with pytest.raises(UserError, match="has no token to be judged by"):
        judged({"run": "dpo", "seed": 0, "judge": {"kind": "known", "gamma": GAMMA}}, inputs, tmp_path)


def test_the_codec_of_the_world_is_the_targets(world: World) -> None:
    """What the tests above rest on: the target's folder reads ids as the world does."""
    ids = world.codec.response("Read the file.")
    assert TextCodec(world.folder("target")).decode(ids) == "Read the file."
