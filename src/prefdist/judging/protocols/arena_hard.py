"""Arena-Hard v0.1: one of five verdicts on two answers, in both orders (Li et al. 2024, arXiv 2406.11939).

A verdict is [[A>>B]], [[A>B]], [[A=B]], [[B>A]] or [[B>>A]]; a much better answer (>>) counts as three battles. The prompt is
in our words, not the published ones: as there, the judge answers first itself, then compares. Left out: the published script's
second request ("continue your judgment …") to a judge that gave no verdict, which is missing here.
"""

import re
from collections.abc import Sequence

from prefdist.judging.comparisons import Comparison
from prefdist.judging.protocols.form import Message, Protocol, Reading, Reply

SYSTEM = """\
You are an impartial judge of two AI assistants who were given the same prompt. Start by writing your own answer to the \
prompt, before you judge any other. Then compare both assistants' answers with yours: find and correct their mistakes; ask \
whether they are helpful (they do what was asked, or ask back where the prompt is ambiguous), relevant (every part has to do \
with what was asked) and concise; then, where it matters, how creative they are and what they lack. Length, and the order in \
which they are shown, are no reasons. End with your verdict, exactly one of these labels:

[[A>>B]] assistant A is much better
[[A>B]] assistant A is slightly better
[[A=B]] both are about as good
[[B>A]] assistant B is slightly better
[[B>>A]] assistant B is much better

Your last line should read like this: My final verdict is: [[A=B]]
"""
USER = """\
<prompt>
{prompt}
</prompt>

<answer of assistant A>
{first}
</answer of assistant A>

<answer of assistant B>
{second}
</answer of assistant B>
"""
STRONG = 3.0
VERDICTS = {
    "A>>B": Reading(1.0, STRONG),
    "A>B": Reading(1.0),
    "A=B": Reading(0.5),
    "B>A": Reading(0.0),
    "B>>A": Reading(0.0, STRONG),
    "B=A": Reading(0.5),  # judges write these, too, and Arena-Hard's table of labels has them
    "B<<A": Reading(1.0, STRONG),
    "B<A": Reading(1.0),
    "A<B": Reading(0.0),
    "A<<B": Reading(0.0, STRONG),
}
LABEL = re.compile(r"\[\[([AB<>=]+)\]\]")


def ask(comparison: Comparison, turn: int, shown: Sequence[str]) -> list[Message]:
    user = USER.format(prompt=comparison.prompt, first=shown[0], second=shown[1])
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def read(reply: Reply) -> Reading | None:
    """The label, which may occur again. None for none, for two that differ, and for one of no meaning."""
    labels = set(LABEL.findall(reply.text))
    return VERDICTS.get(labels.pop()) if len(labels) == 1 else None


PROTOCOL = Protocol(ask, read, compares=True, turns=(1,), max_tokens=4096, temperature=0.0)
