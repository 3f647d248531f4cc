"""What a tokenizer's own chat template puts around one user turn and behind its answer, as ids.

The template is never copied: it is rendered around marks, and what stands around them is read off. One user turn, no
system turn (Gemma's template raises on one, Llama-3's writes its own). Left out: models without a template (tokens.py).
"""

from pathlib import Path
from typing import Any

from prefdist.errors import UserError

USER_MARK, ANSWER_MARK = "[[user text]]", "[[answer text]]"
DATE = "26 Jul 2024"
"""Templates of Llama 3 write a date into the prompt. This is their own default; no prompt depends on a clock."""
NO_CLOCK = f"{{% macro strftime_now(format) %}}{DATE}{{% endmacro %}}{{{{ '' }}}}"
"""Put before a template, it hides transformers' clock. The empty string keeps a line break that the template starts with."""


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of plain text. Text that spells a special token stays text: data cannot end a turn."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


class ChatTemplate:
    """The template of a fast tokenizer: prompts as ids, and the id that ends an answer.

    UserError for a template that refuses one user turn, changes the prompt once an answer follows, or ends an answer
    otherwise than with one special token and white space.
    """

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        self._tokenizer, self._folder = tokenizer, folder
        opening = self._render(USER_MARK)
        if opening.count(USER_MARK) != 1:
            raise UserError(f"{folder}: the chat template writes a user's text {opening.count(USER_MARK)} times, not once")
        self._before, self._after = opening.split(USER_MARK)
        # The template needs its special tokens and the text must not have any, so the three pieces are encoded apart. The
        # same ids result, as pieces meet at special tokens or where trimmed text follows a line break.
        self._before_ids, self._after_ids = self._markup_ids(self._before), self._markup_ids(self._after)
        self.end_id = self._end_of_turn(opening)

    def prompt(self, text: str) -> list[int]:
        """Ids up to where the answer starts. The template may trim the text; it is rendered, not only its mark."""
        rendered = self._render(text)
        if not (rendered.startswith(self._before) and rendered.endswith(self._after)):
            raise UserError(f"{self._folder}: the chat template treats the text {text[:60]!r} unlike others")
        inner = rendered[len(self._before) : len(rendered) - len(self._after)]
        # Exactly one BOS, whether the template writes it or leaves it to the tokenizer.
        return [self._tokenizer.bos_token_id, *self._before_ids, *text_ids(self._tokenizer, inner), *self._after_ids]

    def _end_of_turn(self, opening: str) -> int:
        """What follows an answer; white space behind it (Gemma's newline) opens the next turn and is never scored."""
        conversation = self._render(USER_MARK, ANSWER_MARK)
        turn = opening + ANSWER_MARK
        if not conversation.startswith(turn):
            raise UserError(f"{self._folder}: the chat template does not put an answer right behind its prompt")
        end = conversation[len(turn) :]
        ids = self._markup_ids(end)
        token = self._tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
        if token is None or not token.special or self._tokenizer.decode(ids[1:]).strip():
            raise UserError(f"{self._folder}: the chat template ends an answer with {end!r}, which is not one special token")
        return ids[0]

    def _markup_ids(self, text: str) -> list[int]:
        """Ids of what the template itself writes, without BOS."""
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        return [i for i in ids if i != self._tokenizer.bos_token_id]

    def _render(self, text: str, answer: str | None = None) -> str:
        from jinja2.exceptions import TemplateError

        turns = [{"role": "user", "content": text}]
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        template = NO_CLOCK + self._tokenizer.get_chat_template()
        try:
            rendered = self._tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=answer is None, date_string=DATE
            )
        except TemplateError as error:
            raise UserError(f"{self._folder}: the chat template refuses one user turn: {error}") from error
        return str(rendered)
