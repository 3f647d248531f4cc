"""A price ceiling that holds with several requests under way: what the next one could cost is set aside before it is sent."""

import json
import threading
from typing import Any

from prefdist.config.judge import Prices

MILLION = 1_000_000
EXTRA = 16
"""Tokens that an endpoint may add to each message (role, separators): more than any known template does."""


class CeilingMet(Exception):
    """The next request could cost more than what is left."""


class Budget:
    """Money of one artefact. All methods may be called by several threads at a time."""

    def __init__(self, prices: Prices | None, spent: float = 0.0) -> None:
        self.prices, self.spent = prices, spent
        self._held, self._under_way = 0.0, 0
        self._changed = threading.Condition()

    def worst(self, body: dict[str, Any], max_tokens: int) -> float:
        """What a request costs at most: a token is a byte of the prompt at least, and a reply has max_tokens at most."""
        if self.prices is None:
            return 0.0
        messages = body["messages"]
        prompt = len(json.dumps(messages, ensure_ascii=False).encode()) + EXTRA * len(messages)
        return self.cost(prompt, max_tokens)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        if self.prices is None:
            return 0.0
        return (self.prices.input * prompt_tokens + self.prices.output * completion_tokens) / MILLION

    def hold(self, worst: float) -> None:
        """Set money aside for a request, waiting for others to end while theirs may leave enough. CeilingMet otherwise."""
        if self.prices is None:
            return
        with self._changed:
            while self.spent + self._held + worst > self.prices.ceiling:
                if not self._under_way:
                    raise CeilingMet
                self._changed.wait()
            self._held += worst
            self._under_way += 1

    def settle(self, worst: float, cost: float) -> None:
        """The request is over and cost so much; what was set aside for it is free again."""
        if self.prices is None:
            return
        with self._changed:
            self._under_way -= 1
            self._held = self._held - worst if self._under_way else 0.0
            self.spent += cost
            self._changed.notify_all()
