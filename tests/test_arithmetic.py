"""The word problems: read and solved anew from their sentences, disjoint splits, lettered questions, and a suite on them."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefdist.config.testbed import Arithmetic, Suite
from prefdist.data import arithmetic, tables
from prefdist.data.arithmetic import THEMES, lettered, problem, split_of
from prefdist.data.arithmetic_check import Step, fault, steps
from prefdist.data.stdlib import digest
from prefdist.errors import UserError
from prefdist.forecast.lengths import lengths_of
from prefdist.plan import STAGES, plan
from prefdist.suites import load_suite, parse_suite
from prefdist.tokens import TextCodec

ROOT = Path(__file__).resolve().parents[1]
LEVELS = [1, 2, 3, 4, 5, 6]
SPEC = Arithmetic(kind="arithmetic", train=600, validation=60, test=120, choice_share=0.4).model_dump()

# What each sentence does to the quantity, written down anew: a reader of the prompts that shares no code with their maker.
MEANINGS: list[tuple[str, Callable[[Fraction, int], Fraction]]] = [
    (r"buys (\d+) more|brings (\d+) more|finds (\d+) more|earns (\d+) more|aunt adds (\d+)", lambda q, k: q + k),
    (r"plants (\d+) more|(\d+) more come up|wins (\d+)\.|bonus adds (\d+)", lambda q, k: q + k),
    (r"gives away (\d+)|loses (\d+)|friend takes (\d+)|spends (\d+) on lunch", lambda q, k: q - k),
    (r"ticket costs \w+ (\d+)|(\d+) of them wither|digs out (\d+)|penalty takes (\d+)", lambda q, k: q - k),
    (r"(\d+) times as many|(\d+) times as much|each for (\d+)|parted into (\d+)|multiplies them by (\d+)", lambda q, k: q * k),
    (r"into (\d+) equal bags|one of every (\d+)|(\d+) people in all|one in every (\d+)", lambda q, k: q / k),
    (r"[Oo]f every (\d+) only one|one in (\d+)\.|divides them by (\d+)", lambda q, k: q / k),
]


def solved(prompt: str) -> list[Fraction]:
    """The quantity at the start and after each sentence."""
    first, *sentences, question = re.findall(r"[^.?]+[.?]", prompt)
    assert question.endswith("now?")
    values = [Fraction(re.findall(r"\d+", first)[0])]
    for sentence in sentences:
        found = [(match, change) for pattern, change in MEANINGS if (match := re.search(pattern, sentence))]
        assert len(found) == 1, sentence
        match, change = found[0]
        values.append(change(values[-1], int(match[match.lastindex or 0])))
    return values


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return arithmetic.rows(SPEC)


def worked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "-choice-" not in row["prompt_id"]]


def questions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "-choice-" in row["prompt_id"]]


def test_every_prompt_solved_anew_gives_every_step_and_the_answer(rows: list[dict[str, Any]]) -> None:
    for row in worked(rows):
        values = solved(row["prompt"])
        level = int(row["prompt_id"][1])
        assert len(values) == level + 1
        assert all(value.denominator == 1 and 0 < value <= 40 + 20 * level for value in values)
        assert [step.result for step in steps(row["reference"])] == values[1:]
        assert row["reference"].endswith(f"\n#### {values[-1]}")
        assert row["module"] == f"level{level}"


def test_every_wording_is_met() -> None:
    """A wording that the reader above does not know would fail it only where it comes up: here all of them do."""
    source = random.Random(0)
    prompts = [problem(4, source).prompt for _ in range(800)]
    assert all(solved(prompt) for prompt in prompts)
    for theme in THEMES:
        for wordings in theme.changes.values():
            for wording in wordings:
                fixed = max(re.split(r"\{\w+\}", wording), key=len)
                assert any(fixed in prompt for prompt in prompts), wording


def test_splits_share_no_computation(rows: list[dict[str, Any]]) -> None:
    computations: dict[str, set[tuple[Fraction, ...]]] = {"train": set(), "validation": set(), "test": set()}
    for row in rows:
        prompt = row["prompt"].split("?")[0] + "?"
        # Operation, number and start, as the quantities tell them; names and things play no part.
        values = solved(prompt)
        computations[row["split"]].add((*values, *(Fraction(digits) for digits in re.findall(r"\d+", prompt)[1:])))
    assert not computations["train"] & (computations["validation"] | computations["test"])
    assert not computations["validation"] & computations["test"]
    assert len({row["prompt"] for row in rows}) == len({row["prompt_id"] for row in rows}) == len(rows)


def test_held_out_are_a_tenth_of_the_computations_each() -> None:
    """Of 4000 computations 400 are expected, with a standard deviation of 19: five of them on each side."""
    found = Counter(split_of(f"{i} +5", seed=1) for i in range(4000))
    assert abs(found["test"] - 400) < 95
    assert abs(found["validation"] - 400) < 95
    assert [split_of(f"{i} +5", seed=2) for i in range(50)] != [split_of(f"{i} +5", seed=1) for i in range(50)]


def test_counts_levels_and_operations(rows: list[dict[str, Any]]) -> None:
    found = Counter((row["split"], row["module"]) for row in rows)
    expected = {("train", f"level{level}"): 60 for level in LEVELS} | {("test", f"level{level}"): 20 for level in LEVELS}
    expected |= {("validation", f"level{level}"): 10 for level in LEVELS}
    expected |= {("train", "level1.choice"): 120, ("train", "level2.choice"): 120}
    assert found == expected
    operators = Counter(step.operator for row in worked(rows) for step in steps(row["reference"]))
    assert all(count > 0.1 * operators.total() for count in (operators[name] for name in "+-*/"))


def test_rows_depend_on_seed_and_index_alone(rows: list[dict[str, Any]]) -> None:
    """One digest for all versions of Python; what is in a row does not depend on how many rows other splits have."""
    assert digest(arithmetic.rows(SPEC | {"train": 30, "validation": 6, "test": 6, "choice_share": 0.2})) == DIGEST
    fewer = arithmetic.rows(SPEC | {"train": 60, "test": 12})
    by_id = {row["prompt_id"]: row for row in rows}
    assert all(by_id[row["prompt_id"]] == row for row in fewer)
    other = {row["prompt_id"]: row["prompt"] for row in arithmetic.rows(SPEC | {"seed": 1, "train": 60, "test": 12})}
    assert all(by_id[identity]["prompt"] != prompt for identity, prompt in other.items())


DIGEST = "3ba087c487347973cd42ee0270e08c1e0b5b33967ca19060909d88978569fca1"


def test_too_many_problems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Level 1 with one theme and one name has fewer than 3·1500 prompts."""
    monkeypatch.setattr(arithmetic, "THEMES", THEMES[3:])
    monkeypatch.setattr(arithmetic, "NAMES", ("Ana",))
    with pytest.raises(UserError, match=r"level 1 has no more; ask for fewer than 9000"):
        arithmetic.rows(SPEC | {"levels": [1], "validation": 9000, "train": 1, "test": 1, "choice_share": 0.0})


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("3 + 4 = 7\n7 * 2 = 14\n#### 14", ""),
        ("Now 3 + 4 = 7.\nNow 7 * 2 = 14.\n#### 14", ""),
        ("#### 14", "no step"),
        ("3 + 4 = 8\n8 * 2 = 16\n#### 16", "step 1 is wrong: 3 + 4 = 8"),
        ("3 + 4 = 7\n8 * 2 = 16\n#### 16", "step 2 does not go on from 7"),
        ("3 + 5 = 8\n8 * 2 = 16\n#### 16", "step 1 uses a number that the prompt does not give"),
        ("9 + 4 = 13\n#### 13", "step 1 uses a number that the prompt does not give"),
        ("3 + 4 = 7\n7 * 2 = 14\n#### 15", "the marked answer is 15, the last result 14"),
        ("3 + 4 = 7\n7 * 2 = 14", "the marked answer is None, the last result 14"),
    ],
)
def test_faults_of_solutions(solution: str, expected: str) -> None:
    assert fault("Ana has 3. She gets 4 more, then 2 times as many.", solution) == expected


