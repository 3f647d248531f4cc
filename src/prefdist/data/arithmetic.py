"""Word problems of graded difficulty, made by the project: a quantity changes step by step, and the answer works it out.

Every row is a pure function of seed, split and index. What is computed in one split is computed in no other: a problem's
numbers and operations, names apart, decide its split. Left out: the evaluator that checks each solution
(arithmetic_check.py), and problems with more than one quantity.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefdist.data.arithmetic_check import fault, steps
from prefdist.data.multiple_choice import Question, render, shuffled
from prefdist.errors import UserError

HELD_OUT_SHARE = 0.1
"""Of all computations, for validation and for test each; the rest is for training."""
ATTEMPTS = 2000
"""Draws until a problem is of the split and new."""
LARGEST_START, LARGEST_TERM, LARGEST_FACTOR = 40, 20, 5
NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Iris", "Jon", "Kim", "Leo")


@dataclass(frozen=True)
class Theme:
    """A story in sentences: how it starts, what each operation is in it (several wordings), what is asked."""

    things: tuple[str, ...]
    start: str
    changes: Mapping[str, tuple[str, ...]]
    asked: str


THEMES = (
    Theme(
        ("marbles", "stamps", "shells", "pens", "cards", "buttons"),
        "{name} has {n} {things}.",
        {
            "+": ("{name} buys {k} more.", "A friend brings {k} more.", "{name} finds {k} more."),
            "-": ("{name} gives away {k}.", "{name} loses {k}.", "A friend takes {k}."),
            "*": ("Soon {name} has {k} times as many.", "{name} trades each for {k} smaller ones."),
            "/": ("{name} packs them into {k} equal bags and keeps one bag.", "{name} keeps one of every {k}."),
        },
        "How many {things} does {name} have now?",
    ),
    Theme(
        ("dollars", "euros", "coins"),
        "{name} has {n} {things}.",
        {
            "+": ("{name} earns {k} more.", "An aunt adds {k}."),
            "-": ("{name} spends {k} on lunch.", "A ticket costs {name} {k}."),
            "*": ("The savings grow to {k} times as much.", "A lucky week leaves {k} times as much."),
            "/": ("{name} splits them evenly with others, {k} people in all.", "Only one in every {k} is left after a trip."),
        },
        "How many {things} does {name} have now?",
    ),
    Theme(
        ("roses", "tulips", "beans", "trees"),
        "{name} has a garden with {n} {things}.",
        {
            "+": ("{name} plants {k} more.", "{k} more come up."),
            "-": ("{k} of them wither.", "{name} digs out {k}."),
            "*": ("By spring there are {k} times as many.", "Each is parted into {k}."),
            "/": ("Of every {k} only one lives.", "A storm leaves one in {k}."),
        },
        "How many {things} are in the garden now?",
    ),
    Theme(
        ("points", "stars"),
        "{name} starts a game with {n} {things}.",
        {
            "+": ("{name} wins {k}.", "A bonus adds {k}."),
            "-": ("{name} loses {k}.", "A penalty takes {k}."),
            "*": ("A card multiplies them by {k}.", "A round swaps each for {k}."),
            "/": ("A card divides them by {k}.", "A round leaves one of every {k}."),
        },
        "How many {things} does {name} have now?",
    ),
)
VOICES = ("{step}", "Now {step}.", "We get {step}.")
"""How a solution writes its steps: one voice a problem, which nothing in the prompt determines."""


@dataclass(frozen=True)
class Problem:
    """A problem as text, with its worked reference, which ends in `#### answer`, and its computation: `12 +5 *3`."""

    level: int
    prompt: str
    reference: str
    computation: str


def problem(level: int, source: random.Random) -> Problem:
    """A problem of `level` steps. Results are natural numbers, at most `largest(level)`."""
    theme = _pick(THEMES, source)
    words = {"name": _pick(NAMES, source), "things": _pick(theme.things, source)}
    voice = _pick(VOICES, source)
    value = _between(2, LARGEST_START, source)
    sentences, computation, worked = [theme.start.format(n=value, **words)], [str(value)], []
    for _ in range(level):
        operator, k = _change(value, largest(level), source)
        result = {"+": value + k, "-": value - k, "*": value * k, "/": value // k}[operator]
        sentences.append(_pick(theme.changes[operator], source).format(k=k, **words))
        computation.append(f"{operator}{k}")
        worked.append(voice.format(step=f"{value} {operator} {k} = {result}"))
        value = result
    prompt = " ".join([*sentences, theme.asked.format(**words)])
    return Problem(level, prompt, "\n".join([*worked, f"#### {value}"]), " ".join(computation))


def largest(level: int) -> int:
    """Bound of all results of a level."""
    return 40 + 20 * level


def split_of(computation: str, seed: int) -> str:
    """The one split that a computation may occur in."""
    drawn = int.from_bytes(hashlib.sha256(f"{seed}:{computation}".encode()).digest()[:8], "big") / 2**64
    return "test" if drawn < HELD_OUT_SHARE else "validation" if drawn < 2 * HELD_OUT_SHARE else "train"


def lettered(prompt_id: str, prompt: str, reference: str, options: int, seed: int) -> Question:
    """The problem as a question with that many options, in an order that seed and id decide.

    Wrong options are what slips would give: a stop one step early, the last operation turned round, one or ten more or less.
    """
    worked = steps(reference)
    last = worked[-1]
    slips = [last.left, last.left + last.right, last.left * last.right, abs(last.left - last.right), last.right]
    slips += [last.result + shift for shift in (1, -1, 10, -10, 2, -2, 5, 20, 3, 4)]
    source = random.Random(f"{seed}:{prompt_id}:options")
    ranked = sorted(dict.fromkeys(slips), key=lambda _: source.random())
    wrong = [slip for slip in ranked if slip > 0 and slip != last.result][: options - 1]
    shown = [str(value) for value in (last.result, *wrong)]
    return shuffled(prompt_id, prompt, shown, 0, f"level{len(worked)}", seed)


def rows(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of tables.PROMPTS; `spec` is a `config.Arithmetic` as a mapping.

    prompt_id: `L3-test-000007` names level, split and index; `L1-choice-000004` is a lettered question in training. module:
    `level3`, or `level1.choice`. Levels take turns. UserError if there are not so many problems.
    """
    seed, levels = spec["seed"], spec["levels"]
    chosen = round(spec["choice_share"] * spec["train"])
    counts = {"train": spec["train"] - chosen, "validation": spec["validation"], "test": spec["test"]}
    found = []
    for split, count in counts.items():
        for i, made in enumerate(_problems(split, split, levels, count, seed)):
            identity = f"L{made.level}-{split}-{i:06d}"
            found.append(_row(identity, f"level{made.level}", split, made.prompt, made.reference))
    for i, made in enumerate(_problems("choice", "train", spec["choice_levels"], chosen, seed)):
        identity = f"L{made.level}-choice-{i:06d}"
        options = spec["choice_options"][i // len(spec["choice_levels"]) % len(spec["choice_options"])]
        prompt = made.prompt
        if spec["choice_after_steps"]:
            prompt += "\n" + made.reference.rpartition("\n")[0]
        question = lettered(identity, prompt, made.reference, options, seed)
        found.append(_row(identity, f"level{made.level}.choice", "train", render(question), question.answer))
    return found


def _problems(series: str, split: str, levels: Sequence[int], count: int, seed: int) -> list[Problem]:
    """`count` problems with different prompts whose computations belong to the split; each is checked."""
    found: dict[str, Problem] = {}
    for i in range(count):
        source = random.Random(f"{seed}:{series}:{i}")
        level = levels[i % len(levels)]
        for _ in range(ATTEMPTS):
            made = problem(level, source)
            if split_of(made.computation, seed) == split and made.prompt not in found:
                break
        else:
            raise UserError(f"text: {i} problems of {series} were found, level {level} has no more; ask for fewer than {count}")
        if problem_fault := fault(made.prompt, made.reference):
            raise AssertionError(f"a generated solution is wrong ({problem_fault}): {made}")
        found[made.prompt] = made
    return list(found.values())


def _change(value: int, bound: int, source: random.Random) -> tuple[str, int]:
    """An operation and its number, all operations being as frequent as values allow."""
    possible = {
        "+": range(2, min(LARGEST_TERM, bound - value) + 1),
        "-": range(2, min(LARGEST_TERM, value - 1) + 1),
        "*": range(2, min(LARGEST_FACTOR, bound // value) + 1),
        "/": [k for k in range(2, LARGEST_FACTOR + 1) if value % k == 0 and value > k],
    }
    operator = _pick([operator for operator, numbers in possible.items() if numbers], source)
    return operator, _pick(possible[operator], source)


def _pick(items: Sequence[Any], source: random.Random) -> Any:
    """One of the items. Of random.Random only random() is promised to give the same in every version of Python."""
    return items[int(source.random() * len(items))]


def _between(low: int, high: int, source: random.Random) -> int:
    return int(_pick(range(low, high + 1), source))


def _row(identity: str, module: str, split: str, prompt: str, reference: str) -> dict[str, Any]:
    return {"prompt_id": identity, "module": module, "split": split, "prompt": prompt, "reference": reference}
