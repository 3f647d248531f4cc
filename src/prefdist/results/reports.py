"""What `prefdist results diff` and `verify` print. Each returns the exit code: 0 if all agrees, 1 if not."""

from prefdist.results.differences import Difference, differences
from prefdist.results.origins import differing_origins
from prefdist.results.release import Release
from prefdist.results.rerun import rerun
from prefdist.results.verify import verify_release

_SHOWN = 10


def report_diff(a: Release, b: Release) -> int:
    """Cells whose intervals do not overlap, cells in one only, the largest changes, and what was made differently."""
    found = differences(a.path, b.path)
    apart = [one for one in found if one.kind == "apart"]
    single = [one for one in found if one.kind.startswith("only")]
    within = sorted((one for one in found if one.kind == "within"), key=lambda one: -one.size)
    _section("intervals that do not overlap", [one.as_words("a", "b") for one in apart])
    _section("cells in one only", [f"{one.name}: {one.kind}" for one in single])
    more = f", {_SHOWN} of {len(within)}" if len(within) > _SHOWN else ""
    _section(f"largest changes inside overlapping intervals{more}", [one.as_words("a", "b") for one in within[:_SHOWN]])
    _section("made differently", differing_origins(a, b))
    counts = f"{len(found)} cells, {len(apart)} apart, {len(single)} in one only, {len(within)} changed within their intervals"
    differs = bool(apart or single)
    verdict = "differ" if differs else "agree within their intervals" if within else "have the same values"
    print(f"a = {a.folder} and b = {b.folder} {verdict}: {counts}")
    return int(differs)


def report_verdict(release: Release) -> int:
    """Digests and rebuilt tables."""
    verdict = verify_release(release)
    for problem in verdict.problems:
        print(f"{release.folder}: {problem}")
    print(f"rebuilt from metric rows, {verdict.cells} cells: {', '.join(verdict.rebuilt) or 'nothing, it has no rows'}")
    print(f"checked by digest alone: {', '.join(verdict.by_digest)}")
    found = f"{len(verdict.problems)} problems" if verdict.problems else "every file and cell is what was released"
    print(f"{release.folder}: {found}")
    return int(bool(verdict.problems))


def report_rerun(release: Release, cores: int) -> int:
    """Cell by cell, whether what was made anew falls inside the released interval."""
    found = rerun(release, cores)
    for one in found:
        print(f"{_place(one):>7}  {one.as_words('released', 'now')}")
    inside, equal = (sum(test(one) for one in found) for test in (_inside, lambda one: one.kind == "equal"))
    print(f"{release.folder}: {inside} of {len(found)} cells fall inside their released intervals, {equal} of them equal")
    return int(inside < len(found))


def _inside(one: Difference) -> bool:
    return one.kind == "equal" or one.contained


def _place(one: Difference) -> str:
    return "equal" if one.kind == "equal" else "inside" if one.contained else "outside"


def _section(title: str, lines: list[str]) -> None:
    if lines:
        print("\n    ".join([f"{title}:", *lines]))
