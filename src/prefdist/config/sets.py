"""What a suite may say of prompts that policies answer, of datasets and their licences, and of judges of the answers."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prefdist.config.common import TRANSFORMERS, VERSION, Engine, Strict, vllm_lacks
from prefdist.config.judge import Judging, KnownJudge

Name = Annotated[str, Field(pattern=VERSION)]
DataFile = Annotated[str, Field(pattern=r"^[^/.*][^*]*\.(parquet|json|jsonl|jsonl\.gz|csv)$")]
"""Path of a file of data in a dataset; no script."""


class Source(Strict):
    """A dataset of the hub, or local files."""

    dataset: str = Field(description="owner/name on the hub, or a folder of Parquet or (compressed) JSON-lines files")
    revision: str | None = Field(None, description="commit of the dataset; needed for one of the hub")
    path: str = Field("", description="the folder in it that holds the files; default: all of it")

    @model_validator(mode="after")
    def _pinned(self) -> "Source":
        if self.revision is None and not Path(self.dataset).is_dir():
            raise ValueError(f"dataset: {self.dataset} is no folder; for one of the hub give revision, a commit")
        return self


class Licensed(Strict):
    """Under which terms something of the hub is to be had; `prefdist doctor <suite>` shows it."""

    licence: str = Field("not stated", description="its licence")
    gated: bool = Field(False, description="whether the hub gives it only to accounts that have accepted the licence")


class HubPrompts(Strict):
    """Prompts of a hub dataset, or of local files, with the columns `prompt` and, where there is one, `chosen`."""

    dataset: str = Field(description="owner/name on the hub, or a folder of Parquet or JSON-lines files")
    revision: str | None = Field(None, description="commit of the dataset; needed for one of the hub")
    splits: dict[Literal["train", "test"], str] = Field(description="train and test -> the dataset's names for them")
    seed: int = 0
    max_prompt_chars: int | None = Field(None, gt=0, description="longer prompts are left out")

    @model_validator(mode="after")
    def _complete(self) -> "HubPrompts":
        if self.revision is None and not Path(self.dataset).is_dir():
            raise ValueError(f"dataset: {self.dataset} is no folder; for one of the hub give revision, a commit")
        if set(self.splits) != {"train", "test"}:
            raise ValueError(f"splits: name both train and test, found {sorted(self.splits)}")
        return self


class Prompts(Strict):
    """How long a prompt may be, and what becomes of longer ones; defects.json counts them."""

    max_tokens: int | None = Field(
        default=None, gt=0, description="with BOS and the template's own tokens; default: any length"
    )
    too_long: Literal["refuse", "drop", "truncate_left"] = Field(
        default="refuse", description="truncate_left keeps the end of the text"
    )


class Answered(Source, Licensed):
    """Prompts and, where the dataset has them, an answer to each."""

    format: Literal["messages", "tldr_oai", "tldr_trl", "alpaca_eval", "mt_bench", "arena_hard"] = Field(
        description="which columns: see data/columns.py"
    )
    on_defect: Literal["drop", "refuse"] = Field(
        "drop", description="of rows without prompt or answer; dropped ones are listed"
    )


class Decoding(Strict):
    """A law by which answers are drawn."""

    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0, description="0: all tokens")
    top_p: float = Field(default=1.0, gt=0, le=1)

    @property
    def in_vllm(self) -> bool:
        """Whether vLLM has this law."""
        return vllm_lacks(self.temperature, self.top_p, 0.0) is None


class SetJudging(Judging):
    """Who judges each run's answers, drawn by its own law. Protocol mt_bench rates two turns and compares with nothing."""

    against: Literal["reference", "base"] = Field("reference", description="the dataset's own answers, or those of π₀")
    runs: list[str] | None = Field(None, description="whose answers, on every base; default: π₀'s and all runs'")
    difficulties: bool = Field(
        False,
        description="of protocol alpaca_eval: whether the dataset has alpaca_eval.json and df_gamed.csv, by which AlpacaEval "
        "controls length",
    )

    @model_validator(mode="after")
    def _available(self) -> "SetJudging":
        if isinstance(self.judge, KnownJudge):
            raise ValueError("judge.kind: known is the judge of a testbed; take endpoint or reward_model")
        if self.difficulties and self.protocol != "alpaca_eval":
            raise ValueError("difficulties: AlpacaEval's are of protocol alpaca_eval; leave it out")
        return self


def _unsaid(value: Any) -> bool:
    return value is None


class EvaluationSet(Answered):
    """Prompts that all policies answer."""

    split: str = Field("test", description="the dataset's name")
    prompts: int = Field(gt=0)
    # Without a word they stand in no specification, nor in its digest.
    answers: str | None = Field(
        None, description="of arena_hard: the dataset's file of a model's answers to compare with", exclude_if=_unsaid
    )
    files: list[DataFile] | None = Field(
        None, description="of the dataset, these alone are fetched; default: all of rows", exclude_if=_unsaid
    )
    judging: SetJudging | None = Field(None, description="who says which answers are better; default: nobody")

    @model_validator(mode="after")
    def _comparable(self) -> "EvaluationSet":
        wanted = {"alpaca_eval.json", "df_gamed.csv"}
        if self.judging is not None and self.judging.difficulties and not wanted <= set(self.files or ()):
            raise ValueError(f"judging.difficulties: name {' and '.join(sorted(wanted))} of the dataset in files")
        if self.answers is not None and self.format != "arena_hard":
            raise ValueError(f"answers: rows of {self.format} have their own, or none; leave it out")
        if self.judging is None:
            return self
        if self.judging.protocol == "mt_bench" and self.format != "mt_bench":
            raise ValueError(f"judging.protocol: mt_bench rates two turns, and {self.format} has one; take another protocol")
        has_answers = self.format not in QUESTIONS_ONLY or self.answers is not None
        if self.judging.against == "reference" and self.judging.protocol != "mt_bench" and not has_answers:
            raise ValueError(f"judging.against: {self.format} has no answers to compare with; set it to base")
        return self


QUESTIONS_ONLY = ("mt_bench", "arena_hard")
"""Formats whose rows have no answers."""


class AnsweredSets(Strict):
    """Sets of prompts, and how every policy answers them."""

    sets: dict[Name, EvaluationSet] = Field(min_length=1)
    samples: int = Field(gt=0, description="answers a prompt and law")
    max_new_tokens: int = Field(gt=0)
    engine: Engine = TRANSFORMERS
