"""Prompts that are longer than a suite allows: refused, left out, or shortened from the left; never without a word."""

from dataclasses import dataclass

from prefdist.data.columns import Found
from prefdist.errors import UserError
from prefdist.tokens import TextCodec

LONG, SHORTENED = "long_prompt", "truncated_prompt"
"""What defects.json calls a prompt that was left out for its length, and one that was shortened and kept."""


@dataclass(frozen=True)
class Budget:
    """At most `tokens` a prompt, BOS and the template's own tokens among them; None: as long as it is.

    too_long: refuse, drop, or truncate_left, which keeps the end of the text.
    """

    codec: TextCodec
    tokens: int | None
    too_long: str

    def fit(self, found: Found) -> tuple[str | None, int]:
        """The prompt as it is used (None: left out), and how many tokens it had.

        UserError if it is too long and to be refused, or if nothing of it would be left.
        """
        length = len(self.codec.prompt(found.prompt))
        if self.tokens is None or length <= self.tokens:
            return found.prompt, length
        if self.too_long == "drop":
            return None, length
        shortened = self._shortened(found.prompt, length) if self.too_long == "truncate_left" else ""
        if not shortened:
            raise UserError(
                f"{found.row.where}: its prompt has {length} tokens, and prompts.max_tokens is {self.tokens}; raise it, or set "
                "prompts.too_long to drop or truncate_left"
            )
        return shortened, length

    def _shortened(self, text: str, length: int) -> str:
        """The longest end of the text that fits, found by its characters: a cut between tokens may be tokenized anew."""
        assert self.tokens is not None
        low, high = 0, len(text)  # an end of `low` characters fits, one of `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            if len(self.codec.prompt(text[-middle:].strip())) <= self.tokens:
                low = middle
            else:
                high = middle
        return text[len(text) - low :].strip()
