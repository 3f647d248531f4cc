"""The stage `judge` (and `judge_local`, the same on a GPU): answers judged by an endpoint, a reward model or a known
preference.

spec: run, seed (of the metric rows), and the keys of config.judge.Judging: judge, protocol, orders, order_seed.
inputs: prompts (prompts.parquet; the prompts that are answered; of protocol mt_bench second_turns.parquet, too), answers
(draws.parquet or responses.parquet), and
  baseline        answers to compare with; without it, the prompts' own references
  second_answers  of protocol mt_bench: the answers to the second turns, under the same samples
  reward_model    of judge reward_model
  target          of judge known
  alpaca_eval     of protocol alpaca_eval, if there is one: a folder with AlpacaEval's alpaca_eval.json and df_gamed.csv
Writes comparisons.parquet, judgements.parquet, metrics.parquet (tables.METRICS) and summary.json; see measures.py.

Replies of endpoints are kept in judge_replies/ beside the stages' scratch folders, whatever becomes of the artefact:
journal.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from prefdist.config.judge import EndpointJudge, Judging, KnownJudge, RewardModelJudge
from prefdist.data import tables
from prefdist.judging.comparisons import Comparison, read_dialogues, read_pairs
from prefdist.judging.endpoint import Endpoint
from prefdist.judging.local import KnownPreference, RewardModel
from prefdist.judging.schemas import COMPARISONS, JUDGEMENTS
from prefdist.judging.tables import gamed, judging_of, measured, write

REPLIES = "judge_replies"


class Judge(Protocol):
    """Whoever judges: rows of JUDGEMENTS, in the order of the comparisons, one a comparison, order and turn."""

    def judge(self, comparisons: Sequence[Comparison]) -> list[dict[str, Any]]: ...


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Goes on behind replies that an earlier run has kept. UserErrors of reading and judging: comparisons.py, endpoint.py."""
    judging = judging_of(spec)
    read = read_dialogues if judging.protocol == "mt_bench" else read_pairs
    comparisons = read(inputs, judging.samples)
    rows = [comparison.row() for comparison in comparisons]
    controls = gamed(inputs.get("alpaca_eval"), rows)  # what is wrong with these files is said before a judge is paid
    judgements = judge_of(judging, inputs, scratch.with_name(REPLIES)).judge(comparisons)
    metrics, found = measured(spec, judgements, controls)
    tables.write_table(out / "comparisons.parquet", rows, COMPARISONS)
    tables.write_table(out / "judgements.parquet", judgements, JUDGEMENTS)
    write(out, metrics, found)


def judge_of(judging: Judging, inputs: dict[str, Path], replies: Path) -> Judge:
    """The judge that the settings name. `replies`: where an endpoint's are kept."""
    settings = judging.judge
    if isinstance(settings, EndpointJudge):
        return Endpoint(judging, replies)
    if isinstance(settings, RewardModelJudge):
        return RewardModel(settings, inputs["reward_model"])
    assert isinstance(settings, KnownJudge)
    return KnownPreference(settings, inputs["target"])
