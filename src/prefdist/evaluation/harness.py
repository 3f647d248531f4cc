"""Academic benchmarks through EleutherAI's lm-evaluation-harness: a row a document and metric, for tables of our own.

Its tasks, prompts, few-shot examples and metrics, on a model folder and its tokenizer. Two things differ from its own
defaults: every prompt starts with BOS, also where the tokenizer by itself adds none (ours does not), and the log-softmax is
in float32 whatever the model's dtype. Left out: chat templates, tasks that score whole documents (perplexities: with BOS
the harness would score the BOS), tasks that execute what a model wrote, standard errors (intervals come from the rows).
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from prefdist.errors import UserError
from prefdist.models import load_policy

Row = dict[str, Any]

_NUMBER = (bool, int, float, np.bool_, np.number)


@dataclass(frozen=True)
class Benchmark:
    """What a model did on tasks. Documents are numbered as the harness does, from 0 in the order of the task's split.

    rows: task, doc_id, metric ("acc,none": metric and filter, as the harness names it), value. A metric that only a set of
        documents has (a correlation, BLEU over a corpus) is in `aggregates` alone.
    choices: task, doc_id, logps (one a choice, in nats, summed over its tokens), gold (its index; None where several are
        right, or none), of multiple-choice tasks: calibration is computed from them.
    aggregates: task or group -> metric -> value, by the harness.
    versions: task -> version. num_fewshot: task -> examples before each question.
    cut: task -> documents whose prompt was cut at its start, because the model has too few positions.
    """

    rows: list[Row]
    choices: list[Row]
    aggregates: dict[str, dict[str, float]]
    versions: dict[str, str]
    num_fewshot: dict[str, int]
    cut: dict[str, int]


def run_tasks(
    model: Path,
    tasks: Sequence[str],
    *,
    include: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    device: str = "cpu",
    dtype: str = "float32",
) -> Benchmark:
    """Evaluate a model folder on named tasks or groups of tasks.

    Args:
        model: a folder with weights (safetensors) and tokenizer.
        include: a folder with task files (YAML) of one's own, which may name Python functions beside them: run only what
            you trust. Its tasks come before those of the harness with the same name.
        num_fewshot: examples before each question; None: as each task says. A task that says 0 keeps 0.
        limit: documents of each task, from the first; None: all.
        seed: of the few-shot examples. The global generators of random, numpy and torch are seeded with it as well.
        batch_size: sequences computed together; values change by rounding only.

    The hub is asked only for the data sets of tasks that have theirs there.

    Raises:
        UserError: an unknown task, a task that scores whole documents, or one whose data set cannot be had.
    """
    manager = _task_manager(tasks, include)
    lm = HFLM(
        pretrained=load_policy(model, device, dtype=dtype),
        tokenizer=_tokenizer(model),
        backend="causal",
        batch_size=batch_size,
        softmax_dtype="float32",
    )
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=list(tasks),
        num_fewshot=num_fewshot,
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        task_manager=manager,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    samples = {task: results["samples"][task] for task in sorted(results["samples"])}
    return Benchmark(
        rows=[row for task, found in samples.items() for row in _rows(task, found)],
        choices=[
            row
            for task, found in samples.items()
            if results["configs"][task]["output_type"] == "multiple_choice"
            for row in _choices(task, found)
        ],
        aggregates={name: _numbers(values) for name, values in results["results"].items()},
        versions={task: str(results["versions"][task]) for task in samples},
        num_fewshot={task: results["n-shot"][task] for task in samples},
        cut={task: _cut(lm, found) for task, found in samples.items()},
    )


class _Tasks(TaskManager):
    """The harness's tasks, with our errors."""

    def load(self, task_list: Any) -> Any:
        try:
            loaded = super().load(task_list)
        except (OSError, DatasetsError, HTTPError) as error:
            raise UserError(f"tasks {', '.join(task_list)}: a data set cannot be had ({error})") from error
        rolling = [name for name, task in loaded["tasks"].items() if task.OUTPUT_TYPE == "loglikelihood_rolling"]
        if rolling:
            raise UserError(f"task {rolling[0]}: scores whole documents, which is not supported; leave it out")
        return loaded


def _task_manager(tasks: Sequence[str], include: Path | None) -> _Tasks:
    """With the harness's own 14 000 tasks, which take 10 s to index, only where `include` has not all that is asked for."""
    if include is not None:
        if not include.is_dir():
            raise UserError(f"{include}: no such folder; name the one with your task files (YAML)")
        own = _Tasks(include_path=str(include), include_defaults=False)
        if set(tasks) <= set(own.all_subtasks):
            return own
    manager = _Tasks(include_path=None if include is None else str(include))
    for task in tasks:
        if task not in manager.task_index:
            nearest = difflib.get_close_matches(task, manager.all_tasks, n=3)
            hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
            raise UserError(f"task {task}: lm-evaluation-harness {lm_eval.__version__} knows none of that name{hint}")
    return manager


def _tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, made to put BOS before a prompt if it does not by itself."""
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder}: no tokenizer.json there; name a folder with a saved tokenizer")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    bos, bos_id = tokenizer.bos_token, tokenizer.bos_token_id
    if bos_id is None or tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer needs BOS and EOS")
    if tokenizer("a").input_ids[0] != bos_id:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, bos_id)])
    return tokenizer


def _rows(task: str, samples: list[dict[str, Any]]) -> Iterator[Row]:
    for sample in samples:
        for metric in sample["metrics"]:
            value = sample[metric]
            if isinstance(value, _NUMBER):
                name = f"{metric},{sample['filter']}"
                yield {"task": task, "doc_id": sample["doc_id"], "metric": name, "value": float(value)}


def _choices(task: str, samples: list[dict[str, Any]]) -> Iterator[Row]:
    for sample in samples:
        logps = [float(logp) for logp, _ in sample["filtered_resps"]]
        if "acc_mutual_info" in sample["metrics"]:
            logps = logps[: len(logps) // 2]  # behind them come the choices without their question
        texts = [continuation.strip() for _, continuation in sample["arguments"][: len(logps)]]
        gold = sample["target"]
        if isinstance(gold, str):
            gold = texts.index(gold.strip()) if gold.strip() in texts else None
        elif not isinstance(gold, int) or not 0 <= gold < len(logps):
            gold = None
        yield {"task": task, "doc_id": sample["doc_id"], "logps": logps, "gold": gold}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(v) for name, v in values.items() if "," in name and isinstance(v, _NUMBER)}


def _cut(lm: Any, samples: list[dict[str, Any]]) -> int:
    """How many documents have a prompt that does not fit before what is scored or generated."""
    too_long = set()
    for sample in samples:
        for context, asked in sample["arguments"]:
            if isinstance(asked, str):  # a continuation to score: its last token is only predicted
                needed = len(lm.tok_encode(context + asked)) - 1
            else:
                needed = len(lm.tok_encode(context)) + asked.get("max_gen_toks", lm.max_gen_toks)
            if needed > lm.max_length:
                too_long.add(sample["doc_id"])
    return len(too_long)
