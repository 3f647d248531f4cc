"""Contexts behind repeats and their controls by hand; what is measured against plain forward passes and SciPy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_models import llama3_folder
from scipy.stats import entropy

from prefdist.evaluation.repeats import KINDS, REPEATS, Context, contexts, continuation_shift, next_token_logps, token_shift
from prefdist.exact.closed_forms import tilt
from prefdist.models import load_policy

TEXT = list(range(100, 180))
OPTIONS: dict[str, Any] = {"start": [1], "separator": [5, 6], "random_from": range(50, 60), "text": TEXT}


def made(seed: int = 0, **options: Any) -> list[Context]:
    return contexts([7, 8, 9], 42, rng=np.random.default_rng(seed), **{**OPTIONS, **options})


def test_contexts() -> None:
    found = made()
    assert [(c.kind, c.k) for c in found] == [(kind, k) for k in REPEATS for kind in KINDS]
    for c in found:
        assert len(c.ids) == 1 + c.k + 5, "controls have the length of the repeats"
        assert (c.ids[0], c.ids[1 + c.k :]) == (1, [5, 6, 7, 8, 9]), "what is measured follows the separator and the prompt"
    filling = {(c.kind, c.k): c.ids[1 : 1 + c.k] for c in found}
    for k in REPEATS:
        assert filling["repeats", k] == [42] * k
        assert set(filling["random", k]) <= set(range(50, 60))
        start = filling["text", 1][0]
        assert filling["text", k] == list(range(start, start + k)), "a window of the text"
        assert all(filling[kind, k] == filling[kind, 64][:k] for kind in KINDS), "k grows at the end"
    assert len(set(filling["random", 64])) > 5


def test_contexts_depend_on_their_generator_alone() -> None:
    assert made(0) == made(0)
    assert [c for c in made(0) if c.kind == "repeats"] == [c for c in made(1) if c.kind == "repeats"]
    windows = {tuple(made(seed)[-1].ids[1:65]) for seed in range(40)}
    assert 5 < len(windows) <= 17, "80 tokens have 17 windows of 64"
    assert {tuple(made(seed, text=TEXT[:64])[-1].ids[1:65]) for seed in range(5)} == {tuple(TEXT[:64])}
    ends = {c.ids[1] for seed in range(200) for c in made(seed, repeats=[1]) if c.kind == "text"}
    assert len(ends) > 60, "and for k = 1 it may be any of its 80 tokens"


def test_contexts_refused() -> None:
    with pytest.raises(ValueError, match="prompt and separator must not be empty"):
        made(separator=[])
    with pytest.raises(ValueError, match="separator begins with the repeated token 42"):
        made(separator=[42, 5])
    with pytest.raises(ValueError, match="repeats must be ≥ 0, got -1"):
        made(repeats=[0, -1])
    with pytest.raises(ValueError, match="controls need ids to draw from, got 10, and 64 of a text, got 63"):
        made(text=TEXT[:63])
    with pytest.raises(ValueError, match="controls need ids to draw from, got 0"):
        made(random_from=[])


def test_next_token_against_plain_forward_passes(tmp_path: Path) -> None:
    """Contexts of 6 to 70 tokens in one padded batch."""
    model = load_policy(llama3_folder(tmp_path))
    ids = [c.ids for c in made()]
    found = next_token_logps(model, ids)
    with torch.no_grad():
        expected = torch.stack([model(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in ids])
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)  # float32, two layers: test_architectures.py
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)  # k = 0: one and the same context


def test_token_shift_against_scipy_and_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    tuned, base = torch.randn(2, 5, 30, generator=generator, dtype=torch.float64).log_softmax(-1)
    found = token_shift(tuned, base, [3, 9, 3])
    p, q = tuned.exp().numpy(), base.exp().numpy()
    assert found.kl.tolist() == pytest.approx(entropy(p, q, axis=-1).tolist(), abs=1e-12)
    for row in range(5):
        ratio = np.log(p[row] / q[row])
        variance = sum(p[row] * ratio**2) - sum(p[row] * ratio) ** 2
        assert float(found.variance[row]) == pytest.approx(variance, abs=1e-12)
        assert float(found.eos_tuned[row]) == pytest.approx(p[row, 3] + p[row, 9], abs=1e-12)
        assert float(found.eos_base[row]) == pytest.approx(q[row, 3] + q[row, 9], abs=1e-12)


def test_the_variance_of_a_tilted_law_is_that_of_its_reward() -> None:
    """log π − log π₀ = r/β − log Z: Var = Var_π(r)/β², and 0 where the tilt is off."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 12, generator=generator, dtype=torch.float64).log_softmax(-1)
    reward = torch.randn(1, 12, generator=generator, dtype=torch.float64)
    tuned = tilt(base, reward, temperature=0.5, ref_power=1)
    p = tuned.exp()
    variance = float((p * reward**2).sum() - (p * reward).sum() ** 2) / 0.5**2
    assert float(token_shift(tuned, base, []).variance) == pytest.approx(variance, rel=1e-12)
    off = token_shift(base, base, [])
    assert (float(off.kl), float(off.variance)) == (0.0, 0.0)


def test_continuations_by_hand() -> None:
    found = continuation_shift([-1.0, -2.0, -6.0], [-2.0, -4.0, -6.0], [[4, 2], [2, 4], [3]], stop_ids=[2, 3])
    assert found.kl == pytest.approx(1.0)
    assert found.variance == pytest.approx(1.0)
    assert found.standard_error == pytest.approx(1 / math.sqrt(3))
    assert (found.eos, found.n) == (pytest.approx(2 / 3), 3)
    single = continuation_shift([-1.0], [-2.0], [[4]], stop_ids=[2])
    assert single.kl == 1.0
    assert math.isnan(single.variance) and math.isnan(single.standard_error)
    with pytest.raises(ValueError, match=r"of the 2 continuations, got shapes \(2,\) and \(1,\)"):
        continuation_shift([0.0, 1.0], [0.0], [[1], [2]], stop_ids=[])


def test_continuations_estimate_the_divergence() -> None:
    """20 000 samples: KL to 4 standard errors, the variance to 10 %."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(10)), rng.dirichlet(np.ones(10))
    y = rng.choice(10, 20_000, p=p)
    found = continuation_shift(np.log(p)[y], np.log(q)[y], [[i] for i in y], stop_ids=[0])
    ratio = np.log(p / q)
    assert abs(found.kl - p @ ratio) < 4 * found.standard_error < 0.1
    assert found.variance == pytest.approx(p @ ratio**2 - (p @ ratio) ** 2, rel=0.1)
    assert found.eos == pytest.approx(p[0], abs=0.02)
