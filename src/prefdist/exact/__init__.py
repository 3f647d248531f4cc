"""Worlds small enough to enumerate: closed forms, trained optima and gradient estimators without sampling noise."""

from prefdist.exact.closed_forms import tilt, tpm

__all__ = ["tilt", "tpm"]
