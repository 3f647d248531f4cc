"""Fresh samples: what a rollout is a function of, what its columns are, and that training on them goes the right way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World, plain_logps
from torch import Tensor, nn

from prefdist.config.common import Optimisation, RewardUse, Rollouts
from prefdist.data import tables
from prefdist.logprobs import packed_logprobs
from prefdist.objectives import load
from prefdist.sampling import engine
from prefdist.sampling.engine import sample
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import Packed
from prefdist.training import examples, rollouts
from prefdist.training.batch import Share
from prefdist.training.learner import Learner
from prefdist.training.loop import Stream, train
from prefdist.training.parallel import Parallel
from prefdist.training.rollouts import RolloutSource
from prefdist.training.terms import kl_term, objective_term

MakeSource = Callable[..., RolloutSource]


@pytest.fixture(scope="module")
def make_source(world: World) -> MakeSource:
    """A source as the stage makes it. The policy is π*, so that it differs from the prior."""
    codec = world.codec
    target, prior, reward_model = world.policy("target"), world.policy("prior"), world.reward_model()

    def make(learner: Learner | None = None, share: Share | None = None, **options: Any) -> RolloutSource:
        options = {"batch_size": 6, "seed": 0, "reward_model": Learner(scorer=reward_model)} | options
        prompts = options.pop("prompts", examples.prompts({"preferences": world.folder("preferences")}, codec))
        settings = Rollouts(**{"samples": 3, "max_new_tokens": 8} | options.pop("rollouts", {}))
        return RolloutSource(
            learner or Learner(target),
            Learner(prior),
            prompts,
            settings,
            share=share or Share(),
            pad_id=codec.pad_id,
            stop_ids=codec.stop_ids,
            **options,
        )

    return make


def test_a_function_of_seed_and_step(make_source: MakeSource) -> None:
    """Going to step 5 directly gives what going there step by step gives; another seed or step gives other samples."""
    options = {"rollouts": {"minibatches": 2, "epochs": 2}}
    source = make_source(**options)
    visited = [source.batch(step) for step in range(6)]
    direct = make_source(**options).batch(5)
    assert (direct.ids, direct.responses) == (visited[5].ids, visited[5].responses)
    assert all(torch.equal(direct.columns[name], column) for name, column in visited[5].columns.items())
    # Steps 0 to 3 share a rollout of two minibatches that is gone through twice.
    assert visited[0].responses == visited[2].responses
    assert visited[1].responses == visited[3].responses
    assert not set(visited[0].ids) & set(visited[1].ids)
    assert visited[4].responses != visited[0].responses
    assert make_source(**options, seed=1).batch(5).responses != direct.responses


def test_rewards_are_used_as_the_run_says(make_source: MakeSource) -> None:
    """r̂ times the factor; of responses without an end the given value, times the factor too."""
    plain = make_source().batch(0)
    used = make_source(reward=RewardUse(scale=2.0, unfinished=-1.0)).batch(0)
    assert used.responses == plain.responses
    ends = torch.tensor([[y[-1] in make_source().stop_ids for y in ys] for ys in plain.responses])
    assert ends.any() and not ends.all()
    expected = torch.where(ends, 2 * plain.columns["scores"], torch.tensor(-2.0))
    torch.testing.assert_close(used.columns["scores"], expected, rtol=0, atol=0)


def test_prompts_are_those_of_their_own_table_where_there_is_one(world: World) -> None:
    """All training prompts of the text, and not only those of the pairs."""
    found = examples.prompts({"prompts": world.folder("text"), "preferences": world.folder("preferences")}, world.codec)
    rows = tables.read_table(world.folder("text") / "prompts.parquet", tables.PROMPTS)
    expected = {row["prompt_id"]: world.codec.prompt(row["prompt"]) for row in rows if row["split"] == "train"}
    assert dict(found) == expected and len(found) == len(expected) > 48


def test_every_place_has_numbers_of_its_own(make_source: MakeSource, world: World) -> None:
    """One prompt alone fills all 6 places of all rollouts, and is answered afresh in each."""
    prompts = [("only", world.codec.prompt("def f"))]
    source = make_source(Learner(world.policy("prior")), prompts=prompts, rollouts={"samples": 2, "max_new_tokens": 20})
    answers = [tuple(map(tuple, ys)) for step in range(3) for ys in source.batch(step).responses]
    assert len(set(answers)) == len(answers) == 18


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("world_size", [2, 4])
def test_shares_are_the_whole(minibatches: int, world_size: int, make_source: MakeSource) -> None:
    """Every process draws its part of every minibatch, with the same numbers; 6 prompts over 4 are 2, 2, 1 and 1."""
    options = {"rollouts": {"minibatches": minibatches}}
    whole = make_source(**options)
    for step in range(2 * minibatches):
        batch = whole.batch(step)
        found = 0
        for rank in range(world_size):
            part = make_source(share=Share(rank, world_size), **options).batch(step)
            found += len(part)
            assert part.ids == batch.ids[rank::world_size]
            assert part.responses == batch.responses[rank::world_size]
            # Rows are padded to another length: float32 sums of 16 terms differ by a few 1e-7.
            assert part.columns["scores"] == pytest.approx(batch.columns["scores"][rank::world_size], abs=2e-6)
        assert found == len(batch) == 6


def test_independent_of_batching(make_source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    together = make_source().batch(0)
    monkeypatch.setattr(engine, "ROWS", 1)
    assert make_source().batch(0).responses == together.responses


@pytest.mark.parametrize("more", [0, 2])
def test_a_rollout_is_scored_in_passes_that_bound_memory(
    more: int, make_source: MakeSource, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In passes of few rows, also where other processes need more of them; whitened advantages are of the whole rollout."""
    options = {"objective": load("reverse_kl_ppo"), "rollouts": {"epochs": 2}}
    together = make_source(Learner(world.policy("target"), world.reward_model()), **options).batch(0)
    lengths = together.lengths()
    monkeypatch.setattr(rollouts, "TOKENS", 2 * max(lengths))
    widths, forward = [], Learner.forward

    def counted(self: Learner, packed: Packed, temperature: float) -> dict[str, torch.Tensor]:
        widths.append(packed.input_ids.numel())
        return forward(self, packed, temperature)

    monkeypatch.setattr(Learner, "forward", counted)
    source = make_source(Learner(world.policy("target"), world.reward_model()), passes=lambda count: count + more, **options)
    apart = source.batch(0)
    assert apart.responses == together.responses and len(widths) - more >= 3
    assert max(widths) <= 2 * max(lengths)
    assert apart.columns.keys() == together.columns.keys()
    for name, column in together.columns.items():
        # Rows are padded to another length: log-probabilities of about 10 nats carry 1e-6 each, and advantages sum some.
        torch.testing.assert_close(apart.columns[name], column, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_columns(temperature: float, make_source: MakeSource, world: World) -> None:
    """Against one unpadded forward pass of transformers for each response, log-softmax in float64."""
    source = make_source(rollouts={"temperature": temperature, "epochs": 2, "max_new_tokens": 6})
    batch = source.batch(0)
    prior, target, scorer = world.policy("prior"), world.policy("target"), world.reward_model().model
    assert any(len(y) == 6 and y[-1] != world.codec.eos_id for ys in batch.responses for y in ys)
    assert any(y[-1] == world.codec.eos_id for ys in batch.responses for y in ys)
    for i, (prompt, responses) in enumerate(zip(batch.prompts, batch.responses, strict=True)):
        for k, response in enumerate(responses):
            size = len(response)
            for name, model in {"reference": prior, "old": target}.items():
                column = batch.columns[name][i, k]
                # log-probabilities of about 10 nats carry 1e-6 each in float32
                assert column[:size] == pytest.approx(plain_logps(model, prompt, response, temperature), abs=1e-5)
                assert not column[size:].any()
            with torch.no_grad():
                reward = scorer(torch.tensor([prompt + response])).logits[0, 0]
            assert batch.columns["scores"][i, k] == pytest.approx(float(reward), abs=1e-5)
    metrics = source.metrics()
    lengths = [len(y) for ys in batch.responses for y in ys]
    assert metrics["response_tokens"] == pytest.approx(sum(lengths) / 18)
    assert metrics["reward"] == pytest.approx(float(batch.columns["scores"].mean()), rel=1e-6)
    unfinished = sum(y[-1] != world.codec.eos_id for ys in batch.responses for y in ys)
    assert metrics["unfinished"] == pytest.approx(unfinished / 18)


def test_the_ratio_of_the_first_update_is_1(make_source: MakeSource, world: World) -> None:
    """The policy recomputed in micro-batches is the one that sampled, and the critic's values are the old ones."""
    learner = Learner(world.policy("target"), world.reward_model())
    source = make_source(learner, objective=load("reverse_kl_ppo"), rollouts={"epochs": 2})
    seen = 0
    for micro in source.batch(0).micro_batches(4):
        packed = micro.packed(world.codec.pad_id)
        with torch.no_grad():
            outputs = learner(packed, 1.0)
        # 3e-6: the rounding of log-probabilities of 10 nats and more in float32, padded to another length
        assert float((outputs["policy"] - micro.columns["old"]).abs().max()) < 3e-6
        assert float((outputs["values"] - micro.columns["old_values"]).abs().max()) < 3e-6
        # At ratio 1 nothing is clipped: the policy's part of the loss is −Σ A·weight, for any clip.
        wide, narrow = (load("reverse_kl_ppo").row.model_copy(update={"clip": clip}) for clip in (10.0, 1e-5))
        for row in (wide, narrow):
            objective = load(row.model_dump() | {"value_coefficient": 0.0})
            loss = objective_term(objective)(outputs, micro, packed)
            expected = -(micro.columns["advantages"].sum(-1) * micro.columns["weight"]).mean(-1)
            assert loss == pytest.approx(expected, abs=3e-5)
        seen += len(micro)
    assert seen == 6


def one_step(source: RolloutSource, learner: Learner, terms: list[Any], world: World, scratch: Path) -> dict[str, float]:
    settings = Optimisation(steps=1, batch_size=source.batch_size, micro_batch_size=4, learning_rate=1e-4)
    (row,) = train(
        Parallel(learner),
        [Stream(source, terms)],
        settings,
        pad_id=world.codec.pad_id,
        scratch=scratch,
    )
    return row


def test_what_the_log_says(make_source: MakeSource, world: World, tmp_path: Path) -> None:
    """KL and entropy of the log are means over the fresh samples of sums over their tokens."""
    batch = make_source().batch(0)  # the samples of step 0, with the policy as it will be then
    prior, target = world.policy("prior"), world.policy("target")
    pairs = [(prompt, y) for prompt, ys in zip(batch.prompts, batch.responses, strict=True) for y in ys]
    logp = torch.stack([plain_logps(target, prompt, y).sum() for prompt, y in pairs])
    log_prior = torch.stack([plain_logps(prior, prompt, y).sum() for prompt, y in pairs])
    learner = Learner(target)
    row = one_step(make_source(learner), learner, [kl_term(0.5)], world, tmp_path)
    assert row["kl_to_prior"] == pytest.approx(float((logp - log_prior).mean()), abs=1e-4)  # 8 tokens at 1e-5
    assert row["entropy"] == pytest.approx(float(-logp.mean()), abs=1e-4)
    assert row["reward"] == pytest.approx(float(batch.columns["scores"].mean()), abs=1e-6)


def test_the_kl_term_is_scaled_and_zero_at_the_prior(make_source: MakeSource, world: World, tmp_path: Path) -> None:
    norms = []
    for name, coefficient in (("target", 1.0), ("target", 0.25), ("prior", 1.0)):
        learner = Learner(world.policy(name))
        row = one_step(make_source(learner), learner, [kl_term(coefficient)], world, tmp_path / f"{name}{coefficient}")
        norms.append(row["grad_norm"])
    assert norms[1] == pytest.approx(norms[0] / 4, rel=1e-5)
    assert norms[2] < 1e-4 * norms[0]


@pytest.mark.parametrize("objective", ["rlhf_rloo", "rlhf_ppo", "rebel"])
def test_training_raises_the_reward(objective: str, world: World, tmp_path: Path) -> None:
    """Mean reward of the samples, first 8 steps against the last 8. Found: 1.2 to 1.6, with a spread of 0.2 a step."""
    log = world.train(objective, tmp_path / "out", steps=60, learning_rate=5e-3, batch_size=16)
    rewards = [row["reward"] for row in log]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 0.8


class LogProbability(nn.Module):
    """A reward that is log p(y | x) under a language model: then E_π[r] + H(π) is −KL(π‖p)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def rewards(self, packed: Packed) -> Tensor:
        return packed_logprobs(self.model, packed).sum(-1)


def reverse_kl(policy: Any, target: Any, world: World) -> float:
    """KL(π‖π*) in nats, estimated from 16 samples for each of 30 prompts."""
    codec = world.codec
    prompts = [ids for _, ids in examples.prompts({"preferences": world.folder("preferences")}, codec)][:30]
    keys = [f"estimate/{i}" for i in range(len(prompts))]
    drawn = sample(policy, prompts, keys, num_samples=16, max_new_tokens=8, stop_ids=codec.stop_ids)
    responses = [[s.token_ids for s in samples] for samples in drawn]
    log_target = torch.cat(response_logps(target, prompts, responses, pad_id=codec.pad_id))
    return float((torch.tensor([s.logp for samples in drawn for s in samples]) - log_target).mean())


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_reverse_kl_finds_its_target(algorithm: str, make_source: MakeSource, world: World, tmp_path: Path) -> None:
    """γ = 1, β = 0 and r = log π*: the objective is −KL(π‖π*), from π₀. Found: 31 nats before, 12 and 13 after."""
    target = world.policy("target")
    objective = load(f"reverse_kl_{algorithm}", {"gamma": 1.0, "beta": 0.0})
    learner = Learner(world.policy("prior"), world.reward_model() if algorithm == "ppo" else None)
    source = make_source(learner, batch_size=16, reward_model=Learner(scorer=LogProbability(target)), objective=objective)
    before = reverse_kl(learner.policy, target, world)
    train(
        Parallel(learner),
        [Stream(source, [objective_term(objective)])],
        Optimisation(steps=80, batch_size=16, micro_batch_size=16, learning_rate=5e-3),
        pad_id=world.codec.pad_id,
        scratch=tmp_path,
    )
    assert reverse_kl(learner.policy, target, world) < 0.6 * before
