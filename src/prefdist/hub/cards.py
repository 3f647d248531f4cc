"""Model and data cards from provenance: what it is, how it was made, from what, what was measured, what it is not for."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from prefdist.hub.measured import Measured
from prefdist.hub.origins import STDLIB_LICENCE, Origins
from prefdist.hub.parcel import Parcel
from prefdist.results.tables import CAPTION, Cell, markdown_row

_HUB = "https://huggingface.co"
_LINKS = {STDLIB_LICENCE: "https://docs.python.org/3/license.html"}
_FOR = {
    "model": "Research on preference alignment: to repeat or compare the run that made it. It is not for use by the public, "
    "not a source of facts or advice, and no claim about any other model. It was not tested for safety, and optimisation of a "
    "reward may have taught it to please that reward.",
    "dataset": "Research on preference alignment: to repeat or compare what was made from it. Texts that a model wrote are not "
    "checked for truth or offence, and labels that a model gave are not those of people.",
}
_FOR["adapter"] = _FOR["model"]


def card(parcel: Parcel, repo: str, licence: str, origins: Origins, found: Sequence[Measured], base: str | None) -> str:
    """README.md of a repository; `base` is the model that an adapter names, `found` where the model was measured."""
    record = parcel.record
    parts = [_metadata(parcel, licence, origins, base), f"# {repo.partition('/')[2]}", "", _what(parcel), ""]
    if parcel.kind == "dataset":
        parts += _tables(parcel)
        if "card.md" in parcel.files:
            parts += ["## The text", "", parcel.files["card.md"].read_text().replace("\n#", "\n##").lstrip("# "), ""]
    parts += ["## How it was made", "", *_made(record), "", "## Made from", "", *_sources(record, origins, base), ""]
    if parcel.kind != "dataset":
        parts += ["## Measured", "", *_measured(found), ""]
    parts += ["## What it is for, and what not", "", _FOR[parcel.kind], "", "## Get it", "", _get(parcel, repo, base)]
    return "\n".join(parts)


def _metadata(parcel: Parcel, licence: str, origins: Origins, base: str | None) -> str:
    objective = parcel.record["spec"].get("objective") or {}
    bases = [base] if base else sorted(origins.models)
    content: dict[str, Any] = {"license": "other" if licence in _LINKS else licence}
    if licence in _LINKS:
        content |= {"license_name": licence, "license_link": _LINKS[licence]}
    if parcel.kind == "dataset":
        tables = [name for name in parcel.files if name.endswith(".parquet")]
        content["configs"] = [{"config_name": Path(name).stem, "data_files": name} for name in sorted(tables)]
    else:
        content["library_name"] = "peft" if parcel.kind == "adapter" else "transformers"
        scores = (objective.get("score") or {}).get("of") == "reward"
        content["pipeline_tag"] = "text-classification" if scores else "text-generation"
        if bases:
            content["base_model"] = bases
            content["base_model_relation"] = "adapter" if parcel.kind == "adapter" else "finetune"
        if origins.datasets:
            content["datasets"] = sorted(origins.datasets)
    content["tags"] = ["prefdist", "preference-alignment"]
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n"


def _what(parcel: Parcel) -> str:
    record = parcel.record
    objective = record["spec"].get("objective") or {}
    what = {"model": "A model", "adapter": "A low-rank adapter", "dataset": "Tables"}[parcel.kind]
    by = f", trained with {objective['title']}" if objective.get("title") else ""
    return f"{what}{by}: the artefact `{record['name']}` of stage `{record['stage']}` of prefdist."


def _tables(parcel: Parcel) -> list[str]:
    lines = ["## Tables", "", markdown_row(["file", "rows", "columns"]), markdown_row(["---", "---:", "---"])]
    for name, file in sorted(parcel.files.items()):
        if name.endswith(".parquet"):
            read = pq.read_metadata(file)
            columns = ", ".join(pq.read_schema(file).names)
            lines.append(markdown_row([name, str(read.num_rows), columns]))
    return [*lines, ""]


def _made(record: dict[str, Any]) -> list[str]:
    environment = record["environment"]
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items() if number != "absent")
    rows = {
        "artefact": f"{record['stage']}/{record['name']}-{record['digest']}",
        "digest of its code": record["code"],
        "Python": environment["python"],
        "packages": packages,
        "device": environment["device"],
        "container": environment.get("container") or "none",
        "wall time": f"{record['wall_seconds']:.0f} s",
    }
    lines = [markdown_row(["what", "value"]), markdown_row(["---", "---"])]
    lines += [markdown_row([name, str(value)]) for name, value in rows.items()]
    specification = json.dumps(record["spec"], indent=1, ensure_ascii=False, sort_keys=True)
    return [*lines, "", "Its whole specification:", "", "```json", specification, "```"]


def _sources(record: dict[str, Any], origins: Origins, base: str | None) -> list[str]:
    lines = [f"- base: [{base}]({_HUB}/{base})"] if base else []
    lines += [f"- model [{name}]({_HUB}/{name}), commit {commit}" for name, commit in origins.models.items()]
    lines += [f"- dataset [{name}]({_HUB}/datasets/{name}), commit {commit}" for name, commit in origins.datasets.items()]
    texts = {"stdlib": "docstrings of Python's standard library", "arithmetic": "generated word problems"}
    lines += [f"- {texts.get(kind, kind)}" for kind in sorted(origins.texts)]
    inputs = sorted(record["inputs"].items())
    lines += [f"- {role}: {Path(source['path']).name}, content {source['content']}" for role, source in inputs]
    return lines or ["- nothing but what its specification says"]


def _measured(found: Sequence[Measured]) -> list[str]:
    if not found:
        return ["No release of the repository that made it has measured it."]
    lines = []
    for one in found:
        lines += [f"As run `{one.run}` of {one.release.folder}, over all its seeds. {CAPTION}", ""]
        lines += [markdown_row(["metric", "estimate", "prompts", "seeds"]), markdown_row(["---", "---:", "---:", "---:"])]
        lines += [
            markdown_row([cell["metric"], _estimate(cell), str(cell["n_prompts"]), str(cell["n_seeds"])]) for cell in one.cells
        ]
        lines.append("")
    return lines[:-1]


def _estimate(cell: Cell) -> str:
    interval = "" if math.isnan(cell["low"]) else f" [{cell['low']:.4g}, {cell['high']:.4g}]"
    return f"{cell['estimate']:.4g}{interval}"


def _get(parcel: Parcel, repo: str, base: str | None) -> str:
    kind = " --dataset" if parcel.kind == "dataset" else ""
    lines = [f"    prefdist hub pull {repo}{kind}", "", "checks every file against `prefdist.json`. Without prefdist:", ""]
    if parcel.kind == "dataset":
        lines.append(f'    datasets.load_dataset("{repo}", "<table>")')
    elif parcel.kind == "adapter":
        lines.append(f'    model = transformers.AutoModelForCausalLM.from_pretrained("{base}")')
        lines.append(f'    model = peft.PeftModel.from_pretrained(model, "{repo}")')
    else:
        lines.append(f'    transformers.AutoModel.from_pretrained("{repo}")')
    return "\n".join(lines) + "\n"
