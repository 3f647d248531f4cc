"""Judges that are no endpoint: a reward model, and the known preference of a testbed. Each judges a pair once, in no order.

P(answer wins) = σ(margin) is kept as it is, a soft preference. Left out: which reward model, or which π*, is worth asking.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.config.judge import KnownJudge, RewardModelJudge
from prefdist.errors import UserError
from prefdist.judging.comparisons import Answer, Comparison, lengths
from prefdist.models import load_frozen, load_scorer
from prefdist.scoring.sequences import response_logps, response_rewards
from prefdist.tokens import TextCodec

Row = dict[str, Any]


class RewardModel:
    """P(answer wins) = σ(r̂(answer) − r̂(baseline)) of the reward model in a folder.

    Ids of an answer are its sampler's where the reward model's tokenizer reads them as the same text, else its text is encoded
    anew, without the end of turn where the answer was cut off.
    """

    def __init__(self, settings: RewardModelJudge, folder: Path) -> None:
        self._settings, self._folder = settings, folder

    def judge(self, comparisons: Sequence[Comparison]) -> list[Row]:
        """Rows of JUDGEMENTS, in the order of the comparisons. UserError for an answer without a token."""
        codec = TextCodec(self._folder)
        model = load_scorer(self._folder, "cuda" if torch.cuda.is_available() else "cpu", dtype=self._settings.dtype)
        prompts, responses = _ids(codec, comparisons)
        return _rows(comparisons, response_rewards(model.requires_grad_(False), prompts, responses, pad_id=codec.pad_id))


class KnownPreference:
    """P(a ≻ b) = σ(γ·(log π*(a) − log π*(b))), with the target π* in a folder (ADL, arXiv 2506.01523, Eq. 2).

    Answers of its own tokenizer are scored by the ids that were drawn; a text (a reference) ends with EOS.
    """

    def __init__(self, settings: KnownJudge, folder: Path) -> None:
        self._settings, self._folder = settings, folder

    def judge(self, comparisons: Sequence[Comparison]) -> list[Row]:
        """Rows of JUDGEMENTS, in the order of the comparisons. UserError for an answer without a token."""
        codec = TextCodec(self._folder)
        prompts, responses = _ids(codec, comparisons)
        logps = response_logps(load_frozen(self._folder), prompts, responses, pad_id=codec.pad_id)
        return _rows(comparisons, [self._settings.gamma * of_pair.double() for of_pair in logps])


def _ids(codec: TextCodec, comparisons: Sequence[Comparison]) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Of each comparison the prompt, and the answer and the baseline's."""
    prompts = [codec.prompt(comparison.prompt) for comparison in comparisons]
    responses = []
    for comparison in comparisons:
        assert comparison.baseline is not None
        pair = [_answer_ids(codec, answer) for answer in (comparison.answer, comparison.baseline)]
        if not all(pair):
            raise UserError(
                f"{codec.folder}: prompt {comparison.prompt_id!r}, sample {comparison.sample}: an answer has no token to be "
                "judged by; leave the prompt out"
            )
        responses.append(pair)
    return prompts, responses


def _answer_ids(codec: TextCodec, answer: Answer) -> list[int]:
    drawn = answer.token_ids
    if drawn is not None and max(drawn, default=0) < codec.vocabulary and codec.decode(drawn) == answer.text:
        ends = drawn[-1:] == (codec.eos_id,)
        if ends or not answer.ended:
            return list(drawn)
    encoded = codec.response(answer.text)
    return encoded if answer.ended else encoded[:-1]


def _rows(comparisons: Sequence[Comparison], scores: Sequence[Tensor]) -> list[Row]:
    """scores: [2] a comparison, of the answer and of the baseline's; the difference is the margin in nats."""
    rows = []
    for comparison, (answer, baseline) in zip(comparisons, scores, strict=True):
        said = {"reply": None, "top_logprobs": None, "finish_reason": None, "prompt_tokens": None, "completion_tokens": None}
        rows.append(
            {
                "prompt_id": comparison.prompt_id,
                "sample": comparison.sample,
                "order": 0,
                "turn": 1,
                "preference": 1.0 + float((answer.double() - baseline.double()).sigmoid()),
                "weight": 1.0,
                "rating": None,
                **said,
                **lengths(comparison),
            }
        )
    return rows
