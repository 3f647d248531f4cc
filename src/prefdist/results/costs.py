"""What trainings took, as a table of results."""

import json
from pathlib import Path

from prefdist.paths import TIMINGS


def write_costs(inputs: dict[str, Path], file: Path) -> None:
    """A line for each input policy/<run>/<seed>. Seconds are of the machine that ran it and differ from run to run."""
    lines = ["run,seed,steps,tokens,seconds"]
    for role, folder in inputs.items():
        if role.startswith("policy/"):
            _, name, seed = role.split("/")
            tokens = [json.loads(line)["tokens"] for line in (folder / "log.jsonl").read_text().splitlines()]
            seconds = sum(json.loads((folder / TIMINGS).read_text()))
            lines.append(f"{name},{seed},{len(tokens)},{sum(tokens):.0f},{seconds:.1f}")
    file.write_text("\n".join(lines) + "\n")
