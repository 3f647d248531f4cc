"""Fresh responses of the current policy, with everything that objectives need of them, made once a rollout.

A rollout of minibatches·batch_size prompts feeds minibatches·epochs optimiser steps. Its prompts, and the random numbers
of its responses, are pure functions of (seed, rollout): resuming at a rollout's start repeats it exactly.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from prefdist.config.common import RewardUse, Rollouts
from prefdist.data.order import batch_indices
from prefdist.objectives.registry import Objective
from prefdist.sampling.engine import Sample, sample
from prefdist.sampling.law import Sampler
from prefdist.training.batch import Batch, Share
from prefdist.training.learner import Learner

TOKENS = 65_536
"""Tokens of a rollout that are scored in one pass, padding included."""


class RolloutSource:
    """Batches of fresh samples. `prompts` are (prompt_id, ids); `reward_model` None leaves out the scores.

    prior, reward_model: frozen, each in a learner of its own (as its policy, as its scorer), placed as the learner is.
    sample: draws from the policy as it is when called, with the arguments of sampling.engine.sample.
    """

    def __init__(
        self,
        learner: Learner,
        prior: Learner,
        prompts: list[tuple[str, list[int]]],
        settings: Rollouts,
        *,
        batch_size: int,
        seed: int,
        share: Share,
        pad_id: int,
        stop_ids: Sequence[int],
        reward_model: Learner | None = None,
        reward: RewardUse | None = None,
        objective: Objective | None = None,
        total: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        passes: Callable[[int], int] = lambda count: count,
        sample: Callable[..., list[list[Sample]]] = sample,
    ) -> None:
        self.learner, self.prior, self.prompts, self.settings = learner, prior, prompts, settings
        self.batch_size, self.seed, self.share = batch_size, seed, share
        self.pad_id, self.stop_ids = pad_id, stop_ids
        self.reward_model, self.reward = reward_model, reward or RewardUse()
        self.objective, self.total, self.passes, self.sample = objective, total, passes, sample
        self.updates = settings.minibatches * settings.epochs
        self._rollout: Batch | None = None
        self._drawn = (-1, "")

    def batch(self, step: int) -> Batch:
        """This process's share of the minibatch of an optimiser step; a new rollout is drawn at the first of each."""
        index, position = divmod(step, self.updates)
        if (index, self.learner.precision) != self._drawn:
            self._rollout, self._drawn = self._draw(index), (index, self.learner.precision)
        assert self._rollout is not None
        minibatch = position % self.settings.minibatches
        per_share = len(self._rollout) // self.settings.minibatches
        return self._rollout.select(range(minibatch * per_share, (minibatch + 1) * per_share))

    def metrics(self) -> dict[str, float]:
        """Of the last rollout, in all processes: mean response length, share without an end, mean reward as it is used."""
        rollout = self._rollout
        if rollout is None:
            return {}
        responses = [y for ys in rollout.responses for y in ys]
        sums: dict[str, float] = {
            "response_tokens": sum(map(len, responses)),
            "unfinished": sum(y[-1] not in self.stop_ids for y in responses),
        }
        if "scores" in rollout.columns:
            sums["reward"] = float(rollout.columns["scores"].sum())
        device = next(self.learner.parameters()).device
        *totals, count = self.total(torch.tensor([*sums.values(), len(responses)], device=device)).tolist()
        return {name: value / count for name, value in zip(sums, totals, strict=True)}

    @torch.no_grad()
    def _draw(self, index: int) -> Batch:
        size = self.batch_size * self.settings.minibatches
        chosen = batch_indices(len(self.prompts), size, index, self.seed)
        mine: list[int] = []
        for start in range(0, size, self.batch_size):  # so that every process has a part of every minibatch
            mine += self.share.of(range(start, start + self.batch_size))
        prompts = [self.prompts[chosen[i]] for i in mine]

        def answers(policy: Any) -> list[list[Sample]]:
            found: list[list[Sample]] = self.sample(
                policy,
                [ids for _, ids in prompts],
                [f"{self.seed}/{index}/{i}" for i in mine],
                num_samples=self.settings.samples,
                max_new_tokens=self.settings.max_new_tokens,
                stop_ids=self.stop_ids,
                sampler=Sampler(temperature=self.settings.temperature),
            )
            return found

        drawn = self.learner.ask(answers)
        responses = [[s.token_ids for s in samples] for samples in drawn]
        batch = Batch([name for name, _ in prompts], [ids for _, ids in prompts], responses)
        return Batch(batch.ids, batch.prompts, batch.responses, self._columns(batch))

    def _used(self, rewards: Tensor, batch: Batch) -> Tensor:
        """What the objective makes of r̂ [R, n]."""
        if self.reward.unfinished is not None:
            unfinished = [[y[-1] not in self.stop_ids for y in ys] for ys in batch.responses]
            rewards = rewards.masked_fill(torch.tensor(unfinished, device=rewards.device), self.reward.unfinished)
        return self.reward.scale * rewards

    def _columns(self, batch: Batch) -> dict[str, Tensor]:
        """What the objective needs of a rollout, in passes that bound memory."""
        parts = _parts(batch.lengths())
        scored = [self._scored(batch.select(part)) for part in parts]
        for _ in range(self.passes(len(parts)) - len(parts)):  # others have more, and a sharded learner needs all of us
            self._scored(batch.select(parts[-1]))
        longest = max(len(y) for ys in batch.responses for y in ys)
        columns = {name: torch.cat([_widened(part[name], longest) for part in scored]) for name in scored[0]}
        prepare = getattr(self.objective, "prepare", None)
        if prepare is not None:
            given = {**columns, "mask": batch.packed(self.pad_id).mask.to(columns["reference"].device)}
            del columns["values"]
            columns |= prepare({"old": columns["old"], "reference": columns["reference"]}, given, self.total)
        return {name: column.cpu() for name, column in columns.items()}

    def _scored(self, batch: Batch) -> dict[str, Tensor]:
        """Under π₀ and the reward model, and, where later steps or the objective need it, under policy and critic."""
        packed = batch.packed(self.pad_id).to(next(self.learner.parameters()).device)
        temperature = self.settings.temperature
        self.prior.precision = self.learner.precision  # it is subtracted from the policy's log-probabilities
        columns = {"reference": self.prior(packed, temperature)["policy"]}
        if self.reward_model is not None:
            self.reward_model.precision = self.learner.precision
            columns["scores"] = self._used(self.reward_model(packed, temperature)["reward"], batch)
        if self.updates > 1 or hasattr(self.objective, "prepare"):
            outputs = self.learner(packed, temperature)
            columns["old"] = outputs["policy"]
            if "values" in outputs:
                columns["values"] = outputs["values"]
        return columns


def _parts(lengths: Sequence[int]) -> list[range]:
    """Rows of one pass each: as many as TOKENS holds when padded to the longest of them, one at least."""
    parts, start, longest = [], 0, 0
    for i, length in enumerate(lengths):
        if i > start and max(longest, length) * (i + 1 - start) > TOKENS:
            parts.append(range(start, i))
            start, longest = i, 0
        longest = max(longest, length)
    return [*parts, range(start, len(lengths))]


def _widened(column: Tensor, longest: int) -> Tensor:
    """Token columns [R, n, T] with zeros up to the longest response of the rollout."""
    return pad(column, (0, longest - column.shape[-1])) if column.dim() == 3 else column
