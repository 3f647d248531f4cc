"""Mean tokens of a suite's prompts and references: counted where the text is made, else from the suite's limits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from prefdist.plan.graph import Artefact

COUNTED = 500
"""Rows of a split whose tokens are counted."""
CHARS_A_TOKEN = 4.0
"""Characters of a token where no tokenizer is at hand: English under tokenizers of tens of thousands of tokens."""
PROBLEM_TOKENS, SOLUTION_TOKENS = (22.0, 13.0), (2.0, 9.0)
"""Tokens of a generated word problem and of its solution, without steps and for each; measured with a vocabulary of 386."""
ASSUMED = 500.0
"""Tokens of a prompt of which neither text nor limit is known."""


@dataclass(frozen=True)
class Lengths:
    """Mean tokens, with BOS and EOS, and how many prompts the splits have. Without `counted` they are upper limits,
    or for generated word problems typical.

    `reference` is None where there is none to count: responses are then as long as their budget.
    """

    prompt: float
    reference: float | None
    prompts: dict[str, int]
    counted: bool

    def response(self, budget: int) -> float:
        """Models are trained on references, and write as much; the budget cuts them off."""
        return float(budget) if self.reference is None else min(float(budget), self.reference)

    def available(self, split: str, wanted: int) -> int:
        """Prompts of a split: as many as asked for, if there are so many."""
        return min(wanted, self.prompts.get(split, wanted))


def lengths_of(text: Artefact, root: Path) -> Lengths:
    """Of an artefact `text` (with its own tokenizer) or `prompts` (four characters a token)."""
    file = root / text.path / "prompts.parquet"
    if not file.is_file():
        return _limits(text)
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=["split", "prompt", "reference"]).to_pydict()
    splits = table["split"]
    prompts = {split: splits.count(split) for split in set(splits)}
    rows = [i for i, split in enumerate(splits) if split == "train"][:COUNTED] or list(range(len(splits)))[:COUNTED]
    if not rows:
        return _limits(text)
    tokens = _counter(root / text.path / "tokenizer" / "tokenizer.json")
    references = [table["reference"][i] for i in rows if table["reference"][i]]
    return Lengths(
        1 + fmean(tokens([table["prompt"][i] for i in rows])),
        1 + fmean(tokens(references)) if references else None,
        prompts,
        counted=True,
    )


def _counter(tokenizer: Path) -> Callable[[list[str]], list[float]]:
    if not tokenizer.is_file():
        return lambda texts: [len(text) / CHARS_A_TOKEN for text in texts]
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    return lambda texts: [len(found.ids) for found in loaded.encode_batch(texts)]


def _limits(text: Artefact) -> Lengths:
    """The suite's limits in characters. The testbed's own tokenizers are small: half the characters a token."""
    if text.spec.get("kind") == "arithmetic":
        return _word_problems(text)
    small = text.stage == "text"
    each = CHARS_A_TOKEN / 2 if small else CHARS_A_TOKEN
    longest, reference = text.spec.get("max_prompt_chars"), text.spec.get("max_reference_chars")
    tokens = text.spec.get("max_prompt_tokens")
    return Lengths(
        tokens or (1 + longest / each if longest else ASSUMED), 1 + reference / each if reference else None, {}, counted=False
    )


def _word_problems(text: Artefact) -> Lengths:
    """They have no limits in characters; their levels tell what is typical. Lettered questions are not told apart."""
    level = fmean(text.spec["levels"])
    problem, solution = (1 + base + each * level for base, each in (PROBLEM_TOKENS, SOLUTION_TOKENS))
    return Lengths(problem, solution, {split: text.spec[split] for split in ("train", "validation", "test")}, counted=False)
