"""Are objectives what they claim? Every row of the objective table, trained on enumerable worlds, beside its closed form."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from prefdist.exact.optima import optima_table
from prefdist.exact.studies.dots import DIFFERENT, EQUAL, dots
from prefdist.exact.study import Claim, Row, Study, stage


def optima(**spec: Any) -> Study:
    """`spec` holds keyword arguments of `optima_table`.

    RuntimeError names every row whose verdict is not the expected one: that is a fault of the code, not a finding.
    """
    table = as_expected(optima_table(**spec))
    equal = [row for row in table if row["verdict"] == "equal"]
    claim = Claim(
        "every objective's optimum is a tilt of the prior, a·log π − b·log π₀ = signal + c, or solves its own stationarity",
        "ADL App. B; SPL Prop. 3.2",
        f"{len(equal)} trained optima within {max(row['tv_max'] for row in equal):.1g} of it (total variation, "
        f"{equal[0]['n']} worlds)",
        "holds",
    )
    return Study({"optima": table}, [claim], {"optima": _figure(table)})


def as_expected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows. RuntimeError names those whose verdict is not the expected one."""
    wrong = [row for row in rows if row["verdict"] != row["expected"]]
    if wrong:
        listed = "\n".join(", ".join(f"{key}={value}" for key, value in row.items()) for row in wrong)
        raise RuntimeError(f"{len(wrong)} verdicts are not the expected ones:\n{listed}")
    return rows


def _figure(rows: Sequence[Row]) -> Figure:
    labels = [" ".join(filter(None, (row["objective"], row["changed"], f"[{row['world']}]"))) for row in rows]
    labels = [
        label + (" vs KL in the reward" if row["expected"] == "different" else "")
        for label, row in zip(labels, rows, strict=True)
    ]
    points = {
        "largest over worlds": ("o", [row["tv_max"] for row in rows]),
        "mean": ("|", [row["tv_mean"] for row in rows]),
    }
    colours = [DIFFERENT if row["expected"] == "different" else EQUAL for row in rows]
    axis = f"total variation between trained and expected optimum, n = {rows[0]['n']} worlds"
    return dots(labels, points, colours, axis, limit=1e-4)


run = stage(optima)
