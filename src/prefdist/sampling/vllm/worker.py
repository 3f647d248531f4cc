"""The process that holds vLLM: one JSON object a line comes in on stdin, one goes out on stdout for each.

It runs under an interpreter that has vLLM and nothing of ours, so this file needs the standard library alone and imports vLLM
when it starts. What vLLM prints goes to stderr. It ends when its client does: stdin is watched while vLLM works.
Left out: what the numbers mean to the project, chunks, errors for users (engine.py).
"""

import json
import os
import queue
import threading
import traceback
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]

MAX_NEXT = 128
"""Tokens whose log-probabilities vLLM gives at one place, at most."""


class Worker:
    """vLLM with one model. Each public method answers one kind of request."""

    def __init__(self, **options: Any) -> None:
        import torch

        # Compiling pays where a model is large, and there it runs on a GPU.
        eager = not torch.cuda.is_available()
        if eager:
            os.environ["TORCH_COMPILE_DISABLE"] = "1"  # read when vLLM imports the compiler
            # vLLM 0.32 turns a seed back by a token when it has cut a prompt in two; generators of CPUs cannot, and it fails.
            whole = max(options["max_num_batched_tokens"], options["max_model_len"])
            options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": whole}
        import vllm

        # After temperature and filters: of tokens drawn, the log of the law that they were drawn from.
        fixed: Message = {"logprobs_mode": "processed_logprobs", "generation_config": "vllm", "skip_tokenizer_init": True}
        self._vllm = vllm
        self._llm = vllm.LLM(enforce_eager=eager, disable_log_stats=True, **fixed, **options)
        self._adaptable = bool(options.get("enable_lora"))
        self._adapter: Any = None
        self._adapters = 0

    def about(self) -> Message:
        return {"version": self._vllm.__version__}

    def sample(
        self, prompts: list[list[int]], seeds: list[list[int]], law: Message, stop_ids: list[int], budget: int
    ) -> Message:
        """One response for each seed of each prompt: [ids, log of the law drawn from, summed]."""
        wanted, asked = [], []
        for prompt, own in zip(prompts, seeds, strict=True):
            for seed in own:
                asked.append({"prompt_token_ids": prompt})
                options = {"seed": seed, "stop_token_ids": stop_ids, "ignore_eos": True, "max_tokens": budget, "logprobs": 0}
                wanted.append(self._parameters(**law, **options))
        drawn = (answer.outputs[0] for answer in self._generate(asked, wanted))
        samples = [[list(response.token_ids), sum(_sampled(response))] for response in drawn]
        counts = iter(samples)
        return {"samples": [[next(counts) for _ in own] for own in seeds]}

    def score(self, rows: list[list[Any]]) -> Message:
        """For each [ids, start, next]: log-probabilities at T = 1 of ids[start:], and of each of the ids `next` behind all."""
        asked, wanted = [], []
        for ids, start, following in rows:
            asked.append({"prompt_token_ids": ids})
            options = {"logprob_token_ids": following, "max_tokens": 1, "ignore_eos": True, "temperature": 1.0}
            wanted.append(self._parameters(prompt_logprobs=0 if start < len(ids) else None, **options))
        scored = []
        for (ids, start, following), answer in zip(rows, self._scored(asked, wanted), strict=True):
            before = answer.prompt_logprobs
            inside = [before[t][ids[t]].logprob for t in range(start, len(ids))]
            found = answer.outputs[0].logprobs[0]
            scored.append([inside, [found[token].logprob for token in following]])
        return {"scored": scored}

    def adapt(self, folder: str | None) -> Message:
        """Everything that follows is asked of the model with the adapter in `folder`, or without one."""
        if folder is None:
            self._adapter = None
        else:
            from vllm.lora.request import LoRARequest

            self._adapters += 1  # a new name for each: vLLM keeps what it has loaded under an old one
            self._adapter = LoRARequest(f"adapter-{self._adapters}", self._adapters, folder)
        return {}

    def reload(self, folder: str) -> Message:
        """The weights in `folder` instead of those it started with."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        self._llm.reset_prefix_cache()
        return {}

    def _scored(self, asked: list[Any], wanted: list[Any]) -> Iterator[Any]:
        """One after another where there are adapters: vLLM 0.32 mixes up which adapter a prompt's tokens belong to."""
        size = 1 if self._adaptable else len(asked)
        for start in range(0, len(asked), size):
            yield from self._generate(asked[start : start + size], wanted[start : start + size])

    def _parameters(self, **options: Any) -> Any:
        return self._vllm.SamplingParams(detokenize=False, flat_logprobs=True, **options)

    def _generate(self, asked: list[Any], wanted: list[Any]) -> Any:
        return self._llm.generate(asked, wanted, use_tqdm=False, lora_request=self._adapter)


def _sampled(response: Any) -> list[float]:
    return list(response.logprobs.logprobs)


def main() -> None:
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    waiting: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    worker: Worker | None = None
    while True:
        request = json.loads(waiting.get())
        try:
            operation = request.pop("do")
            if worker is None:
                worker = Worker(**request)
                answer = worker.about()
            else:
                answer = getattr(worker, operation)(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _listen(requests: Any, waiting: "queue.Queue[str]") -> None:
    """Lines as they come; at their end the client is gone, and what it asked for is of no use."""
    for line in requests:
        waiting.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
