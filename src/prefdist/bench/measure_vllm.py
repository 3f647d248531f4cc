"""One measurement of vLLM or of the project's own engine, in a process of its own, which is what peak memory is of.

python -m prefdist.bench.measure_vllm '{"measure": …}' result.json
"""

import json
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.bench import workload
from prefdist.bench.clock import Clock, peak_memory
from prefdist.bench.workload import Workload
from prefdist.logprobs import packed_logprobs
from prefdist.models import load_policy
from prefdist.sampling import engine as own
from prefdist.sampling.vllm import engine as vllm
from prefdist.scoring import sequences
from prefdist.tokens import pack

THREADS = 2
PROMPTS = 64
RESPONSES = 4
"""Given responses a prompt: those whose log-probabilities are compared, and scored against the clock."""
SAMPLES, BUDGET = 16, 32
"""Sampled a prompt, and tokens of each at most: the whole summary line of a function."""
LETTERS = (10, 300, 700, 1100, 1500)

Row = dict[str, Any]


def compare(work: Workload, model: str) -> Row:
    """Differences between log-probabilities of vLLM, of ours in float32 and of ours in float64, in nats a token.

    letters: of given next tokens. sums: of whole responses, between vLLM and ours in float32.
    """
    batch = work.batch(RESPONSES)
    prompts, responses = batch.prompts[:PROMPTS], batch.responses[:PROMPTS]
    asked = _started(work, model)
    theirs = torch.tensor([logp for ys in vllm.token_logps(asked, prompts, responses) for y in ys for logp in y])
    sums = torch.cat(vllm.response_logps(asked, prompts, responses))
    letters = vllm.next_logps(asked, prompts, LETTERS).flatten()
    asked.close()
    policy = load_policy(work.model(model))
    single = [[[letter] for letter in LETTERS]] * len(prompts)
    our_letters = torch.cat(sequences.response_logps(policy, prompts, single, pad_id=0))
    our_sums = torch.cat(sequences.response_logps(policy, prompts, responses, pad_id=0))
    ours, exact = (_token_logps(each, prompts, responses) for each in (policy, load_policy(work.model(model)).double()))
    gaps = {"vllm_own": theirs - ours, "own_exact": ours - exact, "vllm_exact": theirs - exact}
    found = {f"{name}_largest": float(gap.abs().max()) for name, gap in gaps.items()}
    found |= {f"{name}_mean": float(gap.abs().mean()) for name, gap in gaps.items()}
    found |= {
        "letters_largest": float((letters - our_letters).abs().max()),
        "sums_largest": float((sums - our_sums).abs().max()),
    }
    return {"tokens": len(theirs), "mean_logp": float(exact.mean()), **found, **asked.about}


def speed(work: Workload, model: str, engine: str) -> Row:
    """Seconds to be ready, to sample and to score; tokens of both; peak memory of the process, vLLM's own counted alone."""
    batch = work.batch(RESPONSES)
    prompts, responses = batch.prompts[:PROMPTS], batch.responses[:PROMPTS]
    clock = Clock()
    clock.mark()
    asked: Any
    if engine == "vllm":
        asked = _started(work, model)
        draw: Callable[..., Any] = vllm.sample
        score: Callable[..., Any] = vllm.response_logps
    else:
        asked, draw = load_policy(work.model(model)), own.sample
        score = partial(sequences.response_logps, pad_id=work.codec.pad_id)
    options = {"num_samples": SAMPLES, "max_new_tokens": BUDGET, "stop_ids": work.codec.stop_ids}
    clock.mark()
    draw(asked, prompts[:4], [f"warm/{i}" for i in range(4)], **options)
    score(asked, prompts, responses)
    clock.mark()
    drawn = draw(asked, prompts, [str(i) for i in range(len(prompts))], **options)
    clock.mark()
    score(asked, prompts, responses)
    clock.mark()
    if engine == "vllm":
        asked.close()
    return {
        "start_seconds": clock.between(0, 1)["wall_seconds"],
        "sampled": sum(len(s.token_ids) for samples in drawn for s in samples),
        "sample_seconds": clock.between(2, 3)["wall_seconds"],
        "scored": sum(len(y) for ys in responses for y in ys),
        "score_seconds": clock.between(3, 4)["wall_seconds"],
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024 if engine == "vllm" else peak_memory(),
    }


def _started(work: Workload, model: str) -> vllm.Vllm:
    batch = work.batch(RESPONSES)
    longest = max(len(p) + max(BUDGET, *map(len, ys)) for p, ys in zip(batch.prompts, batch.responses, strict=True))
    return vllm.Vllm(work.model(model), longest=longest)


@torch.no_grad()
def _token_logps(model: Any, prompts: list[list[int]], responses: list[list[list[int]]]) -> Tensor:
    """Of every response token, in the model's precision, by our packed rows, one after another."""
    rows = (pack([p], [ys], pad_id=0) for p, ys in zip(prompts, responses, strict=True))
    return torch.cat([packed_logprobs(model, packed)[packed.mask] for packed in rows])


MEASURES: dict[str, Callable[..., Row]] = {"compare": compare, "speed": speed}


def run(spec: Row) -> Row:
    torch.set_num_threads(THREADS)
    options = {key: value for key, value in spec.items() if key not in ("measure", "folder")}
    return MEASURES[spec["measure"]](workload.load(Path(spec["folder"])), **options)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(json.loads(sys.argv[1]))))
