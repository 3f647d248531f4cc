"""What a tokenizer's own chat template puts around a user turn, behind its answer and around a second turn, as ids.

The template is never copied: it is rendered around marks, and what stands around them is read off. No system turn (Gemma's
template raises on one, Llama-3's writes its own). Left out: models without a template (tokens.py).
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
    """The template of a fast tokenizer: prompts and answers as ids, and the id that ends an answer.

    Both together are the ids of the rendered conversation, also with a tokenizer that puts a space before a text's first word
    (SentencePiece's, as Mistral's). A text that spells a special token is encoded apart from the markup around it.

    UserError for a template that refuses one user turn, changes the prompt once an answer follows, puts something between
    prompt and answer, or ends an answer otherwise than with one special token and white space.
    """

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        self._tokenizer, self._folder = tokenizer, folder
        opening = self._render(USER_MARK)
        if opening.count(USER_MARK) != 1:
            raise UserError(f"{folder}: the chat template writes a user's text {opening.count(USER_MARK)} times, not once")
        self._before, self._after = opening.split(USER_MARK)
        gap, end = self._answered(opening)
        self._answered_mark = opening + gap + ANSWER_MARK
        self._lead = self._lead_of(gap)
        self.end_id = self._end_of_turn(end)

    def prompt(self, text: str) -> list[int]:
        """Ids up to where the answer starts. The template may trim the text; it is rendered, not only its mark."""
        found = self._around(self._render(text), self._before, self._after, text)
        # Exactly one BOS, whether the template writes it or leaves it to the tokenizer.
        return [bos := self._tokenizer.bos_token_id, *(i for i in found if i != bos)]

    def second_turn(self, text: str) -> list[int]:
        """Ids from the one that ends a first answer up to where the answer to a second question starts.

        UserError for a template that refuses a second turn or writes the first one otherwise once it is not the last.
        """
        before, _, after = self._behind_answer(USER_MARK).partition(USER_MARK)
        found = self._around(self._behind_answer(text), before, after, text)
        if found[0] != self.end_id:
            raise UserError(f"{self._folder}: the chat template ends an answer otherwise where a second question follows")
        return found

    def _behind_answer(self, text: str) -> str:
        """What follows a first answer where a second question does."""
        rendered = self._render(USER_MARK, ANSWER_MARK, text)
        if not rendered.startswith(self._answered_mark):
            raise UserError(f"{self._folder}: the chat template changes the first turn once a second one follows")
        return rendered.removeprefix(self._answered_mark)

    def _around(self, rendered: str, before: str, after: str, text: str) -> list[int]:
        """Ids of a text between two pieces of markup. If it spells a special token, it is encoded apart."""
        if not (rendered.startswith(before) and rendered.endswith(after)):
            raise UserError(f"{self._folder}: the chat template treats the text {text[:60]!r} unlike others")
        ids = self._ids(rendered)
        if self._special_ids(ids) == [*self._special_ids(self._ids(before)), *self._special_ids(self._ids(after))]:
            return ids
        inner = rendered[len(before) : len(rendered) - len(after)]
        return [*self._ids(before), *text_ids(self._tokenizer, inner), *self._ids(after)]

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, without what ends it. Untrimmed."""
        lead, found = text_ids(self._tokenizer, self._lead), text_ids(self._tokenizer, self._lead + text)
        return found[len(lead) :] if found[: len(lead)] == lead else text_ids(self._tokenizer, text)

    def _answered(self, opening: str) -> tuple[str, str]:
        """What the template writes between a prompt and its answer, and behind the answer."""
        conversation = self._render(USER_MARK, ANSWER_MARK)
        gap, _, end = conversation.removeprefix(opening).partition(ANSWER_MARK)
        if not conversation.startswith(opening) or gap.strip():
            raise UserError(f"{self._folder}: the chat template does not put an answer right behind its prompt")
        return gap, end

    def _lead_of(self, gap: str) -> str:
        """The text that an answer is encoded behind, where this gives other ids than encoding it by itself; else nothing.

        A space between prompt and answer is fine if it is the one that the tokenizer puts before an answer by itself.
        """
        special = sorted({token.content for token in self._tokenizer.added_tokens_decoder.values()}, key=len)
        lead = self._after
        for token in special:
            lead = lead.rpartition(token)[2]
        together, apart = (text_ids(self._tokenizer, lead + gap + "a"), text_ids(self._tokenizer, lead))
        if together == apart + text_ids(self._tokenizer, "a"):
            return ""
        if gap:
            raise UserError(f"{self._folder}: the chat template does not put an answer right behind its prompt")
        return lead

    def _end_of_turn(self, end: str) -> int:
        """What follows an answer; white space behind it (Gemma's newline) opens the next turn and is never scored."""
        ids = self._ids(end)  # Pythia's BOS is its EOS
        token = self._tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
        if token is None or not token.special or self._tokenizer.decode(ids[1:]).strip():
            raise UserError(f"{self._folder}: the chat template ends an answer with {end!r}, which is not one special token")
        return ids[0]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    def _special_ids(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self._tokenizer.added_tokens_decoder]

    def _render(self, *texts: str) -> str:
        """A conversation that a user begins; what opens an answer stands at its end where the user spoke last."""
        from jinja2.exceptions import TemplateError

        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        template = NO_CLOCK + self._tokenizer.get_chat_template()
        try:
            rendered = self._tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=len(texts) % 2 == 1, date_string=DATE
            )
        except TemplateError as error:
            turn = "one user turn" if len(texts) < 3 else "a second user turn"
            raise UserError(f"{self._folder}: the chat template refuses {turn}: {error}") from error
        return str(rendered)
