"""What a base model must bring: a template or a given one, a PAD of its own, a vocabulary that fits; and a reward model."""

import json
from pathlib import Path

import pytest
from chat_models import COMPLETES, LLAMA3_TEMPLATE, llama3_folder, neox_folder
from transformers import AutoTokenizer

from prefdist.data import models
from prefdist.errors import UserError
from prefdist.tokens import TextCodec, check_vocabulary, reads_ids_of

END = "<|endoftext|>"


def fetched(folder: Path, out: Path, template: str) -> Path:
    models.run({"hub": None, "revision": None, "folder": str(folder), "template": template}, {}, out, out)
    return out


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = neox_folder(tmp_path / "plain")
    with pytest.raises(UserError, match=rf"^{folder}: its tokenizer has no chat template; set template to one, as Jinja$"):
        fetched(folder, tmp_path / "out", "own")


def test_a_models_own_template_is_kept(tmp_path: Path) -> None:
    out = fetched(llama3_folder(tmp_path / "chat"), tmp_path / "out", "own")
    assert AutoTokenizer.from_pretrained(out).chat_template == LLAMA3_TEMPLATE


def test_a_tokenizer_whose_only_pad_is_its_end_is_refused(tmp_path: Path) -> None:
    folder = neox_folder(tmp_path / "plain")
    tokenizer = json.loads((folder / "tokenizer.json").read_text().replace("<|padding|>", "<|other|>"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["pad_token"] = END
    (folder / "tokenizer_config.json").write_text(json.dumps(config).replace("<|padding|>", "<|other|>"))
    with pytest.raises(UserError, match="the tokenizer needs BOS, EOS and a PAD other than EOS"):
        fetched(folder, tmp_path / "out", COMPLETES)


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Pythia has more embeddings than tokens, which is fine; fewer are not."""
    folder = neox_folder(tmp_path / "plain")
    size = len(AutoTokenizer.from_pretrained(folder))
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] > size
    fetched(folder, tmp_path / "fits", COMPLETES)
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": size - 1}))
    with pytest.raises(
        UserError, match=rf"vocab_size {size - 1}, but the tokenizer of .* has {size} tokens; take the tokenizer"
    ):
        fetched(folder, tmp_path / "out", COMPLETES)


def test_whether_a_reward_model_reads_a_policys_ids(tmp_path: Path) -> None:
    """More tokens than the policy's are fine; other ids are not; too few embeddings are named."""
    policy = TextCodec(llama3_folder(tmp_path / "policy"))
    longer = llama3_folder(tmp_path / "longer")
    tokenizer = AutoTokenizer.from_pretrained(longer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(longer)
    assert reads_ids_of(TextCodec(longer), policy) and not reads_ids_of(policy, TextCodec(longer))
    check_vocabulary(policy, longer)  # its own [PAD] has no embedding, and is never given to it
    with pytest.raises(UserError, match=r"longer: config.json has vocab_size \d+, but the tokenizer of .*longer has"):
        check_vocabulary(TextCodec(longer), longer)
    assert not reads_ids_of(TextCodec(fetched(neox_folder(tmp_path / "n"), tmp_path / "neox", COMPLETES)), policy)
