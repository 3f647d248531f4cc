"""A byte-level BPE tokenizer of our own: trained on given texts, saved as `AutoTokenizer` opens it.

Left out: templates, BOS and EOS around responses (see `prefdist.tokens`); the tokenizer itself adds nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefdist.data.stdlib import length_quantiles
from prefdist.errors import UserError

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")  # ids 0, 1, 2; pad is not eos, so that a mask never has to guess
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # every byte has a token: any text round-trips


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: Path) -> None:
    """Train on `texts` and save to the folder `out`. The same texts give the same files, in any order of the texts.

    Text that spells a special token is encoded as ordinary bytes: data cannot end a sequence.
    UserError if `vocab_size` has no room for the bytes. Fewer tokens result if the texts have fewer pairs to merge.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(f"vocab_size is {vocab_size}, at least {SMALLEST_VOCABULARY} are needed (bytes, special tokens)")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, bos, eos = SPECIAL_TOKENS
    wrapped: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        clean_up_tokenization_spaces=False,  # it would rewrite " ." and break the round trip
        split_special_tokens=True,
    )
    wrapped.save_pretrained(out)


def token_statistics(folder: Path, rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Vocabulary size and quantiles of the token counts of prompts and references, without BOS and EOS."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    statistics = {"vocab_size": len(tokenizer)}
    rows = list(rows)
    for column in ("prompt", "reference"):
        encoded = tokenizer([row[column] for row in rows], add_special_tokens=False)["input_ids"]
        statistics |= length_quantiles(f"tokens_{column}", [len(ids) for ids in encoded])
    return statistics
