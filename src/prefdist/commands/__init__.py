"""The sub-commands of `prefdist`, one group a file: `add(commands)` declares them; what they do is imported when called."""
