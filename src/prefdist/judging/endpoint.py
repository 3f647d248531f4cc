"""The judge behind an endpoint: a request for each comparison, order and turn, several at a time; replies become judgements."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from prefdist.config.judge import EndpointJudge, Judging
from prefdist.errors import UserError
from prefdist.judging.budget import Budget, CeilingMet
from prefdist.judging.client import SHOWN, ChatClient
from prefdist.judging.comparisons import Comparison, lengths
from prefdist.judging.journal import Journal
from prefdist.judging.protocols import PROTOCOLS
from prefdist.judging.protocols.form import Protocol, Reply
from prefdist.progress import Progress

Row = dict[str, Any]
NONSENSE = 20
"""After so many replies of which none can be read, no further one is asked for."""
BASELINE_FIRST, ANSWER_FIRST = 0, 1


@dataclass(frozen=True)
class Question:
    """One request: a comparison in an order, or one of its turns."""

    comparison: Comparison
    order: int
    turn: int
    body: Row
    digest: str

    @property
    def what(self) -> str:
        return f"prompt {self.comparison.prompt_id!r}, sample {self.comparison.sample}"


class Endpoint:
    """Judgements by a model behind an endpoint. Replies are kept in the folder `replies`, see journal.py."""

    def __init__(self, judging: Judging, replies: Path) -> None:
        assert isinstance(judging.judge, EndpointJudge)
        assert judging.protocol is not None
        self._judging, self._settings, self._replies = judging, judging.judge, replies
        self._protocol = PROTOCOLS[judging.protocol]

    def judge(self, comparisons: Sequence[Comparison]) -> list[Row]:
        """Rows of JUDGEMENTS, in the order of the comparisons.

        Raises:
            UserError: there is no key; the endpoint refuses or stays silent; the price ceiling is met; or none of the first
                replies can be read. Replies that came are kept, and the same call goes on behind them.
        """
        questions = list(self._questions(comparisons))
        requests = [question.digest for question in questions]
        name = hashlib.sha256("".join(requests).encode()).hexdigest()[:16]
        with Journal(self._replies, name, requests) as journal:
            missing = {question.digest: question for question in questions if question.digest not in journal.replies}
            if missing:
                self._ask(list(missing.values()), journal)
            return [self._row(question, journal.replies[question.digest]) for question in questions]

    def _questions(self, comparisons: Sequence[Comparison]) -> Iterator[Question]:
        for comparison in comparisons:
            for turn in self._protocol.turns:
                for order in self._orders(comparison):
                    shown = shown_in(comparison, order) if self._protocol.compares else []
                    body = self._body(self._protocol.ask(comparison, turn, shown))
                    text = json.dumps([self._settings.base_url, body], sort_keys=True)
                    yield Question(comparison, order, turn, body, hashlib.sha256(text.encode()).hexdigest())

    def _orders(self, comparison: Comparison) -> tuple[int, ...]:
        if not self._protocol.compares:
            return (BASELINE_FIRST,)
        if self._judging.orders == "both":
            return (BASELINE_FIRST, ANSWER_FIRST)
        drawn = f"order/{self._judging.order_seed}/{comparison.prompt_id}/{comparison.sample}"
        return (hashlib.sha256(drawn.encode()).digest()[0] % 2,)

    def _body(self, messages: list[dict[str, str]]) -> Row:
        temperature = self._settings.temperature
        body: Row = {"model": self._settings.model, "messages": messages, self._settings.token_limit: self._max_tokens}
        body["temperature"] = self._protocol.temperature if temperature is None else temperature
        if self._protocol.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self._protocol.top_logprobs}
        return body

    @property
    def _max_tokens(self) -> int:
        return self._settings.max_tokens or self._protocol.max_tokens

    def _ask(self, questions: list[Question], journal: Journal) -> None:
        """All replies into the journal. The first failure stops the others; those under way end, and are kept."""
        total = len(questions) + len(journal.replies)
        budget = Budget(self._settings.prices, journal.spent)
        try:
            with (
                ChatClient(self._settings, budget, journal) as client,
                ThreadPoolExecutor(self._settings.concurrency) as threads,
            ):
                starts = (threads.submit(client.complete, q.digest, q.body, self._max_tokens, q.what) for q in questions)
                try:
                    self._collect(starts, journal, budget, total)
                finally:
                    client.stopped.set()
        except CeilingMet:
            raise self._too_dear(budget, len(journal.replies), total) from None

    def _collect(self, starts: Iterator[Future[Reply]], journal: Journal, budget: Budget, total: int) -> None:
        """Keep `concurrency` requests under way until all have ended; the first error of one is raised."""
        done = len(journal.replies)
        progress = Progress("replies of the judge", total, done)
        unread = Unread(self._protocol, journal.replies.values())
        unread.check(self._settings)
        under_way = set(islice(starts, self._settings.concurrency))
        while under_way:
            ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                unread.add(future.result())
                unread.check(self._settings)
                done += 1
            under_way |= set(islice(starts, len(ended)))
            progress.show(done, f"{budget.spent:.2f} spent" if budget.prices else "")

    def _too_dear(self, budget: Budget, done: int, total: int) -> UserError:
        assert budget.prices is not None
        return UserError(
            f"judge.prices.ceiling: {budget.spent:.4g} of {budget.prices.ceiling:g} are spent, and the next request could cost "
            f"more than what is left; {done} of {total} replies are kept: raise the ceiling and run again, they are not asked "
            "for again"
        )

    def _row(self, question: Question, reply: Reply) -> Row:
        comparison = question.comparison
        return {
            "prompt_id": comparison.prompt_id,
            "sample": comparison.sample,
            "order": question.order,
            "turn": question.turn,
            **reading_columns(self._protocol, question.order, reply),
            "reply": reply.text,
            "top_logprobs": None if reply.top_logprobs is None else json.dumps(reply.top_logprobs),
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            **lengths(comparison),
        }


class Unread:
    """Whether any reply could be read so far."""

    def __init__(self, protocol: Protocol, replies: Iterable[Reply]) -> None:
        self._protocol, self._any, self._unread, self._last = protocol, False, 0, ""
        for reply in replies:
            self.add(reply)

    def add(self, reply: Reply) -> None:
        if self._any or self._protocol.read(reply) is not None:
            self._any = True
        else:
            self._unread += 1
            self._last = reply.text

    def check(self, settings: EndpointJudge) -> None:
        """UserError after NONSENSE replies of which none could be read."""
        if not self._any and self._unread >= NONSENSE:
            raise UserError(
                f"{settings.base_url}: none of the first {self._unread} replies of {settings.model} can be read, the last one "
                f"is {self._last[:SHOWN]!r}; this model does not keep to the protocol (alpaca_eval needs log-probabilities of "
                "the reply's tokens): take another judge or protocol. The replies are kept"
            )


def shown_in(comparison: Comparison, order: int) -> list[str]:
    """The two answers as they are shown: of order 0 the baseline's first."""
    assert comparison.baseline is not None
    texts = [comparison.baseline.text, comparison.answer.text]
    return texts if order == BASELINE_FIRST else texts[::-1]


def reading_columns(protocol: Protocol, order: int, reply: Reply) -> Row:
    """preference (1 = baseline, 2 = answer), weight and rating of JUDGEMENTS; null where the reply cannot be read."""
    reading = protocol.read(reply)
    if reading is None:
        return {"preference": None, "weight": None, "rating": None}
    if not protocol.compares:
        return {"preference": None, "weight": None, "rating": reading.value}
    preference = 2.0 - reading.value if order == BASELINE_FIRST else 1.0 + reading.value
    return {"preference": preference, "weight": reading.weight, "rating": None}
