"""Calibration of answers to multiple-choice questions, from rows of ANSWERS: what no single question has, and its table.

Calibration errors and AUROC are of all questions of a seed together and averaged over seeds; their intervals are over
questions, the same resampled ones for all seeds, whose models are fixed. Accuracy, NLL and Brier score are means of metric
rows, with intervals over questions × seeds, as everywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefdist.evaluation.multiple_choice import BINS, Answers, metrics
from prefdist.results.metrics_behaviour import bare, specs
from prefdist.results.tables import CAPTION, COLUMNS, Cell, markdown_table

Row = dict[str, Any]
RESAMPLES = 500
CAPTION_OF_ERRORS = (
    "ECE and AUROC: mean over seeds of what a seed's answers to all questions have; interval: bootstrap over questions, the "
    "same for all seeds, with the trained models fixed. A resample repeats questions, so intervals of ECE lie too high. "
    "Probabilities are renormalised over the options; the mass of the letters is what they held before. Numbers of bins other "
    "than the {bins} of this table stand in table.csv."
)


def grouped_answers(rows: Sequence[Row]) -> dict[tuple[str, str], list[Answers]]:
    """(run, choices) -> the answers of each seed, in the order of the rows."""
    groups: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row["run"], row["choices"]), {}).setdefault(row["seed"], []).append(row)
    return {key: [Answers.of_rows(of_seed) for of_seed in by_seed.values()] for key, by_seed in groups.items()}


def calibration_cells(rows: Sequence[Row], bins: int) -> list[Cell]:
    """<choices>/ece_<scheme>_<bins> of usual numbers of bins and the given one, and <choices>/auroc, of each run."""
    cells = []
    for (run, choices), of_seeds in grouped_answers(rows).items():
        found = metrics(of_seeds, bins=sorted({*BINS, bins}), resamples=RESAMPLES)
        for name, interval in found.items():
            if name.startswith("ece_") or name == "auroc":
                numbers = map(float, (interval.value, interval.low, interval.high))
                counts = (interval.units, len(of_seeds), interval.units * len(of_seeds), 0)
                cells.append(dict(zip(COLUMNS, (run, f"{choices}/{name}", *numbers, *counts), strict=True)))
    return cells


def write_calibration(cells: Sequence[Cell], bins: int, file: Path) -> None:
    """A table a set of questions, with calibration errors of this number of bins alone."""
    shown = specs((cell["metric"] for cell in cells), "calibration")
    shown = [spec for spec in shown if "/ece_" not in spec.key or spec.key.endswith(f"_{bins}")]
    lines = [CAPTION, CAPTION_OF_ERRORS.format(bins=bins), ""]
    for choices in dict.fromkeys(spec.key.rpartition("/")[0] for spec in shown):
        of_set = [spec for spec in shown if spec.key.rpartition("/")[0] == choices]
        keys = {spec.key for spec in of_set}
        table = markdown_table([cell for cell in cells if cell["metric"] in keys], [bare(spec) for spec in of_set])
        lines += [f"## {choices}", "", *table, ""]
    file.write_text("\n".join(lines), encoding="utf-8")
