"""Worked arithmetic as text, evaluated: the steps of a solution, and whether every one of them is right.

Knows nothing of how problems are made (arithmetic.py): it reads what is written, so that it can judge a model's samples, too.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from prefdist.data.extraction import marked_answer, number

_STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (-?\d+)")


@dataclass(frozen=True)
class Step:
    """One written calculation, right or wrong: left operator right = result."""

    left: int
    operator: str
    right: int
    result: int

    @property
    def is_right(self) -> bool:
        """Whether the result is that of the calculation; nothing divided by zero is right."""
        left, right = Fraction(self.left), Fraction(self.right)
        if self.operator == "/":
            return right != 0 and left / right == self.result
        return self.result == {"+": left + right, "-": left - right, "*": left * right}[self.operator]


def steps(solution: str) -> list[Step]:
    """The calculations in a text, in order."""
    found = _STEP.findall(solution)
    return [Step(int(left), operator, int(right), int(result)) for left, operator, right, result in found]


def fault(prompt: str, solution: str) -> str:
    """What is wrong with a solution, in words; "" if nothing is.

    Right means: there is a step, every step is right, each after the first goes on from the last one's result, all other
    numbers come from the prompt, and the marked answer is the last result.
    """
    written = steps(solution)
    if not written:
        return "no step"
    given = {int(digits) for digits in re.findall(r"\d+", prompt)}
    for i, step in enumerate(written):
        if not step.is_right:
            return f"step {i + 1} is wrong: {step.left} {step.operator} {step.right} = {step.result}"
        if i > 0 and step.left != written[i - 1].result:
            return f"step {i + 1} does not go on from {written[i - 1].result}"
        if step.right not in given or (i == 0 and step.left not in given):
            return f"step {i + 1} uses a number that the prompt does not give"
    answer = marked_answer(solution)
    if answer is None or number(answer) != written[-1].result:
        return f"the marked answer is {answer}, the last result {written[-1].result}"
    return ""
