"""The stage `train`: from a specification and its inputs to a model folder and the log of its training."""

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from prefdist.config.common import Optimisation, RewardUse, Rollouts
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.models import add_lora, fold_temperature, load_policy, load_scorer, new_policy, save
from prefdist.objectives.registry import Objective, load
from prefdist.paths import TIMINGS
from prefdist.sampling.engines import write_about
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec, check_vocabulary, reads_ids_of, same_tokenizer
from prefdist.training import checkpoint, examples, identity
from prefdist.training.batch import Dataset, Share
from prefdist.training.decomposition import Decomposed
from prefdist.training.learner import Learner
from prefdist.training.loop import Stream, train
from prefdist.training.parallel import Parallel, checkpoint_activations
from prefdist.training.terms import kl_term, objective_term


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Train and save. Resumes from `scratch`, which is removed at the end.

    spec["how"]: settings that change no more than rounding, where they are not the defaults (Optimisation.how).
    """
    settings = Optimisation.model_validate(spec["optimisation"] | spec.get("how", {}))
    # A model folder carries its tokenizer; a model from scratch takes that of the text.
    codec = TextCodec(inputs["init"] if "init" in inputs else inputs["text"] / "tokenizer")
    objective = load(spec["objective"])
    learner = _learner(spec, inputs, objective, codec)
    learner.precision = settings.precision
    if settings.gradient_checkpointing:
        checkpoint_activations(learner)
    if "reward_model" in inputs:
        _check_reader(inputs["reward_model"], codec)
    parallel = Parallel(learner, settings.sharding)
    vllm = _vllm(spec, inputs, codec, scratch / f"vllm-{parallel.share.rank}")
    sampled = {} if vllm is None else {"sample": vllm}
    streams, rollout_steps = _streams(spec, inputs, objective, parallel, codec, settings, sampled)
    _check(parallel, streams[-1], codec, starts_at_reference="init" in inputs)
    log = train(
        parallel,
        streams,
        settings,
        pad_id=codec.pad_id,
        scratch=scratch,
        seed=spec["seed"],
        rollout_steps=rollout_steps,
        probe=_probe(inputs, learner, codec) if "probe" in inputs else None,
    )
    weights = checkpoint.whole(learner.trainable(), keep=parallel.main) if parallel.sharded else None
    if vllm is not None:
        vllm.close()
    if parallel.main:
        if vllm is not None:
            write_about(vllm.about, out)
        if weights is not None:
            learner = _learner(spec, inputs, objective, codec)
            checkpoint.restore(learner, weights)
        if spec.get("temperature", 1.0) != 1.0:
            fold_temperature(learner.policy, spec["temperature"])
        save(learner.policy if learner.scorer is None else learner.scorer.model, out, codec)
        (out / TIMINGS).write_text(json.dumps([row.pop("seconds") for row in log]) + "\n")
        (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
        shutil.rmtree(scratch, ignore_errors=True)


def _check(parallel: Parallel, stream: Stream, codec: TextCodec, starts_at_reference: bool) -> None:
    """The identities of the first step (identity.py): in float32, whose rounding hides none, whatever is trained in."""
    learner = parallel.learner
    if learner.policy is None:
        return
    precision, learner.precision = learner.precision, "float32"
    batch = stream.source.batch(0)
    learner.ask(
        lambda policy: identity.check(
            policy, batch, codec.pad_id, temperature=stream.temperature, starts_at_reference=starts_at_reference
        )
    )
    learner.precision = precision


def _check_reader(reward_model: Path, codec: TextCodec) -> None:
    """It is given the policy's ids: they must mean the same to it, and have embeddings. UserError otherwise."""
    if not reads_ids_of(TextCodec(reward_model), codec):
        raise UserError(
            f"{reward_model}: this reward model has another tokenizer than {codec.folder}, whose ids it is given; take one of "
            "the same family"
        )
    check_vocabulary(codec, reward_model)


def _learner(spec: dict[str, Any], inputs: dict[str, Path], objective: Objective, codec: TextCodec) -> Learner:
    seed = spec["seed"]
    if "reward" in objective.needs:
        return Learner(scorer=load_scorer(inputs["init"], seed=seed))
    if spec.get("init", "") == "scratch":
        policy = new_policy(spec["architecture"], codec, seed)
    else:
        policy = load_policy(inputs["init"] if "init" in inputs else Path(spec["init"]))
    if spec.get("lora"):
        policy = add_lora(policy, spec["lora"], seed)
    # The critic starts as the reward model, whose output at a state is already a guess of the return.
    critic = load_scorer(inputs["reward_model"]) if "values" in objective.needs else None
    if "token_kl" in objective.needs:
        if not same_tokenizer(codec, TextCodec(inputs["teacher"])):
            raise UserError(
                f"{inputs['init']} and {inputs['teacher']} have different tokenizers, and {objective.row.title} compares laws "
                f"of tokens; name a student and a teacher that share one"
            )
        return Learner(
            policy, teacher=_frozen(load_policy(inputs["teacher"])), teacher_first=objective.row.direction == "forward"
        )
    return Learner(policy, critic)


