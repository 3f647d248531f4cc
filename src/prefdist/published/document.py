"""Published numbers beside ours, in Markdown: docs/published.md, and a page beside the tables of a suite."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from prefdist.published.comparison import RULE, Comparison, compare
from prefdist.published.ours import Releases
from prefdist.published.records import EVIDENCE, Claim, Cost, Table, Work, load_works, words
from prefdist.results.tables import markdown_row

DOCUMENT = Path("docs/published.md")
PAGE = "published.md"
_HEAD = """# Published numbers beside ours

Written by `prefdist published --write` from `workflow/published/*.yaml` and the tables in `results/`; not edited by hand.

"Not run": a suite of ours trains the same model by the same method, and no release of it is in this repository. A suite of
other models, such as a testbed, never stands beside a published number.
"""


def document(root: Path) -> str:
    """All works."""
    releases = Releases(root)
    lines = [_HEAD, RULE, "", "How well a number is known:", ""]
    lines += [f"- **{words(tag)}**: {text}" for tag, text in EVIDENCE.items()]
    for work in load_works(root):
        lines += ["", *_heading(work), *_tables(compare(work, releases)), *_costs(work.costs), *_claims(work.claims)]
        lines += _left_out(work.left_out)
    return "\n".join(lines).rstrip() + "\n"


def suites_of(root: Path) -> set[str]:
    """Suites of ours that some published number or cost stands beside."""
    works = load_works(root)
    rows = {row.ours.suite for work in works for table in work.tables for row in table.rows if row.ours}
    return rows | {cost.suite for work in works for cost in work.costs if cost.suite}


def page(root: Path, suite: str, content: Path | None = None) -> str | None:
    """One suite's rows; None if no published number is its. `content` holds its tables, if they are not released yet."""
    releases = Releases(root, {suite: content} if content else None)
    lines = []
    for work in load_works(root):
        found = compare(work, releases, suite)
        costs = [cost for cost in work.costs if cost.suite == suite]
        if found or costs:
            lines += [*_heading(work), *_tables(found), *_costs(costs)]
    return "\n".join([f"# {suite}: published numbers beside ours", "", RULE, "", *lines]).rstrip() + "\n" if lines else None


def _heading(work: Work) -> list[str]:
    where = f", arXiv {work.arxiv}{work.version or ''}" if work.arxiv else ""
    return [f"## {work.work.upper()}: {work.title}{where}", "", work.known, ""]


def _tables(comparisons: Sequence[Comparison]) -> list[str]:
    lines: list[str] = []
    for _, group in groupby(comparisons, key=lambda one: id(one.table)):
        of_table = list(group)
        lines += [*_table_head(of_table[0].table), *_rows(of_table), ""]
    return lines


def _table_head(table: Table) -> list[str]:
    lines = [f"### {table.table}: {table.title}", ""]
    if table.evidence == "second_hand":
        lines += ["**Second-hand and unverified: these are not known to be the paper's numbers.**", ""]
    lines += [f"Source: {table.source}. {table.protocol}", ""]
    notes = [(metric.title, metric.caveat) for metric in table.metrics.values() if metric.caveat]
    return lines + [f"- {title}: {caveat}" for title, caveat in notes] + [""] * bool(notes)


def _rows(comparisons: Sequence[Comparison]) -> list[str]:
    header = ["model", "method", "metric", "published", "known from", "ours", "difference", "inside?"]
    lines = [markdown_row(header), markdown_row(["---", "---", "---", "---:", "---", "---:", "---:", "---"])]
    for one in comparisons:
        unit = f" ({one.metric.unit})" if one.metric.unit else ""
        cells = [one.row.setting, one.row.method, one.metric.title + unit, _published(one), words(one.table.evidence)]
        lines.append(markdown_row([*cells, _ours(one), _difference(one), one.verdict or "–"]))
    return lines


def _published(one: Comparison) -> str:
    d = one.metric.decimals
    text = f"{one.value:.{d}f}"
    if one.spread is not None:
        text += f" ± {one.spread:.{d}f} (s.d. of {one.metric.seeds} seeds)"
    return text + (f", 95 %: ± {one.half_width:.{d}f}" if one.half_width is not None else "")


def _ours(one: Comparison) -> str:
    if isinstance(one.ours, str):
        return one.ours
    d = one.metric.decimals
    low, high = one.ours["low"], one.ours["high"]
    text = f"{one.ours['estimate']:.{d}f}"
    return text if low != low else f"{text} [{low:.{d}f}, {high:.{d}f}]"  # NaN: no interval


def _difference(one: Comparison) -> str:
    return "–" if one.difference is None else f"{one.difference:+.{one.metric.decimals}f}"


def _costs(costs: Sequence[Cost]) -> list[str]:
    if not costs:
        return []
    lines = ["### What it took", "", "Ours: `prefdist plan <suite> --runs`.", ""]
    lines += [markdown_row(["suite", "methods", "took", "GPU-hours", "known from", "source"])]
    lines += [markdown_row(["---", "---", "---", "---:", "---", "---"])]
    for cost in costs:
        took = f"{f'{cost.hours:g} h of ' if cost.hours else ''}{cost.devices} × {cost.device}"
        took += f" ({cost.note})" if cost.note else ""
        hours = f"{cost.total:.4g}"
        lines.append(markdown_row([cost.suite, ", ".join(cost.methods), took, hours, words(cost.evidence), cost.source]))
    return [*lines, ""]


def _claims(claims: Sequence[Claim]) -> list[str]:
    lines = ["### Statements", ""] if claims else []
    for claim in claims:
        checked = f" Checked here: [{claim.checked}](../{claim.checked})." if claim.checked else ""
        lines.append(f"- {claim.text} ({words(claim.evidence)}: {claim.source}.){checked}")
    return [*lines, ""] if claims else []


def _left_out(texts: Sequence[str]) -> list[str]:
    return ["### Left out", "", *(f"- {text}" for text in texts), ""] if texts else []
