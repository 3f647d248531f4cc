"""From text to ids to packed rows: templates, BOS and EOS, masks.

Prompt and response are tokenised apart and joined as ids, by the tokenizer's own chat template (chat.py) or, where it has
none: <bos> prompt newline | response <eos>. A row holds one prompt and all its responses; each response attends to the
prompt and itself only and its positions restart behind the prompt, so a prompt is computed once however many responses it
has. Left out: models (models.py, logprobs.py).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.chat import ChatTemplate, text_ids
from prefdist.errors import UserError

PADDING, PROMPT = -1, 0
SPARE_TOKENS = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|padding|>", "<unk>")
"""What pads where a tokenizer has no PAD of its own: what Llama 3 or Pythia keep for it, or what Mistral's bytes never need."""
OTHER_ENDS = ("<eos>", "<|end_of_text|>", "<|eom_id|>")
"""What instruct models of Gemma and Llama also end an answer with, besides their template's end of turn."""


class TextCodec:
    """A saved tokenizer together with its template: the chat template saved with it, or the project's plain one.

    `eos_id` ends a response: EOS, or the chat template's end of turn (<end_of_turn>, <|eot_id|>). `pad_id` differs from it.
    `stop_ids` are all ids at which a model may stop, `eos_id` first; without a chat template there is no other.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer  # over a second to import, and packing needs none of it

        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{folder}: no tokenizer.json there; name a folder with a saved tokenizer")
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._tokenizer, self.folder = tokenizer, folder
        self._chat = ChatTemplate(tokenizer, folder) if tokenizer.chat_template else None
        bos_id = tokenizer.bos_token_id
        eos_id = self._chat.end_id if self._chat else tokenizer.eos_token_id
        pad_id = _pad_id(tokenizer, eos_id)
        if bos_id is None or eos_id is None or pad_id is None:
            raise UserError(f"{folder}: the tokenizer needs BOS, EOS and a PAD other than EOS")
        self.bos_id, self.eos_id, self.pad_id = int(bos_id), int(eos_id), pad_id
        self.stop_ids = _stop_ids(tokenizer, self.eos_id) if self._chat else (self.eos_id,)
        self.vocabulary = len(tokenizer)
        self.has_template = self._chat is not None

    @cached_property
    def _newline(self) -> list[int]:
        return text_ids(self._tokenizer, "\n")

    def prompt(self, text: str) -> list[int]:
        """One user turn up to where its answer starts, or <bos> text newline. A chat template may trim the text."""
        if self._chat:
            return self._chat.prompt(text)
        return [self.bos_id, *text_ids(self._tokenizer, text), *self._newline]

    def second_prompt(self, text: str, answer: Sequence[int], second: str) -> list[int]:
        """A prompt, the ids of a model's answer to it, and a second question, up to where its answer starts.

        Whatever ended the answer, the template's own end stands behind it. UserError without a chat template, or with one
        that has no second turn.
        """
        if self._chat is None:
            raise UserError(f"{self.folder}: a second turn needs a chat template, which its tokenizer lacks")
        return [*self.prompt(text), *(i for i in answer if i not in self.stop_ids), *self._chat.second_turn(second)]

    def response(self, text: str) -> list[int]:
        """text <eos>. Untrimmed, so that a sampled response and its text have the same ids; nothing follows the EOS."""
        return [*(self._chat.answer(text) if self._chat else text_ids(self._tokenizer, text)), self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of response ids, without what stopped it."""
        return str(self._tokenizer.decode([i for i in ids if i not in self.stop_ids], clean_up_tokenization_spaces=False))

    def single_tokens(self, texts: Sequence[str]) -> list[int]:
        """Ids, ascending, of the tokens whose text is exactly one of the texts; these differ in leading spaces at most."""
        ends = tuple({text.strip() for text in texts})
        likely = sorted(i for piece, i in self._tokenizer.get_vocab().items() if piece.endswith(ends))
        return [i for i in likely if self.decode([i]) in texts]

    def save(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(folder)


def checked_codec(folder: Path) -> TextCodec:
    """The codec of a model folder. UserError unless the model has an embedding for every id of its tokenizer."""
    codec = TextCodec(folder)
    check_vocabulary(codec, folder)
    return codec


def check_vocabulary(codec: TextCodec, folder: Path) -> None:
    """UserError if the model in `folder` lacks an embedding for an id of the codec; more embeddings than ids are fine."""
    size = json.loads((folder / "config.json").read_text()).get("vocab_size")
    if size is not None and codec.vocabulary > size:
        raise UserError(
            f"{folder}: config.json has vocab_size {size}, but the tokenizer of {codec.folder} has {codec.vocabulary} tokens; "
            "take the tokenizer that belongs to the model, or resize its embeddings"
        )


def reads_ids_of(reader: TextCodec, writer: TextCodec) -> bool:
    """Whether every id of the writer's tokenizer means the same to the reader, which may have more."""
    known = reader._tokenizer.get_vocab()
    return all(known.get(token) == i for token, i in writer._tokenizer.get_vocab().items())


def same_tokenizer(a: TextCodec, b: TextCodec) -> bool:
    """Whether ids mean the same to both (vocabulary, BOS, EOS, PAD): without it, distributions over tokens do not compare."""
    special = [(codec.bos_id, codec.eos_id, codec.pad_id) for codec in (a, b)]
    return special[0] == special[1] and a._tokenizer.get_vocab() == b._tokenizer.get_vocab()


def _pad_id(tokenizer: Any, eos_id: int | None) -> int | None:
    """The tokenizer's PAD unless it is EOS, else one of SPARE_TOKENS; None if there is neither."""
    if tokenizer.pad_token_id not in (None, eos_id):
        return int(tokenizer.pad_token_id)
    return next((i for token in SPARE_TOKENS if (i := tokenizer.get_vocab().get(token)) is not None), None)


def _stop_ids(tokenizer: Any, end_id: int) -> tuple[int, ...]:
    """The end of turn, the tokenizer's own EOS, and the special tokens named above: each once."""
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    others = [tokenizer.eos_token_id, *(special.get(name) for name in OTHER_ENDS)]
    return tuple(dict.fromkeys([end_id, *(i for i in others if i is not None)]))


@dataclass(frozen=True)
class Packed:
    """R rows of one prompt and n responses each, padded on the right to length L; T is the longest response.

    input_ids, position_ids, segments [R, L]; segments: −1 padding, 0 prompt, k the k-th response (from 1).
    targets, predictors [R, n, T]: the response tokens, and where in the row the hidden state stands that predicts each.
    mask [R, n, T]: which of them exist; the first EOS is the last.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: Tensor
    targets: Tensor
    predictors: Tensor
    mask: Tensor

    def attention_mask(self) -> Tensor:
        """[R, 1, L, L] boolean: causal, the prompt seen by all, no response seen by another; padding sees itself."""
        length = self.segments.shape[1]
        query, key = self.segments.unsqueeze(2), self.segments.unsqueeze(1)
        causal = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        return (causal & (((key == PROMPT) & (query != PADDING)) | (key == query))).unsqueeze(1)

    @property
    def n_tokens(self) -> Tensor:
        """Response tokens, EOS included: [R, n]."""
        return self.mask.sum(-1)

    @property
    def ends(self) -> Tensor:
        """Where in the row each response's last token stands: [R, n]."""
        prompt_length = (self.segments == PROMPT).sum(-1, keepdim=True)
        return prompt_length + self.n_tokens.cumsum(-1) - 1

    def to(self, device: torch.device | str) -> "Packed":
        return Packed(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def pack(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]], *, pad_id: int) -> Packed:
    """Rows prompt · response₁ · … · responseₙ. Every prompt has the same number of responses, none of them empty."""
    n = len(responses[0])
    rows = [_pack_row(prompt, ys, n) for prompt, ys in zip(prompts, responses, strict=True)]
    length = max(len(row[0]) for row in rows)
    longest = max(len(y) for ys in responses for y in ys)

    def padded(values: list[list[int]], size: int, fill: int) -> Tensor:
        return torch.tensor([value + [fill] * (size - len(value)) for value in values])

    ids = padded([row[0] for row in rows], length, pad_id)
    positions = padded([row[1] for row in rows], length, 0)
    segments = padded([row[2] for row in rows], length, PADDING)
    shape = (len(rows), n, longest)
    targets = padded([list(y) for ys in responses for y in ys], longest, pad_id).view(shape)
    predictors = padded([where for row in rows for where in row[3]], longest, 0).view(shape)
    sizes = torch.tensor([[len(y) for y in ys] for ys in responses])
    mask = torch.arange(longest) < sizes.unsqueeze(-1)
    return Packed(ids, positions, segments, targets, predictors, mask)


def _pack_row(
    prompt: Sequence[int], responses: Sequence[Sequence[int]], n: int
) -> tuple[list[int], list[int], list[int], list[list[int]]]:
    """Ids, positions and segments of one row, and for each response where its predictors stand."""
    if not prompt or len(responses) != n or not all(responses):
        raise ValueError(f"a row needs a prompt and {n} responses of one token or more")
    ids, positions, segments = list(prompt), list(range(len(prompt))), [PROMPT] * len(prompt)
    predictors = []
    for k, response in enumerate(responses, start=1):
        predictors.append([len(prompt) - 1, *range(len(ids), len(ids) + len(response) - 1)])
        ids += response
        positions += range(len(prompt), len(prompt) + len(response))
        segments += [k] * len(response)
    return ids, positions, segments, predictors
