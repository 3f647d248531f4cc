"""Digests of code: what a stage's source is, comments and docstrings apart, with everything that it imports.

A stage depends on its module and on the project's modules that this one imports at top level, transitively. An import
inside a function is a seam: what stands behind it is named by whoever chooses it (plan.py names the objective's family),
so that a change in one family re-runs only its trainings. A test holds such imports to the few places that need them.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent


def code_digest(*modules: str) -> str:
    """12 hex digits over the modules' import closure."""
    closure = sorted(set().union(*(import_closure(module) for module in modules)))
    text = "\n".join(f"{module} {_module_digest(module)}" for module in closure)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def import_closure(module: str) -> frozenset[str]:
    """The module and the project's modules it imports at top level, transitively."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _top_level_imports(name)
    return frozenset(found)


def _file(module: str) -> Path:
    base = SOURCE.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text())


def _top_level_imports(module: str) -> list[str]:
    names = []
    for node in _tree(module).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.append(inner if _file(inner).is_file() else node.module)
    return [name for name in names if name.split(".")[0] == "prefdist" and _file(name).is_file()]


@cache
def _module_digest(module: str) -> str:
    tree = ast.parse(_file(module).read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
