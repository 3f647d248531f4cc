"""Are gradient estimators what they claim? Their expected gradients beside the exact ones, in small autoregressive worlds."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from prefdist.exact.estimators import estimators_table
from prefdist.exact.studies.dots import DIFFERENT, EQUAL, dots
from prefdist.exact.studies.optima import as_expected
from prefdist.exact.study import Claim, Row, Study, stage


def estimators(**spec: Any) -> Study:
    """`spec` holds keyword arguments of `estimators_table`. RuntimeError names rows with another verdict than expected."""
    table = as_expected(estimators_table(**spec))
    kl = [row for row in table if row["quantity"] == "KL"]
    wrong = [row["estimator"] for row in kl if row["verdict"] != "exact"]
    claim = Claim(
        "differentiating an estimator of the KL gives the gradient of the KL",
        "common practice; ADL leaves its estimator open",
        f"{len(wrong)} of {len(kl)} estimators do not: {'; '.join(wrong)}",
        "holds under the score-function form, and for k2 of the whole sequence",
    )
    return Study({"estimators": table}, [claim], {"estimators": _figure(table)})


def _figure(rows: Sequence[Row]) -> Figure:
    labels = [f"{row['estimator']} [{row['quantity']}]" for row in rows]
    points = {
        "largest over worlds": ("o", [row["error_max"] for row in rows]),
        "mean": ("|", [row["error_mean"] for row in rows]),
    }
    colours = [EQUAL if row["expected"] == "exact" else DIFFERENT for row in rows]
    axis = f"relative error of the expected gradient, n = {rows[0]['n']} worlds"
    return dots(labels, points, colours, axis, limit=1e-9)


run = stage(estimators)
