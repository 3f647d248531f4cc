"""The stages of behaviour on the tiny world: what they write, recomputed one forward pass at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import World, _make, plain_logps
from sacrebleu.metrics import BLEU
from scipy.special import expit

from prefdist.behaviour import best_of_n
from prefdist.behaviour.draws import read_draws
from prefdist.data import tables
from prefdist.models import load_policy
from prefdist.plan import Artefact, Plan, plan
from prefdist.suites import load_suite
from prefdist.tokens import TextCodec

GAMMA = 0.1
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def planned(world: World) -> Plan:
    optimisation = {"steps": 8, "batch_size": 8, "learning_rate": 5e-3}
    mapping = {
        "kind": "spl",
        "suite": "behaviour",
        "version": "v1",
        "seeds": [0],
        "world": "tiny",
        "defaults": {"optimisation": optimisation},
        "runs": {"dpo": {"objective": "dpo"}},
        "decoders": {"warm": {"run": "dpo", "temperature": 1.5}, "weaker": {"run": "dpo", "contrast": {"a": 0.5, "b": -0.5}}},
        "draws": {"prompts": 5, "samples": 4, "max_new_tokens": 8},
        "diversity": {"embedder": {"dimensions": 4}},
        "shift": {"pairs": 8, "mixture": {"objective": "sft", "optimisation": optimisation}},
        "repeats": {"prompts": 5, "samples": 2, "counts": [0, 3], "max_new_tokens": 4, "policies": ["dpo"]},
        "calibration": {"choices": {"summaries": {"source": "references", "questions": 6, "options": 2, "template": "short"}}},
        "tax": {"texts": 4},
    }
    (world.root / "workflow/suites/behaviour.yaml").write_text(yaml.safe_dump(mapping))
    return plan(load_suite("behaviour", world.root), world.root)


@pytest.fixture(scope="module")
def made(world: World, planned: Plan) -> Callable[[str, str], tuple[Artefact, Path]]:
    """An artefact by stage and name, made when it is asked for."""

    def make(stage: str, name: str) -> tuple[Artefact, Path]:
        (artefact,) = [artefact for artefact in planned.of_stage(stage) if artefact.name == name]
        _make(world.root, artefact)
        return artefact, world.root / artefact.path

    return make


@pytest.fixture(scope="module")
def dpo(world: World, made: Any) -> Any:
    return load_policy(made("train", "dpo-seed0")[1])


def of_metric(folder: Path, metric: str) -> dict[str, float]:
    rows = tables.read_table(folder / "metrics.parquet", tables.METRICS)
    return {row["prompt_id"]: row["value"] for row in rows if row["metric"] == metric}


def prompt_ids(world: World, name: str) -> list[int]:
    rows = tables.read_table(world.folder("text") / "prompts.parquet", tables.PROMPTS)
    return world.codec.prompt({row["prompt_id"]: row["prompt"] for row in rows}[name])


def scored(world: World, model: Any, draws: dict[str, Rows], temperature: float = 1.0) -> dict[str, np.ndarray]:
    """log π of every sample, one forward pass each."""
    return {
        name: np.array(
            [float(plain_logps(model, prompt_ids(world, name), row["token_ids"], temperature).sum()) for row in rows]
        )
        for name, rows in draws.items()
    }


@pytest.mark.parametrize(("policy", "temperature"), [("dpo", 1.0), ("warm", 1.5)])
def test_draws_have_both_log_probabilities(world: World, made: Any, dpo: Any, policy: str, temperature: float) -> None:
    draws = read_draws(made("draws", f"{policy}-held_out-0")[1])
    assert [len(rows) for rows in draws.values()] == [4] * 5
    plain, tempered = scored(world, dpo, draws), scored(world, dpo, draws, temperature)
    for name, rows in draws.items():
        # float32 forward passes, batched here and single there
        np.testing.assert_allclose([row["logp"] for row in rows], plain[name], atol=1e-4)
        np.testing.assert_allclose([row["logq"] for row in rows], tempered[name], atol=1e-4)


def test_quality_and_diversity(world: World, made: Any) -> None:
    artefact, folder = made("diversity", "warm")
    draws, of_base = (read_draws(world.root / artefact.inputs[role].path) for role in ("draws/0", "base_draws/0"))
    prior, target = scored(world, world.policy("prior"), draws), scored(world, world.policy("target"), draws)
    other = scored(world, world.policy("target"), of_base)
    bleu = BLEU(effective_order=True)
    for name, rows in draws.items():
        assert of_metric(folder, "cross_entropy")[name] == pytest.approx(-prior[name].mean(), abs=1e-4)
        wins = [expit(GAMMA * (mine - theirs)) for mine in target[name] for theirs in other[name]]
        assert of_metric(folder, "win_rate_base")[name] == pytest.approx(np.mean(wins), abs=1e-5)
        assert of_metric(folder, "entropy")[name] == pytest.approx(-np.mean([row["logq"] for row in rows]))
        assert of_metric(folder, "length")[name] == np.mean([row["n_tokens"] for row in rows])
        texts = [row["text"] for row in rows]
        if all(texts):
            by_hand = [bleu.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts)]
            assert of_metric(folder, "self_bleu")[name] == pytest.approx(np.mean(by_hand))
    apart, own = artefact.inputs["judge/0"], artefact.inputs["own/0"]
    assert apart.inputs["preferences"].spec["seed"] != own.inputs["preferences"].spec["seed"] == 0


def test_pi0_has_shifted_nowhere(made: Any) -> None:
    _, folder = made("shift", "base")
    for metric in ("log_ratio_chosen", "log_ratio_rejected"):
        assert of_metric(folder, metric) == pytest.approx(dict.fromkeys(of_metric(folder, metric), 0.0), abs=1e-5)
    assert of_metric(folder, "tpm_reward") == of_metric(folder, "tpm_reward_0")
    assert of_metric(folder, "tpm_sft") == of_metric(folder, "tpm_sft_0")
    assert json.loads((folder / "slopes.json").read_text())[0]["reward"] == "none"


def test_mass_and_slopes_of_a_tuned_policy(world: World, made: Any, dpo: Any) -> None:
    artefact, folder = made("shift", "dpo")
    draws, of_base = (read_draws(world.root / artefact.inputs[role].path) for role in ("draws/0", "base_draws/0"))
    target = world.policy("target")
    own, other = scored(world, target, draws), scored(world, target, of_base)
    wins = {name: expit(GAMMA * np.subtract.outer(own[name], other[name][::2])).mean() for name in own}
    assert of_metric(folder, "tpm_win") == pytest.approx(wins, abs=1e-5)

    rows = [row for row in _preferences(world, artefact) if row["split"] == "test"][:8]
    pairs = {row["prompt_id"]: [{"token_ids": row[f"{side}_ids"]} for side in ("chosen", "rejected")] for row in rows}
    policy, base, known = (scored(world, model, pairs) for model in (dpo, world.policy("prior"), target))
    ratios = {name: policy[name] - base[name] for name in pairs}
    assert of_metric(folder, "log_ratio_rejected") == pytest.approx({n: r[1] for n, r in ratios.items()}, abs=1e-4)
    # DPO: β·(log π − log π₀) on γ·log π*, both centred within a prompt; β = γ = 0.1
    y, x = (np.concatenate([v - v.mean() for v in of.values()]) for of in (ratios, known))
    (slope,) = [row for row in json.loads((folder / "slopes.json").read_text()) if row["reward"] == "known"]
    assert slope["value"] == pytest.approx(x @ y / (x @ x), abs=1e-4)
    assert slope["low"] < slope["value"] < slope["high"]


def _preferences(world: World, artefact: Artefact) -> Rows:
    return tables.read_table(world.root / artefact.inputs["preferences/0"].path / "preferences.parquet", tables.PREFERENCES)


def test_repeats_are_measured_behind_them(world: World, made: Any, dpo: Any) -> None:
    _, folder = made("repeats", "dpo")
    assert of_metric(folder, "kl/repeats/0") == of_metric(folder, "kl/random/0") == of_metric(folder, "kl/text/0")
    assert of_metric(folder, "kl/repeats/3") != of_metric(folder, "kl/random/3")
    prior = world.policy("prior")
    for name, value in of_metric(folder, "kl/repeats/0").items():
        bos, *ids = prompt_ids(world, name)
        context = torch.tensor([[bos, *world.codec.prompt("")[1:], *ids]])  # no filling, but the line break behind it
        with torch.no_grad():
            p, q = (model(context).logits[0, -1].double().log_softmax(-1) for model in (dpo, prior))
        assert value == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-5)
    fits = json.loads((folder / "fits.json").read_text())
    assert [(fit["filling"], fit["k"]) for fit in fits] == [(kind, k) for k in (0, 3) for kind in ("repeats", "random", "text")]
    assert all(0 <= fit["accuracy_low"] <= fit["accuracy"] <= fit["accuracy_high"] <= 1 for fit in fits)


def test_answers_are_the_letters_probabilities(world: World, made: Any, dpo: Any) -> None:
    artefact, folder = made("calibration", "dpo")
    questions = tables.read_table(world.root / artefact.inputs["choices/summaries"].path / "choices.parquet", tables.CHOICES)
    answers = tables.read_table(folder / "answers.parquet", tables.ANSWERS)
    text = {row["prompt_id"]: row for row in tables.read_table(world.folder("text") / "prompts.parquet", tables.PROMPTS)}
    for question, answer in zip(questions, answers, strict=True):
        lines = question["prompt"].splitlines()
        assert lines[1 + 2 * question["gold"]] == text[question["question_id"]]["reference"]
        with torch.no_grad():
            logits = dpo(torch.tensor([world.codec.prompt(question["prompt"])])).logits[0, -1].double()
        law = logits.softmax(-1)
        by_hand = [float(law[world.codec.single_tokens([letter, f" {letter}"])].sum().log()) for letter in "AB"]
        assert answer["logp_options"] == pytest.approx(by_hand, abs=1e-4)
        right = float(np.argmax(by_hand) == question["gold"])
        assert of_metric(folder, "summaries/accuracy")[question["question_id"]] == right


def test_perplexity_of_references(world: World, made: Any, dpo: Any) -> None:
    _, folder = made("tax", "dpo")
    text = {row["prompt_id"]: row for row in tables.read_table(world.folder("text") / "prompts.parquet", tables.PROMPTS)}
    for name, value in of_metric(folder, "text_nll").items():
        ids = world.codec.response(text[name]["reference"])
        assert value == pytest.approx(-float(plain_logps(dpo, prompt_ids(world, name), ids).mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("source", "text", "solution", "right"),
    [
        ("world", "2 + 3 = 5\n#### 5", "1 + 4 = 5\n#### 5", True),
        ("world", "2 + 3 = 5", "1 + 4 = 5\n#### 5", True),  # no mark: the last number
        ("world", "#### 6\n5", "#### 5", False),  # the mark decides
        ("gsm8k", "So $1,200 in all.\n#### 1,200", "… 1200\n#### 1200", True),
        ("gsm8k", "", "#### 0", False),
        ("math", r"so \boxed{\frac12}", r"\boxed{\dfrac{1}{2}}", True),
        ("math", r"so 1/2", r"\boxed{\frac{1}{2}}", False),  # nothing is boxed
    ],
)
def test_what_is_right(source: str, text: str, solution: str, right: bool) -> None:
    assert best_of_n.is_right(source)(text, solution) is right


def test_outcomes_and_rewards(world: World, tmp_path: Path) -> None:
    codec, scorer = world.codec, world.reward_model()
    problems = [("p", "ab: def a", "#### 7"), ("q", "ab: def b", "#### 8")]
    texts = {"p": ["#### 7", "#### 8", "7"], "q": ["#### 7", "8 8", "no"]}
    folders = {role: tmp_path / role for role in ("problems", "draws/0", "split", "out")} | {
        "judge/0": world.folder("reward_model-seed0")
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt_id": n, "module": "m", "split": "test", "prompt": p, "reference": r} for n, p, r in problems]
    tables.write_table(folders["problems"] / "prompts.parquet", rows, tables.PROMPTS)
    for role in ("draws/0", "split"):
        tables.write_table(
            folders[role] / "draws.parquet", [r for n in texts for r in _drawn(codec, n, texts[n])], tables.DRAWS
        )
    spec = {"run": "dpo", "seeds": [0], "source": "world"}
    best_of_n.run(spec, folders, folders["out"], tmp_path / "scratch")
    outcomes = tables.read_table(folders["out"] / "outcomes.parquet", tables.OUTCOMES)
    assert [row["correct"] for row in outcomes] == [True, False, True, False, True, False]
    assert of_metric(folders["out"], "pass_at_1") == {"p": pytest.approx(2 / 3), "q": pytest.approx(1 / 3)}
    assert {row["reward"] for row in tables.read_table(folders["out"] / "split.parquet", tables.OUTCOMES)} == {None}
    for row in outcomes:
        prompt = codec.prompt(dict((n, p) for n, p, _ in problems)[row["prompt_id"]])
        ids = torch.tensor([prompt + codec.response(texts[row["prompt_id"]][row["sample"]])])
        with torch.no_grad():
            by_hand = float(scorer.model.score(scorer.model.model(ids).last_hidden_state[0, -1]))
        assert row["reward"] == pytest.approx(by_hand, abs=1e-4)


def _drawn(codec: TextCodec, name: str, texts: list[str]) -> Rows:
    return [
        {
            "prompt_id": name,
            "sample": i,
            "token_ids": codec.response(text),
            "text": text,
            "finish_reason": "stop",
            "n_tokens": len(codec.response(text)),
            "logp": -1.0,
            "logq": -1.0,
        }
        for i, text in enumerate(texts)
    ]
