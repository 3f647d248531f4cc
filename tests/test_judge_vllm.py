"""Judges behind vLLM's own server, a tiny Llama 3 on CPUs: what it says beside transformers alone, and what it refuses.

Float32 on both sides, prompts of 500 to 700 tokens: log-probabilities are sums that were added in another order.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import TEXTS, llama3_folder, llama3_tokenizer
from judge_inputs import endpoint, judged, pairs, write_answers, write_prompts
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm_models import HIDDEN, needs_vllm
from vllm_servers import VllmServer, serving

from prefdist.errors import UserError
from prefdist.judging.comparisons import Answer, Comparison
from prefdist.judging.endpoint import NONSENSE, shown_in
from prefdist.judging.protocols import PROTOCOLS
from prefdist.judging.protocols.form import Reply

pytestmark = [pytest.mark.vllm, needs_vllm, pytest.mark.usefixtures("impatient")]

Row = dict[str, Any]

TOLERANCE = 1e-4
LONGEST = 1536
PROMPTS = 8
LETTERS = ("m", "M")
SPACED = (" m", " M")
"""As vocabularies with a space before a word have them."""
DATE = "26 Jul 2024"
"""Llama 3's template writes today's date into the prompt otherwise."""


def judge_folder(path: Path) -> Path:
    """A Llama 3 for which spellings of m and M are among the likeliest first tokens of a reply to usual prompts."""
    codec = llama3_tokenizer()
    codec.add_tokens(list(SPACED))
    llama3_folder(path, hidden=HIDDEN, max_position_embeddings=LONGEST, vocab_size=len(codec))
    codec.save_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    prompts = [prompt_ids(codec, "alpaca_eval", _comparison(number), order) for number in range(PROMPTS) for order in (0, 1)]
    with torch.no_grad():
        last = torch.stack([model.base_model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in prompts]).mean(0)
        head = model.get_output_embeddings().weight.mul_(0.2)
        for token in (*LETTERS, *SPACED):
            head[codec.convert_tokens_to_ids(token)] += 3 * last / last.square().sum()
    model.save_pretrained(path)
    return path


def _comparison(number: int) -> Comparison:
    """A question with two answers of other lengths and words than another number's."""
    words = " ".join(TEXTS).split()
    texts = [" ".join(words[7 * number + 3 * k :][: 3 + 5 * k + number]) for k in range(3)]
    return Comparison(f"p{number}", 0, texts[0], Answer(texts[1]), Answer(texts[2]))


def prompt_ids(codec: Any, protocol: str, comparison: Comparison, order: int) -> list[int]:
    """What the model is to see, rendered and split by transformers alone."""
    messages = PROTOCOLS[protocol].ask(comparison, 1, shown_in(comparison, order))
    found: list[int] = codec.apply_chat_template(
        messages, add_generation_prompt=True, date_string=DATE, tokenize=True, return_dict=False
    )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge_folder(tmp_path_factory.mktemp("judge") / "judge")


@pytest.fixture(scope="module")
def codec(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[VllmServer]:
    date = json.dumps({"date_string": DATE})
    options = ["--max-model-len", str(LONGEST), "--generation-config", "vllm", "--default-chat-template-kwargs", date]
    with serving(folder, folder.with_name("server.log"), *options) as started:
        yield started


def first_law(model: Any, ids: list[int]) -> Tensor:
    """Log-probabilities [V] of a reply's first token."""
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([ids])).logits[0, -1]
    return logits.double().log_softmax(-1)


def inputs(folder: Path, *rows: Comparison) -> dict[str, Path]:
    """Of these comparisons; of the PROMPTS usual ones without a word."""
    rows = rows or tuple(map(_comparison, range(PROMPTS)))
    references = {row.prompt_id: row.baseline.text for row in rows if row.baseline}
    return {
        "prompts": write_prompts(folder / "prompts", {row.prompt_id: row.prompt for row in rows}, references),
        "answers": write_answers(folder / "answers", {row.prompt_id: [row.answer.text] for row in rows}),
    }


def journal(folder: Path) -> list[Row]:
    """Replies that were kept."""
    lines = [json.loads(line) for file in folder.rglob("judge_replies/*.jsonl") for line in file.read_text().splitlines()]
    return [line["reply"] for line in lines if "reply" in line]


def test_preferences_are_those_of_the_model(server: VllmServer, model: Any, codec: Any, tmp_path: Path) -> None:
    """P(m)/(P(m) + P(M)) of the five likeliest tokens, both spellings of a letter; token counts are the template's."""
    spellings = {text: codec.convert_tokens_to_ids(text) for text in (*LETTERS, *SPACED)}
    rows = judged(endpoint(server.url, "alpaca_eval"), inputs(tmp_path), tmp_path)
    asked = [(_comparison(number), order) for number in range(PROMPTS) for order in (0, 1)]
    missing = 0
    for row, (comparison, order) in zip(rows, asked, strict=True):
        assert (row["prompt_id"], row["order"]) == (comparison.prompt_id, order)
        ids = prompt_ids(codec, "alpaca_eval", comparison, order)
        law = first_law(model, ids)
        best = law.topk(5).indices.tolist()
        expected = {text: float(law[token]) for text, token in spellings.items() if token in best}
        told = json.loads(row["top_logprobs"])
        assert {text: told[text] for text in spellings if text in told} == pytest.approx(expected, abs=TOLERANCE)
        assert row["reply"] == codec.decode(best[:1])
        first, second = (sum(math.exp(expected.get(text, -math.inf)) for text in (x, f" {x}")) for x in LETTERS)
        share = first / (first + second)
        assert row["preference"] == pytest.approx(2 - share if order == 0 else 1 + share, abs=TOLERANCE)
        assert (row["prompt_tokens"], row["completion_tokens"], row["finish_reason"]) == (len(ids), 1, "length")
        missing += len(spellings) - len(expected)
    assert missing > PROMPTS, "letters that are not among the five"
    assert max(row["preference"] for row in rows) - min(row["preference"] for row in rows) > 0.5


