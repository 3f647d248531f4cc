"""One loop for every objective: batches, fresh samples, terms of the loss, checkpoints. No method is named here."""
