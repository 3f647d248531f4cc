"""What a suite may say, by its kind, checked when the workflow is parsed: unknown keys and wrong values are refused."""
