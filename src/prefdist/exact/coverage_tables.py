"""Tables of coverage: error beside the bounds of ADL's Theorems 4 and 7 (arXiv 2506.01523), and the powers it grows with.

"constant needed" is the least c with error ≤ c·bound in 1−δ of the worlds, the theorems' statement with probability 1−δ.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from scipy import stats
from torch import Tensor

from prefdist.exact.coverage import between, bound, linear_coverage
from prefdist.exact.coverage_cells import POLICIES, REWARDS, WHOLE, WORST, Cell, Learned
from prefdist.exact.finite_classes import Classes
from prefdist.exact.powers import fitted_power
from prefdist.exact.study import Row, mean_interval

MEDIAN = "median coverage"
"""Of Π's directions, in place of the largest."""


def _measured(learned: Learned, bounds: Tensor, delta: float) -> Row:
    """Mean error, its mean share of the bound without the constant, and the constant that 1−δ of the worlds need."""
    share = learned.error / bounds
    mean = mean_interval(share.tolist())
    needed = stats.quantile_test(share.numpy(), p=1 - delta).confidence_interval(0.95)  # free of the law; NaN for few worlds
    return {
        "mean C": float(learned.coverage.mean()),
        **mean_interval(learned.error.tolist()),
        "mean bound": float(bounds.mean()),
        "error/bound": mean["estimate"],
        "error/bound, low": mean["low"],
        "error/bound, high": mean["high"],
        "constant needed": float(share.quantile(1 - delta)),
        "constant needed, low": float(needed.low),
        "constant needed, high": float(needed.high),
    }


def _bound(cell: Cell, learned: Learned, delta: float) -> Tensor:
    return bound(learned.coverage, learned.size, gamma=cell.gamma, pairs=cell.pairs, delta=delta)


def whole_row(cell: Cell, classes: Classes, delta: float) -> Row:
    log_mu = between(classes.log_target, classes.log_far, cell.shift)
    learned = cell.pmle[WHOLE]
    return {
        "t": cell.shift,
        "pairs": cell.pairs,
        "median C": float(learned.coverage.median()),
        "median C, all rewards": float(linear_coverage(classes.log_target, log_mu).median()),
        **_measured(learned, _bound(cell, learned, delta), delta),
    }


def class_rows(cell: Cell, delta: float) -> Iterator[Row]:
    for name, learned in cell.pmle.items():
        measured = _measured(learned, _bound(cell, learned, delta), delta)
        yield {"class": POLICIES[name], "size": learned.size, "t": cell.shift, "pairs": cell.pairs, **measured}


def reward_rows(cell: Cell, delta: float) -> Iterator[Row]:
    """The bound of ADL's Theorem 7: ln(|Π|/δ)/n beside that of Theorem 4 for the class of rewards."""
    whole = cell.pmle[WHOLE]
    prompts = bound(torch.ones_like(whole.coverage), whole.size, gamma=1.0, pairs=cell.pairs, delta=delta)
    for name, learned in cell.reverse_kl.items():
        measured = _measured(learned, prompts + _bound(cell, learned, delta), delta)
        gain = mean_interval((learned.error - whole.error).tolist())
        yield {
            "rewards": REWARDS[name],
            "size": learned.size,
            "t": cell.shift,
            "pairs": cell.pairs,
            **measured,
            "above PMLE over Π": gain["estimate"],
            "above, low": gain["low"],
            "above, high": gain["high"],
        }


def size_rows(sized: Sequence[Learned], pairs: int, gamma: float, delta: float) -> Iterator[Row]:
    for learned in sized:
        bounds = bound(learned.coverage, learned.size, gamma=gamma, pairs=pairs, delta=delta)
        yield {"size": learned.size, "t": 0.0, "pairs": pairs, **_measured(learned, bounds, delta)}


def powers(cells: Sequence[Cell], delta: float, seed: int) -> Iterator[Row]:
    """Of the mean error: in n at each t, in C at each n, and in the whole bound over all cells. Theorem 4: −1, 1 and 1."""
    for name in (WHOLE, WORST):
        for t in sorted({cell.shift for cell in cells}):
            mine = [cell for cell in cells if cell.shift == t]
            yield _power("n", f"t = {t:g}", -1, mine, [_constant(cell, cell.pairs) for cell in mine], seed, name)
        for n in sorted({cell.pairs for cell in cells}):
            mine = [cell for cell in cells if cell.pairs == n]
            yield _power("C", f"{n} pairs", 1, mine, [cell.pmle[name].coverage for cell in mine], seed, name)
            if name == WHOLE:
                yield _power(MEDIAN, f"{n} pairs", 1, mine, [cell.median for cell in mine], seed, name)
        bounds = [_bound(cell, cell.pmle[name], delta) for cell in cells]
        yield _power("bound", "all t and n", 1, cells, bounds, seed, name)


def gamma_power(cells: Sequence[Cell], seed: int) -> Row:
    """Theorem 4: −2."""
    at = f"t = {cells[0].shift:g}, {cells[0].pairs} pairs"
    return _power("γ", at, -2, cells, [_constant(cell, cell.gamma) for cell in cells], seed, WHOLE)


def size_power(sized: Sequence[Learned], pairs: int, delta: float, seed: int) -> Row:
    """Theorem 4: 1."""
    x = torch.stack([torch.full_like(learned.error, math.log(learned.size / delta)) for learned in sized])
    found = fitted_power(x, torch.stack([learned.error for learned in sized]), seed)
    at = f"t = 0, {pairs} pairs, {sized[0].size} to {sized[-1].size} policies"
    return {"factor": "ln(size/δ)", "class": POLICIES[WHOLE], "at": at, "theorem": 1, **found}


def _power(factor: str, at: str, theorem: int, cells: Sequence[Cell], x: Sequence[Tensor], seed: int, name: str) -> Row:
    found = fitted_power(torch.stack(list(x)), torch.stack([cell.pmle[name].error for cell in cells]), seed)
    return {"factor": factor, "class": POLICIES[name], "at": at, "theorem": theorem, **found}


def _constant(cell: Cell, value: float) -> Tensor:
    return torch.full_like(cell.median, value)
