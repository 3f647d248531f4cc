"""Cells of two tables compared: by their intervals, exactly where they have none, and which table lacks one."""

from pathlib import Path
from typing import Any

from prefdist.results.differences import differences, read_cells
from prefdist.results.tables import COLUMNS


def test_differences_by_kind(tmp_path: Path) -> None:
    """Touching intervals overlap; points are exact up to rounding; a cell of one table only is named."""
    a, b = tmp_path / "a", tmp_path / "b"

    def write(folder: Path, *cells: tuple[Any, ...]) -> None:
        folder.mkdir(exist_ok=True)
        lines = [",".join(COLUMNS), *(",".join(map(str, (*cell, 1, 1, 1, 0))) for cell in cells)]
        (folder / "table.csv").write_text("\n".join(lines) + "\n")
        (folder / "cost.csv").write_text(f"run,seconds\nx,{folder.name}\n")

    write(
        a,
        ("x", "kl", 2, 1, 3),
        ("y", "kl", 2, 1, 3),
        ("z", "kl", 0.5, "", ""),
        ("u", "kl", 0.5, "", ""),
        ("v", "kl", "", "", ""),
    )
    write(
        b,
        ("x", "kl", 4, 3, 5),
        ("y", "kl", 5, 4, 6),
        ("z", "kl", 0.50001, "", ""),
        ("u", "kl", 0.501, "", ""),
        ("w", "kl", 1, 0, 2),
    )
    found = {one.name: one.kind for one in differences(a, b)}
    assert found == {
        "table.csv: x / kl": "within",
        "table.csv: y / kl": "apart",
        "table.csv: z / kl": "within",
        "table.csv: u / kl": "apart",
        "table.csv: v / kl": "only in a",
        "table.csv: w / kl": "only in b",
    }
    inside = {one.name: one.contained for one in differences(a, b)}
    assert [name for name, contained in inside.items() if contained] == ["table.csv: z / kl"]  # x: 4 is outside [1, 3]


def test_tables_without_intervals_have_a_cell_a_number(tmp_path: Path) -> None:
    for name, verdict, error in (("a", "equal", 3e-16), ("b", "equal", 7e-16), ("c", "different", 0.3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "optima.csv").write_text(f"objective,changed,tv,verdict\ndpo,,{error},{verdict}\n")
    (cell,) = read_cells(tmp_path / "a/optima.csv")
    assert (cell["run"], cell["metric"], cell["estimate"]) == ("dpo, equal", "tv", 3e-16)
    assert [one.kind for one in differences(tmp_path / "a", tmp_path / "b")] == ["within"]  # rounding
    assert [one.kind for one in differences(tmp_path / "a", tmp_path / "c")] == ["only in a", "only in b"]
