"""TL;DR: which of two summaries of a forum post is better (Stiennon et al. 2020, arXiv 2009.01325; ADL, arXiv 2506.01523).

The prompt is in our words, not the published ones: the same question (most important points, no unimportant or irrelevant
details; accuracy, coverage, coherence), the same form of answer, one comparing sentence and then `Preferred:` A or B. ADL
does not say which prompt it used. Known scripts replace a reply that cannot be read by a random letter; here it is missing.
"""

import re
from collections.abc import Sequence

from prefdist.judging.comparisons import Comparison
from prefdist.judging.protocols.form import Message, Protocol, Reading, Reply

SYSTEM = "You compare summaries carefully and impartially."
USER = """\
Below are a post from an online forum and two summaries of it. Decide which summary is the better one. A good summary gives \
the most important points of the post and leaves out details that are unimportant or irrelevant. Judge accuracy (nothing that \
the post does not say), coverage (what matters is there) and coherence (it reads well by itself).

Post:
{post}

Summary A:
{first}

Summary B:
{second}

Write one sentence that compares the two summaries. Then, on a new line, write only "Preferred: A" or "Preferred: B".
"""
VERDICT = re.compile(r"^[\s*]*Preferred[\s*]*:[\s*\"'(]*([AB])[\s*\"').]*$", re.MULTILINE)


def ask(comparison: Comparison, turn: int, shown: Sequence[str]) -> list[Message]:
    user = USER.format(post=comparison.prompt, first=shown[0], second=shown[1])
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def read(reply: Reply) -> Reading | None:
    """The letter on its line. None for no such line, for two that differ, for a tie."""
    letters = set(VERDICT.findall(reply.text))
    return Reading(float(letters == {"A"})) if len(letters) == 1 else None


PROTOCOL = Protocol(ask, read, compares=True, turns=(1,), max_tokens=256, temperature=0.0)
