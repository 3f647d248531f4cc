"""Terms of the loss: what turns a micro-batch's outputs into per-example losses [B]."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from prefdist.objectives.registry import Objective
from prefdist.tokens import Packed
from prefdist.training.batch import Batch
from prefdist.training.decomposition import regroup

Term = Callable[[Mapping[str, Tensor], Batch, Packed], Tensor]


def objective_term(objective: Objective, list_size: int | None = None) -> Term:
    """The objective on the batch's columns. Objectives of sequences get sums over tokens, objectives of tokens the mask.

    "old" is the current policy itself where the batch has no such column: the samples are from this very step. With a
    `list_size` an example's loss is the mean over the sublists of its column "groups" (decomposition.py).
    """

    def losses(outputs: Mapping[str, Tensor], batch: Batch, packed: Packed) -> Tensor:
        given = {**batch.columns, **outputs}
        logps = {name: value for name, value in given.items() if name in _LOGPS}
        columns = {name: value for name, value in given.items() if name not in _LOGPS}
        if "policy" in logps:
            logps.setdefault("old", outputs["policy"].detach())
        if "mask" in objective.needs:
            return objective(logps, {**columns, "mask": packed.mask})
        summed = {name: value.sum(-1) if value.dim() == 3 else value for name, value in logps.items()}
        columns["n_tokens"] = packed.n_tokens
        if list_size is None:
            return objective(summed, columns)
        groups = columns.pop("groups")
        summed = {name: regroup(value, groups, list_size) for name, value in summed.items()}
        columns = {name: regroup(value, groups, list_size) for name, value in columns.items()}
        return objective(summed, columns).view(len(groups), -1).mean(-1)

    return losses


_LOGPS = {"policy", "old", "reference", "reward"}


def kl_term(coefficient: float) -> Term:
    """coefficient·KL(π‖π₀), its gradient exact in expectation, on fresh samples with a "reference" column of tokens."""
    from prefdist.objectives.policy_gradient import kl_surrogate

    def losses(outputs: Mapping[str, Tensor], batch: Batch, packed: Packed) -> Tensor:
        return coefficient * kl_surrogate(outputs["policy"], batch.columns["reference"], packed.mask)

    return losses


def policy_metrics(outputs: Mapping[str, Any], batch: Batch) -> dict[str, Tensor]:
    """Sums over the batch's samples, for the log: KL(π‖π₀) and entropy estimates of fresh samples, in nats."""
    reference = batch.columns.get("reference")
    if "policy" not in outputs or reference is None or reference.dim() != 3:
        return {}
    logp = outputs["policy"].detach().sum(-1)
    return {"kl_to_prior": (logp - reference.sum(-1)).mean(-1).sum(), "entropy": -logp.mean(-1).sum()}
