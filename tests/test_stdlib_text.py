"""Rows from a small tree whose values are derived by hand, and the properties that hold on the real library."""

import ast
from pathlib import Path

import pytest

from prefdist.data.card import REASONS, data_card
from prefdist.data.stdlib import Extraction, digest, extract, length_quantiles, signature, summary_line
from prefdist.data.tables import PROMPTS, read_table, write_table
from prefdist.errors import UserError

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
ALL_TRAIN = {"train": 1.0, "validation": 0.0, "test": 0.0}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def pairs(extraction: Extraction) -> list[tuple[str, str]]:
    return [(row["prompt"], row["reference"]) for row in extraction.rows]


@pytest.mark.parametrize(
    ("source", "owner", "line"),
    [
        ("def f(a, b=1, *args, c, d='utf-8', **kw): ...", (), "def f(a, b=1, *args, c, d=..., **kw)"),
        ("def f(a: int, /, *, b: str = None) -> int: ...", (), "def f(a, /, *, b=None)"),
        ("def f(self, x): ...", ("A", "B"), "def A.B.f(x)"),
        ("def f(self, /, x): ...", ("A",), "def A.f(x)"),
        ("def f(self, x, /, y): ...", ("A",), "def A.f(x, /, y)"),
        ("def f(*args): ...", ("A",), "def A.f(*args)"),
        ("@staticmethod\ndef f(x): ...", ("A",), "def A.f(x)"),
        ("@functools.cached_property\ndef f(self): ...", ("A",), "property A.f"),
        ("async def f(self): ...", ("A",), "async def A.f()"),
        ("class C: ...", ("A",), "class A.C"),
        ("class C(object): ...", (), "class C"),
        ("class C(a.B, D, metaclass=M): ...", (), "class C(a.B, D)"),
        ("def f(first, second, third, fourth, fifth, sixth): ...", (), "def f(first, second, third, fourth, ...)"),
    ],
)
def test_signature(source: str, owner: tuple[str, ...], line: str) -> None:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    assert signature(node, owner, max_chars=40) == line


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Open it.", "Open it."),
        ("Open  it\n    at once.\n\n    More.", "Open it at once."),
        ("Open it. Then close it.", "Open it."),
        ("Open a file, e.g. A or i.e. B.", "Open a file, e.g. A or i.e. B."),
        ("Open version 3.11 of it", "Open version 3.11 of it"),
        ("Open it\nReturns None", "Open it"),
        ("Open it\n- or not\n", "Open it"),
        ("f(a, b) -> list\n\nOpen it.", "Open it."),
        ("f(a, b) -> None.  Open it.", "f(a, b) -> None."),  # not a heading: dropped later as notation
        ("f(a) -- Open it.", "Open it."),
        ("Reopen by f(a)", "Reopen by f(a)"),
        (">>> f()\n1", ""),
    ],
)
def test_summary_line(docstring: str, summary: str) -> None:
    assert summary_line(docstring, "f") == summary


def test_rows_and_counts_of_a_small_tree(tmp_path: Path) -> None:
    source = '''
class Box(Base):
    """A box of things."""
    def put(self, thing, where="on the top"):
        """Put a thing
        into the box. Return nothing."""
        def inner():
            """Never read by anyone."""
    def take(self):
        """Constructor."""
    def count(self):
        """Count the following:"""
    def add(self, other):
        """self + other"""
    def look(self):
        """Look at %s"""
    def name(self):
        """Nenne den Schl\u00fcssel."""
if True:
    def late():
        """Found below a condition."""
else:
    def late():
        """Another summary of it."""
def bare(): ...
''' % ("x" * 100)
    root = tree(
        tmp_path,
        {
            "pack/__init__.py": source,
            "pack/sub.py": "".join(f'def f{i}():\n    """The same words."""\n' for i in range(5)),
            "pack/tests/test_it.py": 'def f():\n    """In a test folder."""',
            "pack-3.11/build.py": 'def f():\n    """Not a module."""',
            "broken.py": "def f(:",
            "latin.py": "# coding: no-such-codec",
        },
    )
    result = extract(fractions=ALL_TRAIN, seed=0, root=root)
    assert pairs(result) == [
        ("pack: class Box(Base)", "A box of things."),
        ("pack: def Box.put(thing, where=...)", "Put a thing into the box."),
        ("pack: def late()", "Found below a condition."),
        *((f"pack.sub: def f{i}()", "The same words.") for i in range(3)),
    ]
    expected = {
        "files_read": 2,
        "files_unreadable": 2,
        "classes": 1,
        "functions": 14,
        "docstrings": 14,
        "kept_train": 6,
    }
    reasons = ["boilerplate", "incomplete", "not_prose", "long_reference", "not_ascii", "duplicate"]
    expected |= {f"dropped_{reason}": 1 for reason in reasons} | {"dropped_repeated": 2}
    assert {key: value for key, value in result.counts.items() if not key.startswith("chars_")} == expected
    assert result.rows[0]["module"] == "pack"
    assert result.rows[-1]["module"] == "pack.sub"
    assert all(len(row["prompt"]) <= 20 for row in extract(fractions=ALL_TRAIN, seed=0, root=root, max_prompt_chars=20).rows)


