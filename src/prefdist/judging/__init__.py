"""Judges of answers: an endpoint, a reward model, the known preference of a testbed; what they say is stored. See stage.py."""
