"""Objectives as pure functions on tensors, named by rows of one table (workflow/objectives/*.yaml).

    objective = load("dpo")
    losses = objective(logps, columns)        # per example, [B]

Imports torch and pydantic, nothing of this package outside `objectives`.
"""

from prefdist.objectives.registry import Objective, load

__all__ = ["Objective", "load"]
