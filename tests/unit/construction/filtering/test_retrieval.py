import numpy as np
import pytest

from nbg_lightning.construction.filtering.bm25 import WordStatistics, bm25, query_matrix
from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.embedding import HashedEmbedding, ModelEmbedding, count_matrix
from nbg_lightning.construction.filtering.fusion import fused_relevance
from nbg_lightning.construction.filtering.retrieval import RecallSettings, build_recall
from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.construction.step import DocumentStep
from nbg_lightning.data.sources import InMemory

DOCUMENTS = [
    "the cat sat on the mat",
    "the dog chased the cat around the garden",
    "stocks fell on fears of inflation",
    "a garden of roses and a mat",
]


def statistics_of(texts, bits=20):
    counts = count_matrix(texts, bits)
    return WordStatistics(len(texts), int(counts.sum()), np.bincount(counts.indices, minlength=1 << bits))


def test_bm25_is_that_of_bm25s():
    bm25s = pytest.importorskip("bm25s")
    retriever = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    tokens = [text.split() for text in DOCUMENTS]
    retriever.index(tokens, show_progress=False)
    statistics = statistics_of(DOCUMENTS)
    for query in ("cat garden", "inflation", "mat on the cat", "unknown cat"):
        own = bm25(count_matrix(DOCUMENTS, 20), query_matrix([query], statistics, 20, 64), statistics)[:, 0]
        theirs = retriever.get_scores([word for word in query.split() if any(word in text for text in tokens)])
        np.testing.assert_allclose(own / (1.5 + 1), theirs, rtol=1e-5)  # theirs leaves the constant factor out


def test_bm25_by_hand():
    texts = ["a a b", "b c"]
    statistics = statistics_of(texts)
    idf = np.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    norm = 1.5 * (1 - 0.75 + 0.75 * 3 / 2.5)
    expected = idf * 2 * 2.5 / (2 + norm)
    assert bm25(count_matrix(texts, 20), query_matrix(["a"], statistics, 20, 9), statistics)[:, 0] == pytest.approx(
        [expected, 0]
    )


def test_queries_are_the_telling_words():
    statistics = statistics_of(DOCUMENTS)
    queries = query_matrix(["the the the the inflation of unknownword"], statistics, 20, 2)
    assert queries.nnz == 2
    (inflation,) = count_matrix(["inflation"], 20).indices
    assert inflation in queries.indices
    assert count_matrix(["unknownword"], 20).indices[0] not in queries.indices


def test_relevance():
    assert fused_relevance([1, 1], 60) == 1
    assert fused_relevance([61, 0], 60) == pytest.approx(61 / 121 / 2)
    assert fused_relevance([0, 0], 60) == 0


class Quality(DocumentStep):
    """Quality 9 but for documents with a 3 at the end of their number."""

    @property
    def columns(self):
        import pyarrow

        return {"quality": pyarrow.float32()}

    def values(self, texts):
        return [{"quality": 0.9 if text.endswith("3.") else 9.0} for text in texts]


SEEDS = [
    "energy theorem proof electron measure hypothesis equation",
    "winner prize viagra offer limited money",
    "xylophon zzyzx qwertz",
    "",
]


@pytest.fixture(scope="module")
def tags(corpus, tmp_path_factory):
    return build_columns("quality", corpus, Quality(), tmp_path_factory.mktemp("tags") / "t", num_workers=0)


