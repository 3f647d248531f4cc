"""prefdist.exact.study and results: intervals against the textbook, files of a study, claims of all in one table."""

import csv
import math
from pathlib import Path

import pytest

from prefdist.errors import UserError
from prefdist.exact import results
from prefdist.exact.studies import degeneracy
from prefdist.exact.study import Claim, Study, mean_interval, share_interval, write


def test_mean_interval_by_hand() -> None:
    # mean 2, s = 1, t(2, 97.5 %) = 4.302653: 2 ± 4.302653/√3.
    found = mean_interval([1.0, 2.0, 3.0])
    assert found == pytest.approx({"estimate": 2.0, "low": 2 - 2.484138, "high": 2 + 2.484138, "n": 3}, abs=1e-6)
    assert math.isnan(mean_interval([1.0])["low"])


def test_share_interval_of_nothing_seen() -> None:
    # Wilson at 0 of n: [0, z²/(n + z²)], z = 1.959964.
    assert share_interval(0, 100) == pytest.approx({"estimate": 0, "low": 0, "high": 3.841459 / 103.841459, "n": 100}, abs=1e-6)


def test_claims_of_all_studies_in_one_table(tmp_path: Path) -> None:
    for name, verdict in (("first", "holds"), ("second", "fails")):
        (tmp_path / name).mkdir()
        write(Study({name: [{"x": 0.5, "y": math.nan}]}, [Claim("a|b", "paper, Eq. 1", "0.5", verdict)]), tmp_path / name)
    out = tmp_path / "out"
    out.mkdir()
    results.run({}, {name: tmp_path / name for name in ("first", "second")}, out, tmp_path)
    names = ("first", "second", "claims")
    assert {file.name for file in out.iterdir()} == {f"{name}{suffix}" for name in names for suffix in (".csv", ".md")}
    with (out / "claims.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["study"], row["verdict"]) for row in rows] == [("first", "holds"), ("second", "fails")]
    assert "a\\|b" in (out / "claims.md").read_text()
    assert (out / "first.csv").read_text() == "x,y\n0.5,\n"


def test_keys_that_do_not_go_together_name_the_section(tmp_path: Path) -> None:
    spec = {
        "worlds": 2,
        "responses": 4,
        "pairs": 2,
        "spread": 1.0,
        "betas": [1.0],
        "margin": 1.0,
        "gammas": [1.0],
        "kls": [1.0],
    }
    with pytest.raises(UserError, match=r"^suite exact: degeneracy: times must begin with 0 and hold two more, got \[1.0\]"):
        degeneracy.run(spec | {"times": [1.0], "seed": 0}, {}, tmp_path, tmp_path)
    assert not list(tmp_path.iterdir())
