"""Preference alignment as distribution learning: objectives, exact worlds, training, evaluation, tables."""

__version__ = "0.1.0"
