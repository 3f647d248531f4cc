"""Mixtures of an aligned and an unaligned component, tilted by a reward: how much mass each component has afterwards.

p_ref = α·p_A + (1−α)·p_U over n outputs, and p_θ ∝ p_ref·exp(r/β) (Huang's note, Lemma 1). Left out: where the two
components come from; any responsibility a(y) in [0, 1] gives a pair of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from prefdist.exact.closed_forms import NORMALISATION_LIMIT, tilt, tpm

SLACK = 1e-12
"""Of correlations, probabilities and log odds: sums over 100 outputs round to 1e-13, so nothing smaller has a sign."""
MOST_OUTPUTS = 1000
"""Tables of pairs of outputs have the square of it."""
CHUNK = 100_000
"""Outputs of mixtures drawn at a time: 10 MB with ten temperatures side by side, and 100 times that for pairs of 100."""
WEIGHTS = (0.02, 0.98)
"""Between which α is drawn: at 0 and 1 there is one component only."""
REWARDS: Mapping[str, Callable[[tuple[int, int], Generator], Tensor]] = {
    "normal": lambda shape, generator: torch.randn(shape, generator=generator, dtype=torch.float64),
    "uniform": lambda shape, generator: torch.rand(shape, generator=generator, dtype=torch.float64),
    "exponential": lambda shape, generator: _exponential(shape, generator),
    "integers": lambda shape, generator: torch.randint(3, shape, generator=generator).double(),
    "binary": lambda shape, generator: torch.randint(2, shape, generator=generator).double(),
}
"""Laws of a reward, independent over outputs: N(0, 1), U(0, 1), Exp(1), uniform over {0, 1, 2} and over {0, 1}."""


@dataclass(frozen=True)
class Mixtures:
    """S mixtures over n outputs: aligned p_A, unaligned p_U and reward r, all [S, n]; weight α [S]. float64.

    ValueError: components that do not sum to one, α outside (0, 1), a reward that is not finite, more outputs than
    MOST_OUTPUTS.
    """

    aligned: Tensor
    unaligned: Tensor
    reward: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        for name in ("aligned", "unaligned"):
            component = getattr(self, name)
            off = float((component.sum(-1) - 1).abs().max())
            if not off <= NORMALISATION_LIMIT or bool((component < 0).any()):
                raise ValueError(f"{name} must be ≥ 0 and sum to one: off by {off:.3g}, limit {NORMALISATION_LIMIT}")
        if not bool(((self.weight > 0) & (self.weight < 1)).all()):
            raise ValueError(f"weight must lie in (0, 1), got {self.weight.min():.3g} … {self.weight.max():.3g}")
        if not bool(self.reward.isfinite().all()):
            raise ValueError("reward must be finite: an output that cannot be drawn has probability 0 instead")
        check_outputs(self.reward.shape[-1])

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, kept: Tensor | slice) -> "Mixtures":
        return Mixtures(self.aligned[kept], self.unaligned[kept], self.reward[kept], self.weight[kept])

    @property
    def reference(self) -> Tensor:
        """p_ref [S, n]."""
        weight = self.weight.unsqueeze(-1)
        return weight * self.aligned + (1 - weight) * self.unaligned

    @property
    def responsibility(self) -> Tensor:
        """a(y) = α·p_A(y)/p_ref(y) [S, n], 0 where p_ref is."""
        return (self.weight.unsqueeze(-1) * self.aligned / self.reference).nan_to_num()

    def weights(self, betas: Tensor) -> Tensor:
        """exp((r − max r)/β): [B] -> [B, S, n]; the maximum changes no sign, and keeps small β from overflow."""
        return ((self.reward - self.reward.amax(-1, keepdim=True)) / betas.view(-1, 1, 1)).exp()

    def gain(self, betas: Tensor) -> Tensor:
        """log E_A[e^{r/β}] − log E_U[e^{r/β}] = logit TPM(A) − logit α: [B] -> [B, S] in nats. Free of α."""
        powers = self.reward / betas.view(-1, 1, 1)
        return (powers + self.aligned.log()).logsumexp(-1) - (powers + self.unaligned.log()).logsumexp(-1)

    def aligned_mass(self, beta: float) -> Tensor:
        """TPM(A) [S], as E_{p_θ}[a(y)]."""
        log_reference = self.reference.log()
        return tpm(tilt(log_reference, self.reward, temperature=beta, ref_power=1), log_reference, self.responsibility)


def check_outputs(outputs: int) -> None:
    """ValueError unless 2 ≤ outputs ≤ MOST_OUTPUTS."""
    if not 2 <= outputs <= MOST_OUTPUTS:
        raise ValueError(f"outputs must be 2 … {MOST_OUTPUTS}, got {outputs}: fewer cannot differ, more take too much memory")


def random_mixtures(worlds: int, outputs: int, rewards: str, generator: Generator) -> Mixtures:
    """p_A, p_U from Dirichlet(1), α uniform within WEIGHTS, and a law of REWARDS by its name."""
    check_outputs(outputs)
    if rewards not in REWARDS:
        raise ValueError(f"rewards must be one of {', '.join(REWARDS)}, got {rewards!r}")
    aligned, unaligned = (dirichlet((worlds, outputs), generator) for _ in range(2))
    reward = REWARDS[rewards]((worlds, outputs), generator)
    low, high = WEIGHTS
    weight = low + (high - low) * torch.rand(worlds, generator=generator, dtype=torch.float64)
    return Mixtures(aligned, unaligned, reward, weight)


def normal(worlds: int, outputs: int, generator: Generator) -> Mixtures:
    """Random mixtures with rewards from N(0, 1)."""
    return random_mixtures(worlds, outputs, "normal", generator)


def chunks(
    draw: Callable[[int, int, Generator], Mixtures], outputs: Sequence[int], worlds: int, generator: Generator
) -> Iterator[Mixtures]:
    """`worlds` mixtures of each number of outputs, as many at a time as CHUNK allows; `draw` as `normal`."""
    for n in outputs:
        check_outputs(n)
        size = CHUNK // n
        for start in range(0, worlds, size):
            yield draw(min(size, worlds - start), n, generator)


def dirichlet(shape: tuple[int, int], generator: Generator) -> Tensor:
    """Uniform on the simplex: [S, n]."""
    drawn = _exponential(shape, generator)
    return drawn / drawn.sum(-1, keepdim=True)


def _exponential(shape: tuple[int, int], generator: Generator) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's, under the uniform measure over outputs: [..., n], [..., n] -> [...]. NaN where one is constant."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def hypotheses(mixtures: Mixtures) -> Tensor:
    """Those of Theorem 2, corr(r, p_A) > 0 and corr(r, p_U) < 0, beyond SLACK: [S]."""
    aligned, unaligned = (correlation(mixtures.reward, p) for p in (mixtures.aligned, mixtures.unaligned))
    return (aligned > SLACK) & (unaligned < -SLACK)
