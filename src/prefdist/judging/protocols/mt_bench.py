"""MT-Bench: a rating from 1 to 10 of each of two turns, without a baseline (Zheng et al. 2023, arXiv 2306.05685).

The judge of the second turn sees the whole dialogue and rates the second answer. Where there is a reference (questions of
mathematics, reasoning and coding), it is shown as a right answer. A rating is the first number in double brackets, else in
single ones, as FastChat reads it; one that is not within 1 to 10 is missing here. The prompt is in our words, not the published
ones.
"""

import re
from collections.abc import Sequence

from prefdist.judging.comparisons import Comparison
from prefdist.judging.protocols.form import Message, Protocol, Reading, Reply

SYSTEM = "You are an impartial judge of the answers of AI assistants."
TASK = """\
Rate the quality of the assistant's {which} below. Consider helpfulness, relevance, accuracy, depth, creativity and level of \
detail.{right} Explain your judgement briefly and be as objective as you can. Then rate the answer on a scale from 1 to 10, \
strictly in this form: "[[rating]]", for example: "Rating: [[5]]".
"""
RIGHT = " Compare it with the reference answer, which is right; find and correct mistakes."
TURN = "\n<user>\n{prompt}\n</user>\n\n{reference}<assistant>\n{answer}\n</assistant>\n"
REFERENCE = "<reference answer>\n{text}\n</reference answer>\n\n"
RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def ask(comparison: Comparison, turn: int, shown: Sequence[str]) -> list[Message]:
    """Of turn 1 the first question and answer alone; of turn 2 both."""
    turns = [(comparison.prompt, comparison.answer.text, comparison.reference)]
    if turn == 2:
        assert comparison.second_prompt is not None
        assert comparison.second_answer is not None
        turns.append((comparison.second_prompt, comparison.second_answer, comparison.second_reference))
    which = "answer to the user's question" if turn == 1 else "answer to the user's second question"
    user = TASK.format(which=which, right=RIGHT if any(reference for *_, reference in turns) else "")
    for prompt, answer, reference in turns:
        user += TURN.format(prompt=prompt, answer=answer, reference=REFERENCE.format(text=reference) if reference else "")
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def read(reply: Reply) -> Reading | None:
    for pattern in RATINGS:
        found = pattern.search(reply.text)
        if found:
            rating = float(found.group(1))
            return Reading(rating) if 1.0 <= rating <= 10.0 else None
    return None


PROTOCOL = Protocol(ask, read, compares=False, turns=(1, 2), max_tokens=2048, temperature=0.0)
