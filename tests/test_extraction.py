"""Answers as the field extracts them: by hand, and against lm-evaluation-harness' own filters and comparison."""

import warnings
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdist.data.extraction import (
    boxed_answer,
    last_number,
    marked_answer,
    normal_math,
    number,
    same_math,
    same_number,
)


@pytest.mark.parametrize(
    ("text", "marked", "last"),
    [
        ("1+1=2\n#### 2", "2", "2"),
        ("#### -1,234.50", "-1,234.50", "-1,234.50"),
        ("#### 3\n#### 4", "3", "4"),
        ("#### $5", None, "$5"),
        ("####6", None, "6"),
        ("The answer is 7.", None, "7."),
        ("He has 8 apples, not 9...", None, "9..."),
        ("He has 8 apples...", None, "8"),
        ("none", None, None),
        ("from 3-5", None, "-5"),
    ],
)
def test_gsm8k_answers(text: str, marked: str | None, last: str | None) -> None:
    assert (marked_answer(text), last_number(text)) == (marked, last)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="0123456789.,$- #\nax", max_size=40))
def test_gsm8k_answers_are_those_of_the_harness(text: str) -> None:
    """The patterns are those of its gsm8k.yaml; ours leaves matches without a digit out, so the texts are compared by these."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.filters.extraction import RegexFilter

    strict = RegexFilter(r"#### (\-?[0-9\.\,]+)", fallback="")
    assert (marked_answer(text) or "") == strict.apply([[text]], [{}])[0][0]
    flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1, fallback="").apply([[text]], [{}])[0][0]
    if not flexible or any(char.isdigit() for char in flexible):
        assert (last_number(text) or "") == flexible


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} and then \boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"$\boxed{\{1,2\}}$", r"\{1,2\}"),
        (r"$\fbox{ x }$", "x"),
        (r"$\boxed 7$ is it", "7"),
        (r"\boxed {3}", "3"),
        (r"\boxed{5", None),
        (r"\boxed{1}, no: \boxed{2", None),
        ("5", None),
    ],
)
def test_boxed_answers(text: str, answer: str | None) -> None:
    assert boxed_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,234.50", Fraction(2469, 2)),
        ("-3", Fraction(-3)),
        (".5", Fraction(1, 2)),
        ("18.", Fraction(18)),
        (r"\$20", Fraction(20)),
        ("25%", Fraction(25)),
        ("1 2", None),
        ("1.2.3", None),
        ("x", None),
        ("", None),
        ("...", None),
    ],
)
def test_numbers(text: str, value: Fraction | None) -> None:
    assert number(text) == value


def test_equality_of_numbers() -> None:
    assert same_number("1,000", "$1000.00")
    assert same_number("0.1", "0.10")
    assert not same_number("0.1", "0.1000000000000000055")  # what the float 0.1 is
    assert not same_number(None, None)
    assert not same_number("x", "x")
    assert not same_number("2", None)


MATH_SAME = [
    (r"\dfrac{1}{2}", r"\frac12"),
    (r"\tfrac{3}{4}", "3/4"),
    ("0.5", r"\frac{1}{2}"),
    (".5", "0.5"),
    (r"\sqrt3", r"\sqrt{3}"),
    (r"\left( 1, 2 \right)", "(1,2)"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90"),
    (r"10\%", "10"),
    (r"\$20", "20"),
    ("x = 5", "5"),
    (r"5\text{ cm}", "5"),
    (r"1\!000", "1000"),
    (r"\frac1{72}", r"\frac{1}{72}"),
]
MATH_OTHER = [("1", "2"), (r"\frac{1}{2}", r"\frac{2}{3}"), ("(1,2)", "(2,1)"), ("x", "y"), (r"\leftarrow", "arrow")]


@pytest.mark.parametrize(("first", "second"), MATH_SAME)
def test_math_answers_that_are_the_same(first: str, second: str) -> None:
    assert same_math(first, second)
    assert same_math(second, first)


@pytest.mark.parametrize(("first", "second"), MATH_OTHER)
def test_math_answers_that_differ(first: str, second: str) -> None:
    assert not same_math(first, second)


def test_math_answers_of_equal_value() -> None:
    """More than Hendrycks et al.'s comparison of strings, which knows only 0.5."""
    assert same_math("0.25", r"\frac{1}{4}")
    assert same_math(r"-\frac{1}{2}", r"\frac{-1}{2}")
    assert same_math("1,000", "1000")
    assert not same_math(r"\frac{1}{0}", r"\frac{2}{0}")
    assert not same_math(None, None)


def test_math_answers_are_compared_as_the_harness_does() -> None:
    """On all pairs of the spellings above; the arrow is left out, which it takes for the `\\left` of a bracket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its module has an invalid escape
        from lm_eval.tasks.hendrycks_math.utils import is_equiv

    spellings = sorted({text for pair in [*MATH_SAME, *MATH_OTHER[:4]] for text in pair})
    pairs = [(a, b) for a in spellings for b in spellings]
    assert {pair for pair in pairs if same_math(*pair)} == {pair for pair in pairs if is_equiv(*pair)}


@given(st.text(alphabet=r"\{}frac12.=/ x$^sqrt", max_size=25))
def test_normal_spelling_of_anything_is_text_without_blanks(text: str) -> None:
    assert not set(normal_math(text)) & set(" \n")
