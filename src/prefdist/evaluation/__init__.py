"""Measurements of trained policies and reward models, and the statistics that turn them into numbers with intervals."""