def _streams(
    spec: dict[str, Any],
    inputs: dict[str, Path],
    objective: Objective,
    parallel: Parallel,
    codec: TextCodec,
    settings: Optimisation,
    sampled: dict[str, Any],
) -> tuple[list[Stream], int]:
    """What feeds the loss, and how many steps share a rollout. The KL regulariser shares the objective's fresh samples.

    sampled: `sample` of RolloutSource, where it is not the usual one.
    """
    regulariser = getattr(objective.row, "regulariser", None)
    penalty = [kl_term(float(regulariser.kl))] if regulariser and float(regulariser.kl) else []
    streams = []
    if objective.row.responses != "policy":
        data, list_size = _dataset(spec, inputs, codec, settings.batch_size, parallel.share)
        streams.append(Stream(data, [objective_term(objective, list_size)]))
        if not penalty:
            return streams, 1
    rollouts = Rollouts.model_validate(spec["rollouts"])
    on_policy = objective if objective.row.responses == "policy" else None
    # One after the other: a model that is to be sharded is first read as a whole, by every process.
    prior = parallel.place(Learner(_frozen(load_policy(inputs["prior"]))))
    reward_model = parallel.place(Learner(scorer=_frozen(load_scorer(inputs["reward_model"])))) if on_policy else None
    source = import_module("prefdist.training.rollouts").RolloutSource(
        parallel.learner,
        prior,
        examples.prompts(inputs, codec),
        rollouts,
        batch_size=rollouts.batch_size or settings.batch_size,
        seed=spec["seed"],
        share=parallel.share,
        pad_id=codec.pad_id,
        stop_ids=codec.stop_ids,
        reward_model=reward_model,
        reward=RewardUse.model_validate(spec.get("reward", {})),
        objective=on_policy,
        total=parallel.sum,
        passes=parallel.passes,
        **sampled,
    )
    streams.append(Stream(source, ([objective_term(on_policy)] if on_policy else []) + penalty, rollouts.temperature))
    return streams, source.updates


def _vllm(spec: dict[str, Any], inputs: dict[str, Path], codec: TextCodec, folder: Path) -> Any:
    """What draws the rollouts, if vLLM does; `folder` is for weights on their way to it."""
    rollouts = spec.get("rollouts")
    if rollouts is None or rollouts.get("engine") != "vllm":
        return None
    longest = max(len(ids) for _, ids in examples.prompts(inputs, codec)) + rollouts["max_new_tokens"]
    return import_module("prefdist.sampling.vllm.policy").PolicySampler(folder, longest=longest, base=inputs.get("init"))


def _dataset(
    spec: dict[str, Any], inputs: dict[str, Path], codec: TextCodec, batch_size: int, share: Share
) -> tuple[Dataset, int | None]:
    """The batches, and the length of the sublists that their lists are cut into, if they are."""
    data, seed = spec["data"], spec["seed"]
    parts = data.get("decomposition")
    found = import_module(data.get("examples", _EXAMPLES)).build(data, inputs, codec, seed)
    if parts is None:
        return Dataset(found, batch_size, seed, share), None
    return Decomposed(found, batch_size, seed, share, **parts), parts["size"]


_EXAMPLES = "prefdist.training.examples"
"""Where examples are made, unless the data's specification names another module with a `build(data, inputs, codec, seed)`."""


def _probe(inputs: dict[str, Path], learner: Learner, codec: TextCodec) -> Callable[[], float]:
    """Forward KL(π*‖π) on validation prompts, from samples of π*: a point of the learning curve, in nats."""
    rows = tables.read_table(inputs["probe"] / "probe.parquet", tables.RESPONSES)
    text = tables.read_table(inputs["text"] / "prompts.parquet", tables.PROMPTS)
    ids = {row["prompt_id"]: codec.prompt(row["prompt"]) for row in text}
    groups: dict[str, list[list[int]]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row["token_ids"])
    target = sum(row["logp"] for row in rows) / len(rows)
    questions = [ids[name] for name in groups]

    def measure() -> float:
        own = learner.ask(lambda policy: response_logps(policy, questions, list(groups.values()), pad_id=codec.pad_id))
        return target - float(torch.cat(own).mean())

    return measure


def _frozen(model: Any) -> Any:
    return model.requires_grad_(False)
