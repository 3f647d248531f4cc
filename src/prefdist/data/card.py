"""The data card of the standard-library text, in Markdown: what it is, where it is from, what was left out and why.

Left out: reading and filtering (`stdlib`), token counts (`tokenizer.token_statistics`).
"""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from prefdist.data.stdlib import LARGEST_SHARE_OF_HELD_OUT, QUANTILES, SAME_REFERENCE_PER_MODULE, SPLITS, Extraction

REASONS = {
    "empty": "the docstring has no prose: a list, an example, only a signature",
    "not_ascii": "a character that is not printable ASCII",
    "boilerplate": "says nothing about the thing: a single word, `Internal function.`, `Constructor.`, a deprecation",
    "not_prose": "notation: a grammar, an operator, a usage line",
    "incomplete": "does not stand alone: ends in a colon or comma, or leaves a parenthesis open",
    "long_reference": "longer than the limit for references",
    "long_prompt": "longer than the limit for prompts, even without parameters",
    "duplicate": "the same prompt was seen before",
    "repeated": f"the same reference occurs {SAME_REFERENCE_PER_MODULE} times already in its top-level module",
    "leak_validation": "a validation reference that train has too",
    "leak_test": "a test reference that train has too",
}
EXAMPLES = 6

_HEAD = """# Data card: signature to summary line, from Python's standard library

**What.** A row is a documented function, method, property or class: the prompt is its module and signature on one
line, the reference is the first sentence of its docstring. It exists to train and align small language models on
real text without a download.

**Source.** The .py files of the standard library of CPython {version}, read with `ast`; nothing was executed. Test
folders, site-packages and functions inside functions were not read.

**Licence.** Code and docstrings are covered by the PSF License Agreement, version 2
(<https://docs.python.org/3/license.html>), copyright Python Software Foundation; a few modules carry their own
notices. Keep this paragraph with copies of the rows.

**Digest.** sha256 `{digest}` of the rows, in order. Another Python version gives
other rows, and so does a distributor's Python that leaves packages out (`tkinter`, `idlelib`, `distutils`).
"""

_LIMITS = f"""## Known limits

- Modules written in C have no source and are absent; their Python twins (`_pydecimal`, `_pyio`, `datetime`) are here.
- Private names are kept: their summaries are real, if terser.
- A summary is one author's wording. Many others would do, and signature and module determine little of it.
- First sentences are found by rule; a few keep a second one (no full stop between) or a usage line.
- A top-level module is in one split as a whole. One larger than {LARGEST_SHARE_OF_HELD_OUT:.0%} of a held-out split
  (`tkinter`, `idlelib`, `asyncio`, ...) is always in train, so that held-out rows under-represent large packages.
- No held-out reference occurs in train up to case and final stop; paraphrases across modules are not searched for.
"""


def data_card(extraction: Extraction, digest: str, tokenizer_stats: Mapping[str, int]) -> str:
    """The card as Markdown; `digest` is that of `stdlib`, `tokenizer_stats` those of `tokenizer.token_statistics`."""
    counts = extraction.counts
    read = ["files_read", "files_unreadable", "classes", "functions", "docstrings"]
    parts = [
        _HEAD.format(version=platform.python_version(), digest=digest),
        "## Counts\n",
        markdown_table(["what", "count"], [[name.replace("_", " "), counts.get(name, 0)] for name in read]),
        "## Dropped\n",
        markdown_table(
            ["reason", "rows", "why"], [[name, counts.get(f"dropped_{name}", 0), REASONS[name]] for name in REASONS]
        ),
        "## Splits\n",
        markdown_table(["split", "rows", "top-level modules"], [_split(extraction, split) for split in SPLITS]),
        "## Lengths\n",
        f"Quantiles over all splits; tokens of a vocabulary of {tokenizer_stats['vocab_size']}, without BOS and EOS.\n",
        markdown_table(["length", *(f"{q} %" for q in QUANTILES)], _lengths({**counts, **tokenizer_stats})),
        "## Examples\n",
        examples(extraction.rows),
        _LIMITS,
    ]
    return "\n".join(parts)


def _split(extraction: Extraction, split: str) -> list[Any]:
    modules = {row["module"].partition(".")[0] for row in extraction.rows if row["split"] == split}
    return [split, extraction.counts.get(f"kept_{split}", 0), len(modules)]


def _lengths(counts: Mapping[str, int]) -> list[list[Any]]:
    kinds = [f"{unit}_{column}" for column in ("prompt", "reference") for unit in ("chars", "tokens")]
    return [[kind.replace("_", ", "), *(counts[f"{kind}_p{q}"] for q in QUANTILES)] for kind in kinds]


def examples(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows at even distances: the same for the same data."""
    places = sorted({(2 * index + 1) * len(rows) // (2 * EXAMPLES) for index in range(EXAMPLES)})
    lines = [f"{rows[place]['prompt']}\n    {rows[place]['reference']}" for place in places]
    return "\n".join(["```text", *lines, "```", ""])


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """A table with one line a row."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
