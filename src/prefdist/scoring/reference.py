"""The stage `reference`: log-probabilities of labelled pairs under π₀, computed once for all methods that need them."""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.models import load_policy
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes logps.parquet, in the order of the preferences table."""
    codec = TextCodec(inputs["prior"])
    rows = tables.read_table(inputs["preferences"] / "preferences.parquet", tables.PREFERENCES)
    logps = response_logps(
        load_policy(inputs["prior"]),
        [codec.prompt(row["prompt"]) for row in rows],
        [[row["chosen_ids"], row["rejected_ids"]] for row in rows],
        pad_id=codec.pad_id,
    )
    tables.write_table(
        out / "logps.parquet",
        [
            {"pair_id": row["pair_id"], "logp_chosen": float(pair[0]), "logp_rejected": float(pair[1])}
            for row, pair in zip(rows, logps, strict=True)
        ],
        tables.LOGPS,
    )
