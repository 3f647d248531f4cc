"""Examples on their way to the model: a prompt, its n responses, and the columns that an objective asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from prefdist.data.order import batch_indices
from prefdist.tokens import Packed, pack

PASS_TOKENS = 256
"""What one more pass through the model costs, in tokens of padding. Measured on a CPU: any value from 64 to 512 is better
than uncut micro-batches (0.1 to 5 M weights); `make bench` shows the effect."""


@dataclass(frozen=True)
class Batch:
    """B examples. Columns are [B, n] for sequences and [B, n, T] for tokens, T the longest response of the batch."""

    ids: list[str]
    prompts: list[list[int]]
    responses: list[list[list[int]]]
    columns: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, indices: Sequence[int]) -> "Batch":
        """Some of the examples, token columns trimmed to the longest response among them."""
        responses = [self.responses[i] for i in indices]
        longest = max(len(y) for ys in responses for y in ys)
        where = torch.tensor(indices)
        columns = {name: column[where] for name, column in self.columns.items()}
        columns = {name: column[..., :longest] if column.dim() == 3 else column for name, column in columns.items()}
        return Batch([self.ids[i] for i in indices], [self.prompts[i] for i in indices], responses, columns)

    def lengths(self) -> list[int]:
        """Tokens of each packed row."""
        return [len(p) + sum(map(len, ys)) for p, ys in zip(self.prompts, self.responses, strict=True)]

    def micro_batches(self, size: int) -> Iterator["Batch"]:
        """Parts of at most `size` examples of similar length, longest first so that a lack of memory shows at once.

        A part is smaller where that saves more padding than a pass through the model is worth.
        """
        lengths = self.lengths()
        order = sorted(range(len(self)), key=lambda i: -lengths[i])
        for part in _cheapest_parts([lengths[i] for i in order], size):
            yield self.select(order[part])

    def to(self, device: torch.device | str) -> "Batch":
        """With its columns on the device."""
        return replace(self, columns={name: column.to(device) for name, column in self.columns.items()})

    def packed(self, pad_id: int) -> Packed:
        return pack(self.prompts, self.responses, pad_id=pad_id)


def _cheapest_parts(lengths: Sequence[int], size: int) -> list[slice]:
    """Cuts of descending lengths into parts of at most `size`, fewest padded tokens and passes in all."""
    costs, starts = [0], [0]
    for stop in range(1, len(lengths) + 1):
        choices = {i: costs[i] + PASS_TOKENS + (stop - i) * lengths[i] for i in range(stop - 1, max(stop - size, 0) - 1, -1)}
        starts.append(min(choices, key=choices.__getitem__))
        costs.append(choices[starts[stop]])
    parts, stop = [], len(lengths)
    while stop:
        parts.append(slice(starts[stop], stop))
        stop = starts[stop]
    return parts[::-1]


@dataclass(frozen=True)
class Share:
    """Which part of a global batch this process has. No batch leaves one without any (launch.processes)."""

    rank: int = 0
    world: int = 1

    def of(self, items: Sequence[int]) -> list[int]:
        return list(items[self.rank :: self.world])


class Dataset:
    """Batches of a fixed set of examples: the global batch of step s is a pure function of (seed, s)."""

    def __init__(self, examples: Batch, batch_size: int, seed: int, share: Share) -> None:
        self.examples, self.batch_size, self.seed, self.share = examples, batch_size, seed, share
        self._lengths = examples.lengths()

    def batch(self, step: int) -> Batch:
        """This process's share; neighbours in length go to different processes, so that none waits long."""
        indices = batch_indices(len(self.examples), self.batch_size, step, self.seed)
        indices.sort(key=lambda i: -self._lengths[i])
        return self.examples.select(self.share.of(indices))

    def metrics(self) -> dict[str, float]:
        return {}
