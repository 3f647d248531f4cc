"""vLLM behind the signature of the project's own sampler: a worker under its own interpreter, and the client that asks it."""
