"""Draw responses from a policy: token ids in, token ids out."""
