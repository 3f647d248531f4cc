"""Lists of n as n/size lists of `size`: PAD's decomposition, which keeps the divergence of rankings cheap.

The law of a sublist is the Plackett-Luce law of its scores, so a shorter list is a marginal of the longer one and its
divergence is no larger; what is lost are the comparisons across sublists, unless these change from epoch to epoch.
Left out: sublists that are drawn one after another from an updated student (plan/distillation.py chains them).
"""

import torch
from torch import Tensor

from prefdist.training.batch import Batch, Dataset, Share


class Decomposed(Dataset):
    """A dataset of lists with the column "groups" [B, n]: positions of the responses, sublist after sublist.

    Positions ascend within a sublist, so that each stands best first as the whole list does. Shuffled ones change with the
    epoch; a batch across two epochs takes those of the one it begins in.
    """

    def __init__(self, examples: Batch, batch_size: int, seed: int, share: Share, *, size: int, shuffle: bool) -> None:
        super().__init__(examples, batch_size, seed, share)
        self.size, self.shuffle = size, shuffle

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        epoch = step * self.batch_size // len(self.examples) if self.shuffle else 0
        groups = torch.stack([self._groups(samples, epoch) for samples in batch.columns["sample"]])
        return Batch(batch.ids, batch.prompts, batch.responses, {**batch.columns, "groups": groups})

    def _groups(self, samples: Tensor, epoch: int) -> Tensor:
        """Sublists of the samples in the order they were drawn, or in one that depends on (seed, epoch) alone."""
        drawn = samples.argsort()
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            drawn = drawn[torch.randperm(len(drawn), generator=generator)]
        return drawn.view(-1, self.size).sort(-1).values.flatten()


def regroup(values: Tensor, groups: Tensor, size: int) -> Tensor:
    """[B, n] -> [B·n/size, size] by the column "groups"."""
    return values.gather(1, groups).view(-1, size)
