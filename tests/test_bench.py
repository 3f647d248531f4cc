"""The bench compares programs that do the same work, and refuses to report when they do not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prefdist.bench import (
    divergences,
    gpu,
    measure_divergences,
    measure_logprobs,
    measure_own,
    measure_trl,
    profile,
    report,
    stage,
    workload,
)
from prefdist.data.order import batch_indices
from prefdist.errors import UserError
from prefdist.training.batch import PASS_TOKENS, Batch

COMMON: dict[str, Any] = {"steps": 3, "warm": 1, "batch_size": 8, "seed": 0}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> workload.Workload:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "_PACKAGES", ("json", "logging"))
        patch.setattr(workload, "VOCABULARY", 320)
        patch.setattr(workload, "EXAMPLES", 24)
        folder = tmp_path_factory.mktemp("work")
        workload.create(folder, ["tiny"])
        return workload.load(folder)


def own(work: workload.Workload, responses: int, shared: bool, micro_batch_size: int = 8) -> dict[str, Any]:
    options = {"responses": responses, "shared": shared, "micro_batch_size": micro_batch_size}
    return measure_own.measure(work, "tiny", **options, **COMMON)


def as_row(system: str, found: dict[str, Any]) -> dict[str, Any]:
    return {"system": system, "model": "tiny", "round": 0, **found}


def test_examples_are_distinct_and_counted_as_rows_of_one_response(work: workload.Workload) -> None:
    batch = work.batch(workload.RESPONSES)
    assert len(batch) == 24
    assert all(len(set(text["responses"])) == workload.RESPONSES for text in work.texts)
    assert max(map(len, batch.prompts)) <= workload.LONGEST_PROMPT
    alone = sum(len(prompt) + len(y) for prompt, ys in zip(batch.prompts, batch.responses, strict=True) for y in ys)
    assert sum(workload.useful_tokens(batch)) == alone


def test_a_row_a_response_trains_as_shared_rows_do(work: workload.Workload) -> None:
    rows = [as_row("prefdist_n4", own(work, 4, True)), as_row("prefdist_n4_unshared", own(work, 4, False))]
    loss, norm = report.gaps(rows, "prefdist_n4", "prefdist_n4_unshared")
    assert loss < 1e-5 and norm < 1e-4


def test_other_work_is_refused(work: workload.Workload) -> None:
    found = own(work, 2, True)
    rows = [as_row("prefdist", found), as_row("trl_best", {**found, "grad_norm": 4 * found["grad_norm"]})]
    with pytest.raises(UserError, match="prefdist and trl_best did not do the same work"):
        stage.check_same_work(rows)


@pytest.mark.parametrize("method", measure_logprobs.available())
def test_methods_find_the_same_log_probabilities(method: str) -> None:
    size = {"vocabulary": 50, "tokens": 40, "hidden": 8}
    found = measure_logprobs.measure(method, **size)
    assert found["sum"] == pytest.approx(measure_logprobs.measure("log_softmax", **size)["sum"], rel=1e-5)


def test_the_profile_names_every_part(work: workload.Workload) -> None:
    found = profile.measure(work, "tiny", **COMMON)
    assert {"backbone forward", "backward", "clipping and optimiser"} <= set(found["milliseconds"])
    assert sum(found["kernel_share"].values()) == pytest.approx(1.0)


def test_without_trl_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"TRL is not installed.*prefdist\[oracle\]"):
        stage.bench(1)


def test_micro_batches_are_cut_where_that_saves_more_than_a_pass() -> None:
    def parts(lengths: list[int], size: int) -> list[list[int]]:
        batch = Batch([str(i) for i in lengths], [[1] * (length - 1) for length in lengths], [[[2]] for _ in lengths])
        return [micro.lengths() for micro in batch.micro_batches(size)]

    ragged = [PASS_TOKENS + 20, 10, 20]
    assert parts(ragged, 4) == [[PASS_TOKENS + 20], [20, 10]]
    assert parts([30, 10, 20], 4) == [[30, 20, 10]]
    assert parts([10] * 10, 4) == [[10] * 4, [10] * 4, [10] * 2]


def test_the_cost_of_divergences_is_tabled_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = divergences.run

    def run(spec: dict[str, Any], result: Path) -> dict[str, Any]:
        if spec["measure"] == "matmul_rate":
            return fresh(spec, result)
        return measure_divergences.MEASURES[spec["measure"]](**{key: spec[key] for key in spec if key != "measure"})

    monkeypatch.setattr(divergences, "run", run)
    monkeypatch.setattr(divergences, "project_root", lambda: tmp_path)
    for name, value in {"SIZES": (2, 3, 6), "BRUTE_FORCE_UP_TO": 3, "LAWS": 5, "MATMUL_SIZE": 8}.items():
        monkeypatch.setattr(divergences, name, value)
    monkeypatch.setattr(divergences, "BATCH", {"n": 3, "prompts": 2})
    divergences.bench(rounds=1)
    out = tmp_path / "results" / "bench"
    assert sorted(file.name for file in out.iterdir()) == [f"divergences.{kind}" for kind in ("csv", "json", "md", "svg")]
    # Three methods at n = 2 and 3, two at n = 6, and those two for the batch.
    assert len((out / "divergences.csv").read_text().splitlines()) == 1 + 3 + 3 + 2 + 2
    assert "| 6 | " in (out / "divergences.md").read_text()


def test_divergences_are_measured_against_other_code() -> None:
    for method in measure_divergences.BRUTE_FORCE:
        assert max(measure_divergences.error(method, 6, 5).values()) < 1e-10


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_trl_does_the_same_work(work: workload.Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    rows = [as_row("prefdist", own(work, 2, True))]
    for name, size in (("trl_best", 8), ("trl_sorted", 4)):
        found = measure_trl.measure(work, "tiny", options=measure_trl.BEST, micro_batch_size=size, **COMMON)
        rows.append(as_row(name, found))
        loss, norm = report.gaps(rows, "prefdist", name)
        assert loss < 1e-5 and norm < 1e-4


def test_without_a_gpu_its_bench_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU is visible, and --only training_gpu measures one"):
        gpu.bench(rounds=1)


def test_utilisation_counts_what_is_sent_through_the_model(work: workload.Workload) -> None:
    """6 operations a weight and token: with shared prompts fewer tokens than TRL's rows have, which the speed counts."""
    found = {"wall_seconds": 2.0, "peak_gpu_mib": 7, "losses": [0.7, 0.6], "grad_norm": 1.0}
    own, trl = (gpu.measures(work, 10**9, kind, found, "NVIDIA H100 80GB HBM3") for kind in ("own", "trl"))
    batch = work.batch(2)
    chosen = [i for step in range(gpu.WARM, gpu.STEPS) for i in batch_indices(len(batch), 32, step, 0)]
    prompts = sum(len(batch.prompts[i]) for i in chosen)
    answers = sum(len(y) for i in chosen for y in batch.responses[i])
    assert own["tokens_per_second"] == trl["tokens_per_second"] == round((2 * prompts + answers) / 2)
    assert own["flops_utilisation"] == pytest.approx(3e9 * (prompts + answers) / 989e12, abs=1e-4)
    assert trl["flops_utilisation"] == pytest.approx(3e9 * (2 * prompts + answers) / 989e12, abs=1e-4)
    assert gpu.measures(work, 10**9, "own", found, "another GPU")["flops_utilisation"] == ""
