"""A stage's code digest moves when its code does, and only then."""

import ast
from pathlib import Path

import pytest

from prefdist import code

PACKAGE = Path(code.__file__).parent

SEAMS = {
    "bench/worker.py",  # each measurement pays for one side only
    "commands",  # a command pays only for what it uses
    "config",  # objective rows are read while a suite is checked
    "training/terms.py",  # the KL surrogate; plan.py names its module for regularised rows
}
"""Where a module of the project may be imported inside a function: code digests do not see it."""


def test_imports_inside_functions_stand_only_at_the_named_seams():
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prefdist"):
                        found.add(str(file.relative_to(PACKAGE)))
    assert {file.split("/")[0] if file.startswith(("commands/", "config/")) else file for file in found} <= SEAMS


@pytest.fixture
def package(tmp_path, monkeypatch):
    """a imports b at top level and c inside a function."""
    folder = tmp_path / "prefdist"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from prefdist import b\n\ndef f():\n    from prefdist import c\n    return b.x, c\n")
    (folder / "b.py").write_text('"""Docs."""\nx = 1  # one\n')
    (folder / "c.py").write_text("y = 1\n")
    monkeypatch.setattr(code, "SOURCE", tmp_path)

    def digest():
        for cached in (code.import_closure, code._tree, code._module_digest):
            cached.cache_clear()
        return code.code_digest("prefdist.a")

    yield folder, digest
    monkeypatch.undo()
    for cached in (code.import_closure, code._tree, code._module_digest):
        cached.cache_clear()


def test_digest_follows_imports_but_not_comments_docstrings_or_seams(package):
    folder, digest = package
    before = digest()
    (folder / "b.py").write_text('"""Other docs."""\n\nx = 1  # still one\n')
    assert digest() == before
    (folder / "c.py").write_text("y = 2\n")
    assert digest() == before
    (folder / "b.py").write_text("x = 2\n")
    assert digest() != before


def test_imports_point_one_way():
    """objectives imports nothing of ours; training, sampling, scoring and objectives never import the CLI or results."""
    for file in (PACKAGE / "objectives").glob("*.py"):
        for name in code._top_level_imports(f"prefdist.objectives.{file.stem}"):
            assert name.startswith("prefdist.objectives"), file
    for stage in ("prefdist.training.stage", "prefdist.evaluation.policy", "prefdist.scoring.preferences"):
        closure = code.import_closure(stage)
        assert not {
            name
            for name in closure
            if name.startswith(("prefdist.cli", "prefdist.commands", "prefdist.results", "prefdist.plan"))
        }
