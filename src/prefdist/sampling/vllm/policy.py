"""Samples of a policy in training: vLLM is handed its weights before every rollout, and it is checked that they arrived.

vLLM may keep a part of the old weights without a word: with tied embeddings its output head stays what it was. So the policy
and vLLM score the same tokens after every hand-over, and where they differ a new vLLM is started, from weights with the head
written out. Low-rank adapters are handed over as adapters, behind the base that vLLM keeps.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from prefdist.errors import UserError
from prefdist.sampling.engine import Sample
from prefdist.sampling.vllm import engine
from prefdist.scoring.sequences import response_logps

Ids = Sequence[int]

PROBES = 4
"""Prompts of a rollout whose own tokens are scored by both."""
TOLERANCE = 1e-3
"""Nats a token between policy and vLLM: a hundred times the rounding of float32 here, little beside a step's change."""
MEMORY = 0.4
"""Share of the GPU, which the trainer needs, too."""


class PolicySampler:
    """`sample` of engine.py for a policy in training: called with it, and with the arguments of sampling.engine.sample.

    scratch: a folder for weights on their way, emptied at the start. longest: tokens of the longest prompt with its response.
    base: where the frozen weights lie that a low-rank adapter belongs to.
    """

    def __init__(self, scratch: Path, *, longest: int, base: Path | None = None) -> None:
        self._scratch, self._longest, self._base = scratch, longest, base
        self._vllm: engine.Vllm | None = None
        self._untied = False
        self._handed = 0
        shutil.rmtree(scratch, ignore_errors=True)  # left by a run that was stopped

    def __call__(self, policy: Any, prompts: Sequence[Ids], keys: Sequence[str], **options: Any) -> list[list[Sample]]:
        """Responses of the policy as it is now. UserError if vLLM's log-probabilities are not the policy's."""
        return engine.sample(self._current(policy, prompts), prompts, keys, **options)

    @property
    def about(self) -> dict[str, Any]:
        """Version of vLLM, once it has been started."""
        return {} if self._vllm is None else self._vllm.about

    def close(self) -> None:
        if self._vllm is not None:
            self._vllm.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _current(self, policy: Any, prompts: Sequence[Ids]) -> engine.Vllm:
        started = self._vllm is None
        vllm = self._hand_over(policy)
        gap = _gap(policy, vllm, prompts)
        if not gap <= TOLERANCE and not started and not _adapted(policy):
            print(f"vLLM kept old weights ({gap:.1e} nats a token); a new one is started", file=sys.stderr)
            vllm.close()
            self._vllm, self._untied = None, _tied(policy)
            vllm = self._hand_over(policy)
            gap = _gap(policy, vllm, prompts)
        if not gap <= TOLERANCE:
            raise UserError(
                f"vLLM's log-probabilities differ from the policy's by {gap:.1e} nats a token (allowed {TOLERANCE}): it "
                f"computes another model than transformers does for {policy.config.model_type}; set engine to transformers"
            )
        return vllm

    def _hand_over(self, policy: Any) -> engine.Vllm:
        """A vLLM that was given the policy's weights."""
        folder = self._scratch / str(self._handed)
        self._handed += 1
        if _adapted(policy):
            policy.save_pretrained(folder)
            vllm = self._vllm or self._start(policy, self._base)
            vllm.adapt(folder)
        else:
            _write(policy, folder, untied=self._untied)
            vllm = self._vllm or self._start(policy, folder)
            if self._vllm is not None:
                vllm.reload(folder)
        self._vllm = vllm
        shutil.rmtree(folder)
        return vllm

    def _start(self, policy: Any, folder: Path | None) -> engine.Vllm:
        assert folder is not None, "an adapter needs its base"
        rank = max(adapter.r for adapter in policy.peft_config.values()) if _adapted(policy) else 0
        device = next(policy.parameters()).device
        return engine.Vllm(folder, longest=self._longest, memory=MEMORY, rank=rank, device=device)


def _adapted(policy: Any) -> bool:
    return hasattr(policy, "peft_config")


def _tied(policy: Any) -> bool:
    return bool(policy.config.tie_word_embeddings)


def _write(policy: Any, folder: Path, *, untied: bool) -> None:
    """The policy's folder. `untied`: its output head stands in it beside the embeddings, and the config says so."""
    if not untied:
        policy.save_pretrained(folder)
        return
    state = policy.state_dict()
    head = next(name for name, module in policy.named_modules() if module is policy.get_output_embeddings())
    state[f"{head}.weight"] = state[f"{head}.weight"].clone()
    policy.config.tie_word_embeddings = False
    try:
        policy.save_pretrained(folder, state_dict=state)
    finally:
        policy.config.tie_word_embeddings = True


@torch.no_grad()
def _gap(policy: Any, vllm: engine.Vllm, prompts: Sequence[Ids]) -> float:
    """Largest difference of a probe's log-probability, in nats a token: of the tokens of a prompt behind its first.

    In float32, as vLLM computes, also where a training runs in bfloat16.
    """
    heads = [prompt[:1] for prompt in prompts[:PROBES]]
    tails = [[prompt[1:] or [0]] for prompt in prompts[:PROBES]]
    with torch.autocast(next(policy.parameters()).device.type, enabled=False):
        own = response_logps(policy, heads, tails, pad_id=0)
    theirs = engine.response_logps(vllm, heads, tails)
    return max(float((a - b).abs().max()) / len(y[0]) for a, b, y in zip(own, theirs, tails, strict=True))
