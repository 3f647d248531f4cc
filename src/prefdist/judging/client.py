"""One request to an endpoint that speaks OpenAI's chat completions format: sent, tried again, read, and kept within a price.

The key is read from the environment when the client is made, goes into one header, and is cut out of every text that leaves
this module. Left out: which requests (endpoint.py), streaming, tools, formats of other companies.
"""

import os
import threading
import time
from typing import Any

import httpx2
import numpy as np

from prefdist.config.judge import EndpointJudge
from prefdist.errors import UserError
from prefdist.judging.budget import Budget
from prefdist.judging.journal import Journal
from prefdist.judging.pace import Pace, backoff
from prefdist.judging.protocols.form import Reply

BUSY = {408, 409, 425, 429}
"""Statuses that ask for another attempt, beside all from 500."""
GATEWAY = {502, 504}
"""Statuses of what stands before the endpoint, which may have worked all the same, and bill it."""
SHOWN = 200
"""Characters of a reply that an error quotes."""
REDACTED = "[key]"


class Stopped(Exception):
    """Another request has failed for good; this one was not sent."""


class _Failure(Exception):
    """An attempt that may be made again. `paid`: the endpoint may have worked for it."""

    def __init__(self, problem: str, *, paid: bool, retry_after: str | None = None) -> None:
        super().__init__(problem)
        self.paid, self.retry_after = paid, retry_after


class ChatClient:
    """Requests to one endpoint, from any number of threads. Close it, or use it as a context.

    Raises:
        UserError: the environment lacks the variable that is to hold the key.
    """

    def __init__(self, settings: EndpointJudge, budget: Budget, journal: Journal) -> None:
        self._settings, self._budget, self._journal = settings, budget, journal
        self._url = f"{settings.base_url}/chat/completions"
        self._key = read_key(settings)
        self._pace = Pace(settings.requests_per_minute)
        self.stopped = threading.Event()
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        limits = httpx2.Limits(max_connections=settings.concurrency)
        self._http = httpx2.Client(headers=headers, timeout=httpx2.Timeout(settings.timeout), limits=limits)

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def complete(self, request: str, body: dict[str, Any], max_tokens: int, what: str) -> Reply:
        """The reply to a body, stored under `request`; `what` names it in errors.

        Raises:
            UserError: the endpoint refuses it, or no attempt brought a reply.
            CeilingMet: it could cost more than what is left.
            Stopped: `stopped` was set before it was sent.
        """
        worst = self._budget.worst(body, max_tokens)
        for failures in range(1, self._settings.attempts + 1):
            try:
                return self._attempt(request, body, worst, what)
            except _Failure as failure:
                problem, wait = str(failure), backoff(failures, failure.retry_after, self._settings.patience)
                if wait is None:
                    raise UserError(
                        f"{self._url}: {what}: {problem}, and asks to wait {failure.retry_after} s, which is more than "
                        f"patience ({self._settings.patience:g} s); run again later, what came so far is kept"
                    ) from None
            if failures < self._settings.attempts:
                self.stopped.wait(wait)
        raise UserError(
            f"{self._url}: {what}: no reply in {self._settings.attempts} attempts, the last one: {problem}; see whether the "
            "endpoint is up, or raise timeout or attempts, and run again: what came so far is kept"
        )

    def _attempt(self, request: str, body: dict[str, Any], worst: float, what: str) -> Reply:
        self._budget.hold(worst)
        cost = 0.0
        try:
            self._pace.wait(self.stopped)
            if self.stopped.is_set():
                raise Stopped
            self._journal.sent(request, worst)
            try:
                reply = self._parse(self._post(body, what))
            except (_Failure, UserError) as problem:
                if isinstance(problem, _Failure) and problem.paid:
                    cost = worst
                else:
                    self._journal.unpaid(request, worst)
                raise
            cost = worst
            if reply.prompt_tokens is not None and reply.completion_tokens is not None:
                cost = self._budget.cost(reply.prompt_tokens, reply.completion_tokens)
            self._journal.replied(request, worst, cost, reply)
            return reply
        finally:
            self._budget.settle(worst, cost)

    def _post(self, body: dict[str, Any], what: str) -> bytes:
        """The body of a reply of status 200. The clock of `timeout` also ends one that trickles."""
        until, content = time.monotonic() + self._settings.timeout, bytearray()
        late = f"no whole reply within {self._settings.timeout:g} s"
        try:
            with self._http.stream("POST", self._url, json=body) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > until:
                        raise _Failure(late, paid=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise _Failure(f"out of reach ({self._redacted(str(error))})", paid=False) from None
        except httpx2.TimeoutException:
            raise _Failure(late, paid=True) from None
        except httpx2.RequestError as error:
            raise _Failure(f"the connection broke ({self._redacted(str(error))})", paid=True) from None
        if response.status_code == 200:
            return bytes(content)
        said = self._quoted(bytes(content))
        if response.status_code in BUSY or response.status_code >= 500:
            paid, wait = response.status_code in GATEWAY, response.headers.get("Retry-After")
            raise _Failure(f"status {response.status_code} ({said})", paid=paid, retry_after=wait)
        if response.status_code in (401, 403):
            holder = "no key was sent" if self._key is None else f"it does not take the key in {self._settings.key_variable}"
            raise UserError(f"{self._url}: status {response.status_code}: {holder}; mend key_variable or the variable")
        raise UserError(
            f"{self._url}: {what}: refused with status {response.status_code} ({said}); mend the judge's settings, or leave "
            "this prompt out; what came so far is kept"
        )

    def _parse(self, content: bytes) -> Reply:
        """A chat completion. Anything else is a failure of the endpoint or of what stands before it."""
        try:
            found = httpx2.Response(200, content=content).json()
            choice, usage = found["choices"][0], found.get("usage") or {}
            text = choice["message"].get("content") or ""
            told = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs")
            logprobs = None if told is None else _by_text(told)
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            prompt_tokens, completion_tokens = (None if count is None else int(count) for count in counts)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise _Failure(f"what came is no chat completion ({self._quoted(content)})", paid=True) from None
        finish = choice.get("finish_reason")
        return Reply(
            self._redacted(str(text)), logprobs, None if finish is None else str(finish), prompt_tokens, completion_tokens
        )

    def _quoted(self, content: bytes) -> str:
        text = self._redacted(" ".join(content.decode("utf-8", errors="replace").split()))
        return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"

    def _redacted(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, REDACTED)


def _by_text(told: list[dict[str, Any]]) -> dict[str, float]:
    """Text -> log-probability (nats). Tokens of one text, as a vocabulary has them with and without a space that its decoder
    strips, count together."""
    found: dict[str, float] = {}
    for token in told:
        text, logprob = str(token["token"]), float(token["logprob"])
        found[text] = float(np.logaddexp(found[text], logprob)) if text in found else logprob
    return found


def read_key(settings: EndpointJudge) -> str | None:
    """The key, without white space around it. UserError if the environment has none."""
    if settings.key_variable is None:
        return None
    key = os.environ.get(settings.key_variable, "").strip()
    if not key:
        raise UserError(
            f"the environment has no {settings.key_variable}, which is to hold the key of {settings.base_url}; export it, or "
            "set key_variable: null for an endpoint that needs none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"{settings.key_variable}: its value is no key: it has spaces or characters beyond ASCII")
    return key
