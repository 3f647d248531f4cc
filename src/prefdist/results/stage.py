"""The stage `results`: tables, figures, samples and the manifest of a suite, from metric rows alone."""

import json
from pathlib import Path
from typing import Any

from prefdist.artefacts import provenance
from prefdist.data import tables
from prefdist.evaluation.statistics import reliability_bins
from prefdist.paths import TIMINGS
from prefdist.results import figures
from prefdist.results.from_rows import write_policies
from prefdist.results.manifest import write_manifest

SHOWN_PROMPTS = 6


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Everything that results/<suite>/<version> holds."""
    rows = [row for name in spec["runs"] for row in _metrics(inputs[f"evaluation/{name}"])]
    calibration = _metrics(inputs["calibration"])
    tables.write_table(out / "metrics.parquet", rows + calibration, tables.METRICS)
    cells = write_policies(spec, out, out)
    _write_costs(spec, inputs, out)
    _write_samples(spec, inputs, out / "samples.md")
    (out / "data_card.md").write_text((inputs["text"] / "card.md").read_text())

    families = spec["families"]
    figures.kl_frontier(cells, families, out / "kl_frontier", prior="prior")
    figures.win_rates(cells, families, out / "win_rates")
    figures.learning_curves(_curves(spec, inputs), families, out / "learning_curves")
    figures.reliability(_reliability(inputs["calibration"], len(spec["seeds"])), out / "reliability")
    write_manifest(spec, inputs, out / "manifest.json")


def _metrics(folder: Path) -> list[dict[str, Any]]:
    return tables.read_table(folder / "metrics.parquet", tables.METRICS)


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _trained(spec: dict[str, Any]) -> list[tuple[str, int]]:
    return [(name, seed) for name in spec["runs"] if name != "prior" for seed in spec["seeds"]]


def _curves(spec: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """Forward KL on validation prompts against the optimiser step."""
    curves = []
    for name, seed in _trained(spec):
        points = [(row["step"] + 1, row["probe"]) for row in _log(inputs[f"policy/{name}/{seed}"]) if "probe" in row]
        steps, values = zip(*points, strict=True)
        curves.append({"run": name, "seed": seed, "steps": list(steps), "values": list(values)})
    return curves


def _reliability(calibration: Path, n_seeds: int) -> list[Any]:
    """Both orientations of every pair, so that the diagram does not depend on which response was named first."""
    pairs = tables.read_table(calibration / "calibration.parquet", tables.CALIBRATION)
    size = len(pairs) // n_seeds
    found = []
    for start in range(0, n_seeds * size, size):
        model = [row["p_model"] for row in pairs[start : start + size]]
        found.append(reliability_bins(model + [1 - p for p in model], [1] * size + [0] * size, bins=10))
    return found


def _write_costs(spec: dict[str, Any], inputs: dict[str, Path], out: Path) -> None:
    """What each training took. Seconds and memory are of the machine that ran it and differ from run to run."""
    lines = ["run,seed,steps,examples,tokens,seconds,peak_memory_mib"]
    for name, seed in _trained(spec):
        folder = inputs[f"policy/{name}/{seed}"]
        record, log = provenance(folder), _log(folder)
        examples = len(log) * record["spec"]["optimisation"]["batch_size"]
        tokens, seconds = sum(row["tokens"] for row in log), sum(json.loads((folder / TIMINGS).read_text()))
        memory = record["peak_memory_mib"]
        lines.append(f"{name},{seed},{len(log)},{examples},{tokens:.0f},{seconds:.1f},{memory}")
    (out / "cost.csv").write_text("\n".join(lines) + "\n")


def _write_samples(spec: dict[str, Any], inputs: dict[str, Path], file: Path) -> None:
    """The first sample of each policy for a few held-out prompts."""
    seed = spec["seeds"][0]
    sources = {"π*": inputs["baselines"] / "target.parquet"}
    for name in spec["runs"]:
        title = "π₀" if name == "prior" else name
        sources[title] = inputs[f"evaluation/{name}"] / f"responses-seed{seed}.parquet"
    first = {
        title: {r["prompt_id"]: r["text"] for r in tables.read_table(path, tables.RESPONSES) if r["sample"] == 0}
        for title, path in sources.items()
    }
    prompts = {r["prompt_id"]: r for r in tables.read_table(inputs["text"] / "prompts.parquet", tables.PROMPTS)}
    lines = [
        "# Samples",
        "",
        f"The first sample at T = 1, seed {seed}; the reference is what Python's authors wrote.",
        "",
    ]
    for prompt_id in list(first["π*"])[:SHOWN_PROMPTS]:
        lines += [f"## `{prompts[prompt_id]['prompt']}`", "", "| who | summary line |", "| --- | --- |"]
        lines.append(f"| reference | {_cell(prompts[prompt_id]['reference'])} |")
        lines += [f"| {title} | {_cell(texts[prompt_id])} |" for title, texts in first.items()]
        lines.append("")
    file.write_text("\n".join(lines))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
