"""A tiny random sentence-transformers model on disk, and the texts whose words it knows."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

VERBS = ("open", "close", "read", "write", "copy", "sort", "parse", "print")
NOUNS = ("file", "path", "list", "line", "name", "code")
REFERENCES = [f"{verb.capitalize()} the {noun}." for verb in VERBS for noun in NOUNS]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] words [SEP], lower case."""
    words = sorted({word for text in REFERENCES for word in text.lower().replace(".", " .").split()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special)


def bert_folder(root: Path) -> Path:
    """A random two-layer BERT of 16 positions with mean pooling, saved by sentence-transformers in a folder of `root`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tokenizer = word_tokenizer()
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)  # as made, all texts are nearly alike
    model.save_pretrained(root / "plain")
    tokenizer.save_pretrained(root / "plain")
    whole = SentenceTransformer(modules=[Transformer(str(root / "plain")), Pooling(8, pooling_mode="mean")], device="cpu")
    whole.save(str(root / "model"), create_model_card=False)
    return root / "model"
