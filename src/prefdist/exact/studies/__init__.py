"""One module a study: its numbers, its figure, its claims. `run` is what the workflow calls."""
