"""Texts as unit vectors: latent semantics against a dense decomposition, sentence-transformers against pooling by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from prefdist.errors import UserError
from prefdist.evaluation.diversity import mean_cosine_distance, vendi_score
from prefdist.evaluation.embeddings import LatentSemantic, SentenceTransformers

VERBS = ("open", "close", "read", "write", "copy", "sort", "parse", "print")
NOUNS = ("file", "path", "list", "line", "name", "code")
REFERENCES = [f"{verb.capitalize()} the {noun}." for verb in VERBS for noun in NOUNS]


@pytest.fixture(scope="module")
def latent() -> LatentSemantic:
    return LatentSemantic(REFERENCES, dimensions=10)


def test_latent_semantic_is_the_truncated_decomposition(latent: LatentSemantic) -> None:
    """Cosines are those of tf-idf rows projected onto the first right singular vectors, by LAPACK on the dense matrix.

    The axes' signs are free and cosines do not see them. The gap of the 10th and 11th singular value is checked, without
    which the axes would not be determined.
    """
    tfidf = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, sublinear_tf=True)
    dense = tfidf.fit_transform(REFERENCES).toarray()
    _, singular, axes = np.linalg.svd(dense, full_matrices=False)
    assert singular[9] > 1.01 * singular[10]
    texts = ["Open the paths", "Reads code", "prints  LISTS"]
    projected = tfidf.transform(texts).toarray() @ axes[:10].T
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    found = latent.embed(texts)
    assert found.shape == (3, 11)
    np.testing.assert_allclose(found @ found.T, projected @ projected.T, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-12)


def test_latent_semantic_is_the_same_every_time(latent: LatentSemantic) -> None:
    again = LatentSemantic(REFERENCES, dimensions=10)
    assert np.array_equal(again.embed(REFERENCES), latent.embed(REFERENCES))
    assert latent.identity == {"embedder": "latent_semantic", "dimensions": 10, "references": len(REFERENCES)}


def test_latent_semantic_does_not_depend_on_company_or_order(latent: LatentSemantic) -> None:
    texts = REFERENCES[:5]
    alone = np.vstack([latent.embed([text]) for text in texts])
    np.testing.assert_allclose(latent.embed(texts[::-1])[::-1], alone, atol=1e-14)


def test_texts_without_a_known_ngram_are_alike_and_far_from_all_else(latent: LatentSemantic) -> None:
    found = latent.embed(["", "日本語", "Open the file."])
    assert mean_cosine_distance(found[:2]) == 0.0
    assert mean_cosine_distance(found[1:]) == pytest.approx(1.0, abs=1e-15)
    assert vendi_score(found) == pytest.approx(np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))), rel=1e-12)


def test_latent_semantic_is_small_where_meaning_is_shared(latent: LatentSemantic) -> None:
    """A slip of the pen and an inflection stay near, another sentence does not."""
    original, slip, inflected, other = latent.embed(["Parse the file.", "Prse the file.", "Parses the files.", "Sort a list."])
    assert min(original @ slip, original @ inflected) > original @ other + 0.3


@pytest.mark.parametrize(
    ("references", "dimensions", "message"),
    [
        (REFERENCES[:5], 5, "5 references with .* are too few for 5 dimensions"),
        (["ab", "cd"], 1, "2 references have no character n-gram in common"),
        ([], 1, "0 references have no character n-gram in common"),
    ],
)
def test_too_few_references_are_refused(references: list[str], dimensions: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LatentSemantic(references, dimensions=dimensions)


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


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT of 16 positions with mean pooling, saved by sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    root = tmp_path_factory.mktemp("bert")
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


def pooled_by_hand(folder: Path, text: str, max_tokens: int) -> Any:
    """Mean of BERT's last hidden states over all tokens of one unpadded text, special ones included, to length 1."""
    ids = word_tokenizer()(text, truncation=True, max_length=max_tokens).input_ids
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
    return (mean / mean.norm()).numpy()


def test_sentence_transformers_is_mean_pooling_by_hand(bert: Path) -> None:
    texts = ["Open the file.", "", "Sort the list. Read the line.", "xyz"]
    embedder = SentenceTransformers(bert, max_tokens=16, batch_size=3)
    expected = np.stack([pooled_by_hand(bert, text, 16) for text in texts])
    found = embedder.embed(texts)
    np.testing.assert_allclose(found, expected, atol=2e-6)  # float32, padded against unpadded
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 0.05


def test_longer_texts_are_cut_at_max_tokens(bert: Path) -> None:
    text = "Open the file. Close the path. Sort the list."
    embedder = SentenceTransformers(bert, max_tokens=6)
    found = embedder.embed([text, "Open the file."])
    np.testing.assert_allclose(found[0], pooled_by_hand(bert, text, 6), atol=2e-6)
    # [CLS] open the file . [SEP]: six tokens, so nothing of the rest is seen
    np.testing.assert_allclose(found[0], found[1], atol=2e-6)
    assert embedder.identity == {
        "embedder": "sentence_transformers",
        "model": bert.name,
        "max_tokens": 6,
    }
    with pytest.raises(UserError, match="max_tokens is 17, and the model reads 16 at most"):
        SentenceTransformers(bert, max_tokens=17)


def copied(bert: Path, to: Path) -> Path:
    return Path(shutil.copytree(bert, to / "model"))


def test_pickled_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path)
    torch.save({}, folder / "pytorch_model.bin")
    SentenceTransformers(folder, max_tokens=16)  # beside safetensors it is not read
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pytorch_model\.bin: pickled weights"):
        SentenceTransformers(folder, max_tokens=16)


def test_code_of_a_folder_is_not_run(bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Mine: ...\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "mine.Mine"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=r"cannot load it \(.*'mine\.Mine'"):
        SentenceTransformers(folder, max_tokens=16)
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no modules\.json there"):
        SentenceTransformers(tmp_path, max_tokens=16)