@pytest.mark.parametrize(
    ("step", "right"),
    [
        (Step(7, "/", 2, 3), False),
        (Step(8, "/", 2, 4), True),
        (Step(8, "/", 0, 0), False),
        (Step(2, "-", 5, -3), True),
        (Step(2, "*", 5, 7), False),
    ],
)
def test_steps(step: Step, right: bool) -> None:
    assert step.is_right == right


def test_lettered_questions_have_one_right_option_in_even_places(rows: list[dict[str, Any]]) -> None:
    places: dict[int, Counter[int]] = {2: Counter(), 4: Counter(), 8: Counter()}
    for row in worked(rows):
        answer = str(solved(row["prompt"])[-1])
        for options, found in places.items():
            question = lettered(row["prompt_id"], row["prompt"], row["reference"], options, seed=5)
            assert question.options[question.gold] == answer
            assert len(set(question.options)) == options
            assert all(int(option) > 0 for option in question.options)
            found[question.gold] += 1
    total = len(worked(rows))
    for options, found in places.items():
        expected, deviation = total / options, (total / options * (1 - 1 / options)) ** 0.5
        assert all(abs(found[place] - expected) < 5 * deviation for place in range(options))


def test_training_questions_are_answered_by_the_letter_of_the_right_option(rows: list[dict[str, Any]]) -> None:
    sizes = Counter()
    for row in questions(rows):
        asked, _, options = row["prompt"].partition("\n")
        shown = dict(re.findall(r"([A-Z])\. (\d+)\n", options))
        assert shown[row["reference"]] == str(solved(asked)[-1])
        assert options.endswith("\nAnswer:")
        assert len(solved(asked)) - 1 == int(row["prompt_id"][1])
        sizes[row["module"], len(shown)] += 1
    assert sizes == {(f"level{level}.choice", n): 60 for level in (1, 2) for n in (2, 4)}