def test_a_reply_without_a_letter_is_missing(server: VllmServer, model: Any, codec: Any, tmp_path: Path) -> None:
    """Beside one that can be read: stored, counted, and no part of the win rate."""
    odd = Comparison("odd", 0, "Do it.", Answer("x" * 160), Answer("no"))
    for order in (0, 1):
        best = first_law(model, prompt_ids(codec, "alpaca_eval", odd, order)).topk(5).indices.tolist()
        assert not {codec.decode([token]).strip() for token in best} & set(LETTERS), "what the test is about"
    rows = judged(endpoint(server.url, "alpaca_eval"), inputs(tmp_path, _comparison(0), odd), tmp_path)
    assert [row["preference"] is None for row in rows] == [False, False, True, True]
    assert all(json.loads(row["top_logprobs"]) for row in rows)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["unparsable"], summary["win_rate"]["n_total"], summary["win_rate"]["n_missing"]) == (2, 1, 1)
    assert summary["win_rate"]["estimate"] == pytest.approx(50 * sum(row["preference"] - 1 for row in rows[:2]))


def test_what_was_answered_is_not_asked_again(server: VllmServer, tmp_path: Path) -> None:
    """The second run has a server that answers nothing, and makes the same table; one more prompt needs it."""
    spec, of = endpoint(server.url, "alpaca_eval"), inputs(tmp_path, _comparison(0), _comparison(1))
    rows = judged(spec, of, tmp_path)
    assert len(journal(tmp_path)) == len(rows) == 4
    silent = endpoint(server.url, "alpaca_eval", timeout=1.0, attempts=1)
    with server.frozen():
        assert judged(silent, of, tmp_path) == rows
        with pytest.raises(UserError, match="no whole reply within 1 s"):
            judged(silent, inputs(tmp_path / "more", *map(_comparison, range(3))), tmp_path)
    assert len(journal(tmp_path)) == 4


def test_text_that_cannot_be_read(server: VllmServer, codec: Any, tmp_path: Path) -> None:
    """Of a random model: kept with its counts, no preference; and of many such replies the first ones are the last."""
    spec = endpoint(server.url, "tldr", max_tokens=8, concurrency=4)
    with pytest.raises(UserError, match="none of 4 judgements can be read"):
        judged(spec, inputs(tmp_path / "few", _comparison(0), _comparison(1)), tmp_path / "few")
    kept = journal(tmp_path / "few")
    assert {PROTOCOLS["tldr"].read(Reply(**reply)) for reply in kept} == {None}
    lengths = [len(prompt_ids(codec, "tldr", _comparison(number), order)) for number in range(2) for order in (0, 1)]
    assert sorted(reply["prompt_tokens"] for reply in kept) == sorted(lengths)
    assert all(1 <= reply["completion_tokens"] <= 8 for reply in kept)
    with pytest.raises(UserError, match=r"none of the first \d+ replies of judge can be read, the last one is "):
        judged(spec, pairs(tmp_path / "many", 40), tmp_path / "many")
    assert NONSENSE <= len(journal(tmp_path / "many")) <= NONSENSE + 4


@pytest.mark.parametrize(
    ("protocol", "settings", "answer", "said"),
    [
        ("tldr", {"model": "gpt-4"}, "yes", r"404 \(.*`gpt-4` does not exist"),
        ("tldr", {}, "x" * LONGEST, rf"400 \(.*maximum context length is {LONGEST}"),
        ("arena_hard", {}, "yes", rf"400 \(.*max_tokens=4096 cannot be greater than max_model_len={LONGEST}"),
    ],
    ids=["name", "prompt", "reply"],
)
def test_what_it_refuses_is_told(
    server: VllmServer, protocol: str, settings: Row, answer: str, said: str, tmp_path: Path
) -> None:
    """A name that it does not serve; a prompt, and a limit of the reply, that are longer than its context."""
    asked = inputs(tmp_path, Comparison("p7", 0, "Do it.", Answer(answer), Answer("no")))
    with pytest.raises(UserError, match=r"prompt 'p7', sample 0: refused with status " + said):
        judged(endpoint(server.url, protocol, **settings), asked, tmp_path)
    assert journal(tmp_path) == []


def test_a_reply_has_what_the_prompt_leaves(server: VllmServer, codec: Any, tmp_path: Path) -> None:
    """Ten tokens of the context, where the protocol allows 256."""
    without = len(prompt_ids(codec, "tldr", Comparison("p", 0, "Do it.", Answer(""), Answer("no")), 0))
    full = Comparison("p", 0, "Do it.", Answer("x" * (LONGEST - 10 - without)), Answer("no"))
    with pytest.raises(UserError, match="none of 2 judgements can be read"):
        judged(endpoint(server.url), inputs(tmp_path, full), tmp_path)
    counts = [[reply[name] for name in ("prompt_tokens", "completion_tokens", "finish_reason")] for reply in journal(tmp_path)]
    assert counts == [[LONGEST - 10, 10, "length"]] * 2
