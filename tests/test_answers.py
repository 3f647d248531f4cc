"""How often a teacher picks the right reference: the questions it is asked, and an independent count of its answers."""

import torch
from conftest import World

from prefdist.data import tables
from prefdist.evaluation.answers import ASKED, options_near, reference_answers
from prefdist.scoring.questions import question_text

ROWS = [{"module": "ab"[k >= 5], "reference": text} for k, text in enumerate(["one", "two", "two", "three", "four", "five"])]


def test_options_are_the_nearest_others_of_the_module():
    assert options_near(ROWS, 0, 2) == ["one", "two"]
    assert options_near(ROWS, 1, 2) == ["one", "two"]  # as near as "three", and before it; the right one is second
    assert options_near(ROWS, 3, 4) == ["two", "four", "one", "three"]
    assert options_near(ROWS, 5, 2) == []  # alone in its module


def test_answers_are_counted(world: World):
    """By the next-token logits of transformers itself, one question at a time."""
    found = reference_answers(world.folder("text"), world.folder("prior"), "short")
    model, codec = world.policy("prior"), world.codec
    rows = tables.read_table(world.folder("text") / "prompts.parquet", tables.PROMPTS)
    held_out = [row for row in rows if row["split"] == "test"]
    asked = [(row, options) for i, row in enumerate(held_out) if (options := options_near(held_out, i, 2))][:ASKED]
    assert asked
    letters = [codec.response(letter)[0] for letter in "AB"]
    expected = {}
    for row, options in asked:
        with torch.no_grad():
            logits = model(torch.tensor([codec.prompt(question_text("short", row["prompt"], options))])).logits[0, -1]
        picked = options[int(logits[letters].argmax())]
        expected[row["prompt_id"]] = float(picked == row["reference"])
    assert {row["prompt_id"]: row["value"] for row in found if row["run"] == "test, 2 options"} == expected
    assert {row["run"] for row in found if row["value"] is not None} <= {
        f"{split}, {n} options" for split in ("train", "test") for n in (2, 4)
    }