def test_recall_is_bounded_by_trust_and_quality(corpus, tags, tmp_path):
    settings = RecallSettings(depth=50)
    table = build_recall(corpus, InMemory(SEEDS), tmp_path / "r", tags, settings, num_workers=0)
    rows = [
        {**a, **b, **c}
        for a, b, c in zip(corpus.rows(["id", "source", "text"]), table.rows(), tags.rows(), strict=True)
    ]
    recalled = [row for row in rows if row["recall"] > 0]
    assert len(recalled) == table.report["recalled"]
    science = [row for row in recalled if row["seed"] == 0]
    assert len(science) >= 50
    assert np.mean([row["source"] == "science" for row in science]) > 0.9
    assert np.mean([row["source"] == "spam" for row in recalled if row["seed"] == 1]) > 0.9
    for row in recalled:
        bound = min({"science": 1.0, "spam": 0.5}[row["source"]], row["quality"] / 9)
        expected = fused_relevance([row["lexical_rank"], row["vector_rank"]], 60)
        assert row["relevance"] == pytest.approx(expected, rel=1e-5)
        assert row["recall"] == pytest.approx(expected * bound, rel=1e-5)
    assert max(row["recall"] for row in recalled if row["source"] == "spam") <= 0.5
    assert max((row["recall"] for row in recalled if row["text"].endswith("3.")), default=0) <= 0.1 + 1e-6
    assert {row["seed"] for row in rows if row["recall"] == 0} == {-1}
    assert table.report["seeds_without_recall"] == ["InMemoryPart :2"]
    assert {kind: own["count"] for kind, own in table.report["seed_problems"].items()} == {
        "empty": 1,
        "recalls_nothing": 1,
    }


def test_a_seed_does_not_recall_itself(corpus, texts, tmp_path):
    seed = texts["science"][4]
    table = build_recall(corpus, InMemory([seed]), tmp_path / "r", settings=RecallSettings(depth=10), num_workers=0)
    rows = {row["text"]: worth for row, worth in zip(corpus.rows(["text"]), table.rows(), strict=True)}
    assert rows[seed]["recall"] == 0
    assert table.report["recalled"] >= 10


def test_interrupted_searches_go_on_and_end_alike(corpus, tmp_path, monkeypatch):
    from nbg_lightning.construction.filtering import retrieval

    real, done = retrieval._search, []

    def fails(job):
        if done:
            raise OSError("disk full")
        done.append(real(job))

    seeds = InMemory(SEEDS[:2])
    with monkeypatch.context() as patch:
        patch.setattr(retrieval, "_search", fails)
        with pytest.raises(OSError, match="disk full"):
            build_recall(corpus, seeds, tmp_path / "a", num_workers=0)
    build_recall(corpus, seeds, tmp_path / "a", num_workers=0)
    build_recall(corpus, seeds, tmp_path / "b", num_workers=2)
    assert list(Table(tmp_path / "a").rows()) == list(Table(tmp_path / "b").rows())
    assert not (tmp_path / "a" / "search").exists()


def test_seeds_that_recall_nothing_at_all_are_an_error(corpus, tmp_path):
    with pytest.raises(ValueError, match="seeds is invalid: none of 1 recalls anything; lower min_cosine"):
        build_recall(corpus, InMemory([SEEDS[2]]), tmp_path / "r", num_workers=0)
    with pytest.raises(ValueError, match=r"seeds is invalid: no usable document \(1 empty\)"):
        build_recall(corpus, InMemory([""]), tmp_path / "r2", num_workers=0)


def test_hashed_vectors_know_what_is_alike(texts, tmp_path):
    embedding = HashedEmbedding(dim=8)
    embedding.fit(texts["science"] + texts["spam"], tmp_path)
    vectors = embedding.vectors([texts["science"][0], texts["science"][1], texts["spam"][0], "zzyzx", ""])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0, 0], atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_vectors_of_a_model(tmp_path):
    """A tiny BERT: batches do not matter, and mean pooling leaves padding out."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "cat", "dog", "stocks"])}
    raw = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(tmp_path)
    texts = ["cat", "dog dog cat", "stocks dog"]
    for pooling in ("mean", "first", "last"):
        embedding = ModelEmbedding(str(tmp_path), pooling)
        together = embedding.vectors(texts)
        alone = np.concatenate([embedding.vectors([text]) for text in texts])
        np.testing.assert_allclose(together, alone, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match=r"embedding model is invalid: '.*nothing'"):
        ModelEmbedding(str(tmp_path / "nothing")).vectors(["cat"])
