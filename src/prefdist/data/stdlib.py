"""Signature -> summary line, from the source files of the running interpreter's own standard library.

Inside: reading the files with `ast` (nothing is imported or executed), one-line signatures, the docstring's first
sentence, filters with a count for each reason, and splits that keep whole top-level modules together.
Left out: modules written in C (they have no source), functions nested in functions (no reader of the documentation
sees them), test folders, site-packages, module docstrings. The content changes with the Python version: pin `digest`.
"""

import ast
import hashlib
import inspect
import json
import re
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.errors import UserError

SPLITS = ("train", "validation", "test")
QUANTILES = (50, 75, 90, 95, 100)
SAME_REFERENCE_PER_MODULE = 3  # overriding methods copy their docstring: more copies teach nothing new
LARGEST_SHARE_OF_HELD_OUT = 0.25  # of a held-out split, for one top-level module: see _assign
LONGEST_DEFAULT = 6  # characters: None, False, 'utf8' stay readable; anything longer tells little about the summary
SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})

# A stop ends a sentence when a blank and what can open another one follow; not after an abbreviation.
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bcf)[.!?]\s+(?=[A-Z\"'`*(<\[])")
# Where the prose of a paragraph ends: bullets, doctests, field lists, code, or a new sentence after a forgotten stop.
_NOT_PROSE_LINE = re.compile(r"\s|[-*+=>:@|]|\d+[.)]\s|\w+:\s*$")
_NEW_SENTENCE_LINE = re.compile(r"(Returns?|Raises?|Called|Notes?|Examples?|Args|Arguments|Parameters)\b")
# Grammars, operators, usage lines of commands: they start with no word, or with a call, or define something.
_NOT_PROSE = re.compile(r"[^A-Za-z]|[\w.]+\(|[\w-]+ ([\[|=]|- )|.*(<==>|=>|->)")
_BOILERPLATE = re.compile(
    r"see (?!if|whether)|internal( \w+)?\.?$|todo|xxx|fixme|overrid|dummy |stub |not sure|deprecated|constructor"
    r"|(initiali[sz]e|return) (self|a new instance|instance)\.?$|same as (above|super)|test program|typical usage"
    r"|helper( \w+)?\.?$|.*\bdocstring of\b|inherited ",
    re.IGNORECASE,
)
LARGEST_SYMBOL_SHARE = 0.08  # of the characters, beside punctuation of prose: above, it is notation

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Extraction:
    """rows: columns of `tables.PROMPTS`, ordered by file and place in it; counts: what was read, dropped and kept."""

    rows: list[dict[str, Any]]
    counts: dict[str, int]


@dataclass(frozen=True)
class _Candidate:
    module: str
    prompt: str
    reference: str

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def extract(
    *,
    fractions: Mapping[str, float],
    seed: int,
    max_reference_chars: int = 100,
    max_prompt_chars: int = 120,
    root: Path | None = None,
) -> Extraction:
    """Every documented function, method, property and class below `root` (default: the interpreter's library).

    `fractions` gives the share of rows of train, validation and test; whole top-level modules are assigned, so the
    shares are met approximately. No reference of validation or test occurs in train, up to case and final stop.
    UserError if `fractions` is no distribution over the splits, or if nothing documented was found.
    """
    if set(fractions) != set(SPLITS) or min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-9:
        raise UserError(f"fractions must be non-negative, sum to 1 and name {', '.join(SPLITS)}: got {dict(fractions)}")
    folder = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    counts: Counter[str] = Counter()
    candidates = list(_unique(_candidates(folder, max_reference_chars, max_prompt_chars, counts), counts))
    if not candidates:
        raise UserError(f"{folder}: no documented Python source found; an interpreter with its .py files is needed")
    split_of = _assign(Counter(candidate.top for candidate in candidates), fractions, seed)
    train = {_normal(c.reference) for c in candidates if split_of[c.top] == "train"}
    rows = []
    for candidate in candidates:
        split = split_of[candidate.top]
        if split != "train" and _normal(candidate.reference) in train:
            counts[f"dropped_leak_{split}"] += 1
            continue
        counts[f"kept_{split}"] += 1
        rows.append(_row(candidate, split))
    for column in ("prompt", "reference"):
        counts.update(length_quantiles(f"chars_{column}", [len(row[column]) for row in rows]))
    return Extraction(rows, dict(counts))


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """sha256 of the rows as JSON lines with sorted keys: equal if and only if the content and its order are."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(dict(row), sort_keys=True).encode() + b"\n")
    return sha.hexdigest()


def length_quantiles(prefix: str, lengths: Sequence[int]) -> dict[str, int]:
    """`{prefix}_p50` and so on: the smallest observed length that at least that share of the lengths does not pass."""
    ordered = sorted(lengths)
    return {f"{prefix}_p{q}": ordered[-(-q * len(ordered) // 100) - 1] for q in QUANTILES} if ordered else {}


def _candidates(root: Path, max_reference: int, max_prompt: int, counts: Counter[str]) -> Iterator[_Candidate]:
    for path in _source_files(root):
        try:
            with warnings.catch_warnings(), tokenize.open(path) as file:
                warnings.simplefilter("ignore")  # invalid escapes in other people's strings
                tree = ast.parse(file.read())
        except (OSError, SyntaxError, ValueError):  # UnicodeDecodeError and null bytes are ValueErrors
            counts["files_unreadable"] += 1
            continue
        counts["files_read"] += 1
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for owner, node in _definitions(tree, ()):
            counts["classes" if isinstance(node, ast.ClassDef) else "functions"] += 1
            docstring = ast.get_docstring(node)
            if docstring is None:
                continue
            counts["docstrings"] += 1
            prompt = f"{module}: {signature(node, owner, max_prompt - len(module) - 2)}"
            reference = summary_line(docstring, node.name)
            reason = _fault(prompt, reference, max_prompt, max_reference)
            if reason:
                counts[f"dropped_{reason}"] += 1
            else:
                yield _Candidate(module, prompt, reference)


def _fault(prompt: str, reference: str, max_prompt: int, max_reference: int) -> str:
    """Why a pair is left out, or an empty string."""
    symbols = len(re.findall(r"[^\w\s.,'\"()-]", reference))
    faults = {
        "empty": not reference,
        "not_ascii": not (prompt.isascii() and reference.isascii() and reference.isprintable()),
        "boilerplate": len(reference.split()) < 2 or bool(_BOILERPLATE.match(reference)),
        "not_prose": bool(_NOT_PROSE.match(reference)) or symbols > LARGEST_SYMBOL_SHARE * len(reference),
        "incomplete": reference.endswith((":", ",", ";", "..")) or reference.count("(") != reference.count(")"),
        "long_reference": len(reference) > max_reference,
        "long_prompt": len(prompt) > max_prompt,
    }
    return next((reason for reason, found in faults.items() if found), "")


def summary_line(docstring: str, name: str) -> str:
    """First sentence of the first paragraph, on one line, without a leading `name(...) -> type:`; '' if there is none.

    A first paragraph that is only the signature gives way to the second.
    """
    heading = re.compile(rf"\A(?:\w+\.)?{re.escape(name)}(?:\([^()]*\))?(?:\s*->\s*[\w\[\], ]+?)?(?:\s+--?\s+|:\s+|\.?$)")
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring))[:2]:
        prose: list[str] = []
        for line in paragraph.splitlines():
            if _NOT_PROSE_LINE.match(line) or (prose and _NEW_SENTENCE_LINE.match(line)):
                break
            prose.append(line)
        text = heading.sub("", " ".join(" ".join(prose).split()), count=1)
        if text:
            end = _SENTENCE_END.search(text)
            return text[: end.start() + 1] if end else text
    return ""


def _source_files(root: Path) -> Iterator[Path]:
    """Importable .py files in a fixed order; folders such as config-3.11-x86_64 hold build scripts, not modules."""
    for entry in sorted(root.iterdir() if root.is_dir() else ()):
        if not entry.stem.isidentifier() or entry.name in SKIPPED_FOLDERS:
            continue
        if entry.is_dir():
            yield from _source_files(entry)
        elif entry.suffix == ".py":
            yield entry


def _definitions(node: ast.AST, owner: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Definition]]:
    """Classes, functions and methods in source order, through if, try and with, but not into function bodies."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield owner, child
        if isinstance(child, ast.ClassDef):
            yield from _definitions(child, (*owner, child.name))
        elif isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _definitions(child, owner)


def signature(node: Definition, owner: tuple[str, ...], max_chars: int) -> str:
    """One line, as documentation shows it: qualified name, no self, no annotations, long defaults as `...`.

    Parameters are dropped from the right, for one `...`, until the line fits; the name always stays.
    """
    name = ".".join((*owner, node.name))
    if isinstance(node, ast.ClassDef):
        keyword, items = "class", [base for base in map(ast.unparse, node.bases) if base != "object"]
        if not items:
            return f"class {name}"
    else:
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
        if decorators & {"property", "cached_property", "abstractproperty"}:
            return f"property {name}"
        keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        items = _parameters(node.args, bound=bool(owner) and "staticmethod" not in decorators)
    line = f"{keyword} {name}({', '.join(items)})"
    while len(line) > max_chars and items:
        items = items[:-1]
        line = f"{keyword} {name}({', '.join([*items, '...'])})"
    return line


def _parameters(args: ast.arguments, bound: bool) -> list[str]:
    positional = [*args.posonlyargs, *args.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    items = [_parameter(arg, default) for arg, default in zip(positional, [*missing, *args.defaults], strict=True)]
    if args.posonlyargs:
        items.insert(len(args.posonlyargs), "/")
    if bound and positional:
        items = items[2:] if items[1:2] == ["/"] else items[1:]  # self; a slash that followed it has nothing left
    if args.vararg:
        items.append(f"*{args.vararg.arg}")
    elif args.kwonlyargs:
        items.append("*")
    items += [_parameter(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return [*items, f"**{args.kwarg.arg}"] if args.kwarg else items


def _parameter(arg: ast.arg, default: ast.expr | None) -> str:
    if default is None:
        return arg.arg
    value = ast.unparse(default)
    return f"{arg.arg}={value if len(value) <= LONGEST_DEFAULT else '...'}"


def _unique(candidates: Iterable[_Candidate], counts: Counter[str]) -> Iterator[_Candidate]:
    """The first of every prompt, and at most a few rows with the same reference in a top-level module."""
    prompts: set[str] = set()
    references: Counter[tuple[str, str]] = Counter()
    for candidate in candidates:
        key = (candidate.top, _normal(candidate.reference))
        if candidate.prompt in prompts:
            counts["dropped_duplicate"] += 1
        elif references[key] == SAME_REFERENCE_PER_MODULE:
            counts["dropped_repeated"] += 1
        else:
            prompts.add(candidate.prompt)
            references[key] += 1
            yield candidate


def _assign(sizes: Mapping[str, int], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Modules in the order of a seeded hash; each goes to the first of test, validation with room for it, else train.

    A hash alone would miss the fractions by far, since ten modules hold a third of the rows. A module larger than a
    quarter of a split never goes there, so that no interval over held-out prompts hangs on one author's style.
    """
    total = sum(sizes.values())
    room = {split: round(fractions[split] * total) for split in ("test", "validation")}
    largest = {split: LARGEST_SHARE_OF_HELD_OUT * size for split, size in room.items()}
    assigned = {}
    for module in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        fits = (split for split in room if sizes[module] <= min(room[split], largest[split]))
        assigned[module] = split = next(fits, "train")
        if split in room:
            room[split] -= sizes[module]
    return assigned


def _normal(reference: str) -> str:
    return reference.casefold().rstrip(" .!")


def _row(candidate: _Candidate, split: str) -> dict[str, Any]:
    identity = hashlib.sha256(f"{candidate.module}\0{candidate.prompt}".encode()).hexdigest()[:16]
    return {
        "prompt_id": identity,
        "module": candidate.module,
        "split": split,
        "prompt": candidate.prompt,
        "reference": candidate.reference,
    }