def test_questions_after_the_steps_show_them() -> None:
    found = questions(arithmetic.rows(SPEC | {"train": 50, "choice_after_steps": True}))
    for row in found:
        asked, *lines = row["prompt"].split("\n")
        shown = [step.result for line in lines for step in steps(line)]
        assert shown == solved(asked)[1:]
        assert "####" not in row["prompt"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The committed suite, at a size for tests."""
    mapping = yaml.safe_load((ROOT / "workflow/suites/arithmetic.yaml").read_text())
    mapping["text"] |= {"train": 60, "validation": 12, "test": 12, "choice_share": 0.2}
    mapping["architecture"] |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    mapping["prior"]["optimisation"] |= {"steps": 2, "batch_size": 4, "warmup_steps": 0}
    found = parse_suite(mapping, Path("workflow/suites/arithmetic.yaml"))
    assert isinstance(found, Suite)
    return found


def test_a_prior_is_trained_on_the_text(suite: Suite, tmp_path: Path) -> None:
    planned = plan(suite)
    (text,) = planned.of_stage("text")
    (prior,) = (artefact for artefact in planned.of_stage("train") if artefact.name == "prior")
    folders = {name: tmp_path / name for name in ("text", "prior")}
    for artefact, folder in ((text, folders["text"]), (prior, folders["prior"])):
        folder.mkdir()
        import_module(STAGES[artefact.stage]).run(artefact.spec, {"text": folders["text"]}, folder, tmp_path / "scratch")
    found = tables.read_table(folders["text"] / "prompts.parquet", tables.PROMPTS)
    assert found == arithmetic.rows(text.spec)
    card = (folders["text"] / "card.md").read_text()
    assert "| level1 | 8 | 2 | 2 |" in card
    assert "| level1.choice | 6 | 0 | 0 |" in card
    assert digest(found) in card
    codec = TextCodec(folders["text"] / "tokenizer")
    assert codec.vocabulary <= 386
    longest = max(len(codec.prompt(row["prompt"])) + len(codec.response(row["reference"])) for row in found)
    assert longest <= suite.architecture["max_position_embeddings"]
    assert (folders["prior"] / "model.safetensors").is_file()


def test_its_lengths_are_foreseen(suite: Suite, tmp_path: Path) -> None:
    """Before the text is made, within a tenth of what is counted with the committed suite's vocabulary."""
    spec = load_suite("arithmetic", ROOT).text.model_copy(update={"train": 1200})  # type: ignore[union-attr]
    (text,) = plan(suite.model_copy(update={"text": spec})).of_stage("text")
    foreseen = lengths_of(text, tmp_path)
    (tmp_path / text.path).mkdir(parents=True)
    import_module(STAGES["text"]).run(text.spec, {}, tmp_path / text.path, tmp_path)
    counted = lengths_of(text, tmp_path)
    assert counted.counted
    assert not foreseen.counted
    assert foreseen.prompts == counted.prompts
    assert foreseen.prompt == pytest.approx(counted.prompt, rel=0.1)
    assert foreseen.reference == pytest.approx(counted.reference, rel=0.1)


def test_the_kind_of_a_text_decides_what_it_may_say() -> None:
    mapping = yaml.safe_load((ROOT / "workflow/suites/arithmetic.yaml").read_text())
    path = Path("workflow/suites/arithmetic.yaml")
    for text, sentence in [
        ({**mapping["text"], "max_prompt_chars": 80}, "text.max_prompt_chars: no such key"),
        ({**mapping["text"], "choice_options": [1]}, "text.choice_options.0: .*greater than or equal to 2, found 1"),
        ({"kind": "stdlib", "levels": [1]}, "text.levels: no such key"),
        ({"kind": "novel"}, "text: kind is not one of stdlib, arithmetic, found"),
    ]:
        with pytest.raises(UserError, match=sentence):
            parse_suite(mapping | {"text": text}, path)


def test_texts_of_the_library_keep_their_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published tables name them: the kind, which they have by default, is no part of their specification."""
    manifest = json.loads((ROOT / "results/testbed/v1/manifest.json").read_text())
    monkeypatch.delenv("PREFDIST_IMAGE", raising=False)
    monkeypatch.setenv("PREFDIST_PYTHON", manifest["environments"][0]["python"])
    (text,) = plan(load_suite("testbed", ROOT)).of_stage("text")
    assert str(text.path) == manifest["artefacts"]["text"]["path"]
