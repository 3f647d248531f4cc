"""The answer in a solution's text, as the field extracts it for GSM8K and MATH, and when two answers are the same.

Left out: equivalence of formulas (x + 1 and 1 + x are two answers here, as in Hendrycks et al.'s comparison of strings).
"""

import re
from fractions import Fraction

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}")


def marked_answer(text: str) -> str | None:
    """What follows the first `#### `, GSM8K's own mark (Cobbe et al. 2021, arXiv 2110.14168); None without a mark.

    The filter "strict-match" of lm-evaluation-harness' gsm8k.yaml.
    """
    found = _STRICT.search(text)
    return found[1] if found else None


def last_number(text: str) -> str | None:
    """The last thing in the text that looks like a number; None if there is none.

    The filter "flexible-extract" of lm-evaluation-harness' gsm8k.yaml, except that a number has a digit: there, a text
    that ends in an ellipsis has the answer "...".
    """
    found = [match for match in _FLEXIBLE.findall(text) if any(char.isdigit() for char in match)]
    return found[-1] if found else None


def boxed_answer(text: str) -> str | None:
    r"""What is in the last `\boxed{…}` or `\fbox{…}`, braces nested; None if there is none or it is not closed.

    `\boxed 5` without braces holds what follows up to a `$` or the end of the line (MATH; Hendrycks et al. 2021, arXiv
    2103.03874).
    """
    found = list(re.finditer(r"\\(?:boxed|fbox)\s*", text))
    if not found:
        return None
    rest = text[found[-1].end() :]
    if not rest.startswith("{"):
        return re.split(r"[$\n]", rest)[0].strip() or None
    depth = 0
    for i, char in enumerate(rest):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return rest[1:i].strip()
    return None


def number(text: str) -> Fraction | None:
    """The value of a decimal number, exactly; `$`, `,` and `%`, and a full stop behind, do not count. None for all else."""
    bare = re.sub(r"[\\$,%]", "", text.strip()).rstrip(".")
    return Fraction(bare) if _NUMBER.fullmatch(bare) else None


def same_number(a: str | None, b: str | None) -> bool:
    """Whether both are numbers of one value. No answer is the same as no other."""
    values = [None if text is None else number(text) for text in (a, b)]
    return values[0] is not None and values[0] == values[1]


def normal_math(answer: str) -> str:
    r"""One spelling of a LaTeX answer: the rules of Hendrycks et al.'s `strip_string`, written anew.

    Removed: white space, `\!`, `\left`, `\right`, degrees, `\$`, `\%`, units in `\text{ …}`, a left side such as `x =`.
    Unified: `\dfrac` and `\tfrac`, `\frac12`, `\sqrt3`, `.5`, and the simple fraction `a/b`.
    """
    text = answer.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\left(?![a-z])|\\right(?![a-z])|\^\{?\\circ\}?|\\[$%]", "", text)
    text = text.split("\\text{ ")[0]  # units, which stand on the right
    text = re.sub(r"(^|[ {])\.", r"\g<1>0.", text)
    text = re.sub(r"^[^=]{1,2}=([^=]*)$", r"\1", text)
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text.replace(r"\sqrt ", r"\sqrt"))
    text = re.sub(r"\s", "", text)
    text = re.sub(r"\\frac([^\\{])([^\\{])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac([^\\{])\{", r"\\frac{\1}{", text)
    return re.sub(r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}", text)


def same_math(a: str | None, b: str | None) -> bool:
    r"""Whether two LaTeX answers are spelled the same once normal, or are numbers of one value: 0.5 and \frac{1}{2}."""
    if a is None or b is None:
        return False
    first, second = normal_math(a), normal_math(b)
    if first == second:
        return True
    values = _rational(first), _rational(second)
    return values[0] is not None and values[0] == values[1]


def _rational(normal: str) -> Fraction | None:
    found = _FRACTION.fullmatch(normal)
    if found is None:
        return number(normal)
    sign, above, below = found.groups()
    if int(below) == 0:
        return None
    return Fraction(int(above), int(below)) * (-1 if sign else 1)
