"""Multiple-choice questions about responses, as text: templates, orders of the options, tokens of the answers.

Left out: asking them (mcq.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

from prefdist.data.multiple_choice import LETTERS
from prefdist.errors import UserError
from prefdist.tokens import TextCodec

NONE = "None"
MOST_PERMUTED = 4
"""Options of which all orders are asked: 24 questions a prompt."""


@dataclass(frozen=True)
class Template:
    """`question` is filled with options, prompt and identifiers, `option` with letter and text."""

    question: str
    option: str


TEMPLATES = {
    # A letter behind its option, where a small model can weigh the option that it has read against the prompt.
    "short": Template("{prompt}\n{options}\n", "{text}\n{letter}"),
    # What PAD's code asks of instruct models, in our words; some chat templates refuse a system turn.
    "judge": Template(
        "You are a helpful and careful evaluator. You read a query and several candidate responses to it, and pick the best "
        "one. Judge the responses by five criteria:\n"
        "1. Relevance: does it answer the query that was asked?\n"
        "2. Accuracy: is what it says correct?\n"
        "3. Completeness: does it cover all parts of the query?\n"
        "4. Coherence: does it hang together and read well?\n"
        "5. Clarity: is it easy to understand?\n"
        "Answer with the identifier of the best response only, from the list {identifiers}, and nothing else. Answer "
        f'"{NONE}" if no response meets the criteria, or if they are too alike to tell which is better.\n'
        "\n"
        "# Query\n{prompt}\n\n# Candidate Responses\n{options}\n\n# Output\nThe identifier of the best response is:",
        '{letter})\n"""\n{text}\n"""',
    ),
}


def question_text(template: str, prompt: str, options: Sequence[str], longest: int | None = None) -> str:
    """The question, lettered from A in the order of the options. UserError for an unknown template.

    Of an option longer than `longest` characters the rest is an ellipsis.
    """
    if template not in TEMPLATES:
        raise UserError(f"template: {template!r} is not one of {', '.join(TEMPLATES)}")
    form = TEMPLATES[template]
    lines = [
        form.option.format(letter=letter, text=_cut(text, longest)) for letter, text in zip(LETTERS, options, strict=False)
    ]
    letters = LETTERS[: len(options)]
    identifiers = f"({', '.join(letters[:-1])}, or {letters[-1]})"
    return form.question.format(options="\n".join(lines), prompt=prompt, identifiers=identifiers)


def _cut(text: str, longest: int | None) -> str:
    return text if longest is None or len(text) <= longest else text[:longest] + "…"


def orders(kind: str, scheme: str, n: int) -> list[tuple[int, ...]]:
    """Which options, in which order, each question about n options shows; the first order is the fixed one.

    n_way asks about all of them: in all n! orders, n rotations (cyclic) or one (fixed). pairwise asks about every pair: in
    both orders (all, cyclic) or with the lower index first (fixed). UserError for n that have too few letters or too many
    orders.
    """
    if n < 2:
        raise UserError(f"n: a question needs 2 options or more, not {n}")
    if kind == "pairwise":
        pairs: list[tuple[int, ...]] = list(combinations(range(n), 2))
        return pairs if scheme == "fixed" else [order for pair in pairs for order in (pair, pair[::-1])]
    if n > len(LETTERS):
        raise UserError(f"n: {n} options have no letters, there are {len(LETTERS)}; lower n or set kind to pairwise")
    if scheme == "fixed":
        return [tuple(range(n))]
    if scheme == "cyclic":
        return [tuple((first + i) % n for i in range(n)) for first in range(n)]
    if n > MOST_PERMUTED:
        raise UserError(
            f"orders: all orders of {n} options are too many (at most {MOST_PERMUTED} options); set orders to cyclic"
        )
    return list(permutations(range(n)))


def identifier_ids(codec: TextCodec, n: int) -> list[list[int]]:
    """Token ids of the first n letters and of None: [n + 1] lists, of the identifier as such and behind a space.

    UserError if an identifier is not one token of the tokenizer.
    """
    return [_single(codec, identifier) for identifier in (*LETTERS[:n], NONE)]


def letter_ids(codec: TextCodec, n: int) -> list[list[int]]:
    """As above, of the first n letters alone."""
    return [_single(codec, letter) for letter in LETTERS[:n]]


def _single(codec: TextCodec, identifier: str) -> list[int]:
    ids = codec.single_tokens([identifier, f" {identifier}"])
    if not ids:
        raise UserError(
            f"{codec.folder}: the answer {identifier!r} is not one token of this tokenizer; take a model that has it"
        )
    return ids
