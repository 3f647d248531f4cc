"""What DVC shares: exported copies of finished artefacts, and what each of them is made from."""