def test_held_out_references_do_not_occur_in_train(tmp_path: Path) -> None:
    """Twenty modules of two rows; one reference is common to all of them, so only train may keep it."""
    names = [f"m{i}" for i in range(20)]
    text = 'def a():\n    """Shared by all{stop}"""\ndef b():\n    """Only in {name}."""'
    root = tree(tmp_path, {f"{n}.py": text.format(name=n, stop="." if n < "m5" else "") for n in names})
    result = extract(fractions={"train": 0.6, "validation": 0.2, "test": 0.2}, seed=1, root=root)
    assert result.counts["kept_train"] == 24
    for split in ("validation", "test"):
        kept = [row for row in result.rows if row["split"] == split]
        assert len(kept) == result.counts[f"kept_{split}"] == result.counts[f"dropped_leak_{split}"] == 4
        assert all(row["reference"] == f"Only in {row['module']}." for row in kept)


def test_problems_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sum to 1"):
        extract(fractions={"train": 0.5, "validation": 0.1, "test": 0.1}, seed=0, root=tmp_path)
    with pytest.raises(UserError, match="no documented Python source"):
        extract(fractions=FRACTIONS, seed=0, root=tmp_path / "absent")


def test_length_quantiles() -> None:
    expected = {"n_p50": 2, "n_p75": 3, "n_p90": 4, "n_p95": 4, "n_p100": 4}
    assert length_quantiles("n", [4, 3, 2, 1]) == expected
    assert length_quantiles("n", []) == {}


def test_the_real_library(library: Extraction, tmp_path: Path) -> None:
    rows = library.rows
    by_split = {split: [row for row in rows if row["split"] == split] for split in FRACTIONS}
    assert len(by_split["train"]) >= 4000
    modules = {split: {row["module"].split(".")[0] for row in part} for split, part in by_split.items()}
    references = {split: {row["reference"] for row in part} for split, part in by_split.items()}
    for split in ("validation", "test"):
        assert 0.07 < len(by_split[split]) / len(rows) < 0.11
        assert len(modules[split]) >= 8
        assert not references["train"] & references[split]
    assert not (modules["train"] & modules["test"] | modules["train"] & modules["validation"])
    assert not modules["validation"] & modules["test"]
    assert len({row["prompt_id"] for row in rows}) == len({row["prompt"] for row in rows}) == len(rows)
    assert all(len(row["prompt"]) <= 120 and 2 < len(row["reference"]) <= 100 for row in rows)
    assert ("statistics: def median(data)", "Return the median (middle value) of numeric data.") in pairs(library)
    dropped = sum(count for key, count in library.counts.items() if key.startswith("dropped_"))
    assert len(rows) + dropped == library.counts["docstrings"]
    write_table(tmp_path / "prompts.parquet", rows, PROMPTS)
    assert read_table(tmp_path / "prompts.parquet", PROMPTS) == rows


def test_the_seed_alone_decides_the_split(tmp_path: Path) -> None:
    root = tree(tmp_path, {f"m{i}.py": f'def f():\n    """Number {i}."""' for i in range(40)})
    first, again, other = (extract(fractions=FRACTIONS, seed=seed, root=root) for seed in (0, 0, 1))
    assert first == again
    assert pairs(first) == pairs(other)
    assert [row["prompt_id"] for row in first.rows] == [row["prompt_id"] for row in other.rows]
    assert [row["split"] for row in first.rows] != [row["split"] for row in other.rows]


def test_digest_depends_on_content_and_order_of_rows_only(library: Extraction) -> None:
    rows = library.rows
    assert digest(rows) == digest([dict(reversed(row.items())) for row in rows])
    assert len({digest(rows), digest(rows[::-1]), digest(rows[1:]), digest([*rows[:-1], rows[-1] | {"split": ""}])}) == 4


def test_card(library: Extraction) -> None:
    statistics = {f"tokens_{column}_p{q}": q for column in ("prompt", "reference") for q in (50, 75, 90, 95, 100)}
    card = data_card(library, "abc123", statistics | {"vocab_size": 1024})
    assert "`abc123`" in card
    assert f"| train | {library.counts['kept_train']} |" in card
    assert "| tokens, prompt | 50 | 75 | 90 | 95 | 100 |" in card
    assert card.count("\n    ") == 6
    assert {key.removeprefix("dropped_") for key in library.counts if key.startswith("dropped_")} <= set(REASONS)
