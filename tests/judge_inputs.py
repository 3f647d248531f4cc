"""Small folders of prompts and answers for judges, and how a test judges them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judge_servers import completion

from prefdist.data import tables
from prefdist.judging import stage
from prefdist.judging.schemas import JUDGEMENTS

Row = dict[str, Any]
KEY = "sk-test-0123456789abcdef-do-not-print"
PRICES = {"input": 10.0, "output": 30.0}
COST = 0.0013
"""Of a reply of 100 and 10 tokens at these prices."""


def write_prompts(folder: Path, prompts: dict[str, str], references: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {"prompt_id": name, "module": "m", "split": "test", "prompt": text, "reference": (references or {}).get(name, "")}
        for name, text in prompts.items()
    ]
    tables.write_table(folder / "prompts.parquet", rows, tables.PROMPTS)
    return folder


def write_answers(folder: Path, answers: dict[str, Sequence[str]]) -> Path:
    """Samples of each prompt, with made-up ids."""
    folder.mkdir(parents=True)
    rows = [
        {
            "prompt_id": name,
            "sample": k,
            "token_ids": [7, 8],
            "text": text,
            "finish_reason": "stop",
            "n_tokens": 2,
            "logp": -1.0,
            "logq": -1.0,
        }
        for name, texts in answers.items()
        for k, text in enumerate(texts)
    ]
    tables.write_table(folder / "draws.parquet", rows, tables.DRAWS)
    return folder


def endpoint(url: str, protocol: str = "tldr", **settings: Any) -> Row:
    """A specification of the stage, with an endpoint that gives up soon."""
    orders = settings.pop("orders", "both")
    judge = {"kind": "endpoint", "base_url": url, "model": "judge", "key_variable": None, "timeout": 20.0, "attempts": 3}
    return {"run": "dpo", "seed": 0, "protocol": protocol, "orders": orders, "judge": judge | settings}


def pairs(folder: Path, number: int = 6) -> dict[str, Path]:
    """`number` prompts with one answer each; of even ones it is longer than the reference."""
    names = [f"p{i}" for i in range(number)]
    references = {name: f"reference {i} " + "r" * 20 for i, name in enumerate(names)}
    answers = {name: [f"answer {i} " + "a" * (40 if i % 2 == 0 else 5)] for i, name in enumerate(names)}
    return {
        "prompts": write_prompts(folder / "prompts", {name: f"post {i}" for i, name in enumerate(names)}, references),
        "answers": write_answers(folder / "answers", answers),
    }


def judged(spec: Row, inputs: dict[str, Path], folder: Path) -> list[Row]:
    """Run the stage into folder/out; rows of judgements."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    stage.run(spec, inputs, out, folder / "scratch" / "judge-x")
    return tables.read_table(out / "judgements.parquet", JUDGEMENTS)


def summaries(body: Row) -> tuple[str, str]:
    """The two summaries of a TL;DR request."""
    found = re.search(r"Summary A:\n(.*)\n\nSummary B:\n(.*)\n\nWrite one", body["messages"][-1]["content"], re.DOTALL)
    assert found is not None
    return found.group(1), found.group(2)


def longer(body: Row) -> str:
    """A TL;DR judge who prefers what is longer."""
    first, second = summaries(body)
    return f"One is longer.\nPreferred: {'A' if len(first) > len(second) else 'B'}"


def likes_length(body: dict[str, Any]) -> Any:
    """A judge who takes the longer answer, and rates one by its length, whatever the protocol."""
    text = body["messages"][-1]["content"]
    if "Summary A:" in text:
        return longer(body)
    if "<assistant>" in text:
        return f"Rating: [[{rating(re.findall(TURN, text, re.DOTALL)[-1])}]]"
    chat = "answer of assistant A>" in text
    first, second = re.findall(ARENA_HARD if chat else ALPACA_EVAL, text, re.DOTALL)[0]
    if chat:
        return "[[A>B]]" if len(first) > len(second) else "[[B>A]]"
    return completion("m", logprobs={"m": -0.1, "M": -2.4} if len(first) > len(second) else {"m": -2.4, "M": -0.1})


TURN = "<assistant>\n(.*?)\n</assistant>"
ARENA_HARD = "assistant A>\n(.*)\n</answer of assistant A>.*assistant B>\n(.*)\n</answer of assistant B>"
ALPACA_EVAL = "# Answer of model m\n\n(.*)\n\n# Answer of model M\n\n(.*)\n\n# Your task"


def rating(answer: str) -> int:
    return 1 + len(answer) % 10
