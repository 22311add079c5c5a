import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.construction.filtering import hashing
from nbg_lightning.construction.filtering.hashing import hash_words, ngrams

TEXT = st.text(st.sampled_from(list("abCD _.,!?\n\t9é漢字")), max_size=60)


def words_of(text, marks):
    """A reference by regular expression."""
    pattern = r"[㐀-鿿]|[0-9A-Za-z_é]+" + (r"|[.,!?]+" if marks else "")
    return re.findall(pattern, "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text))


@given(st.lists(TEXT, max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_equal_words_have_equal_hashes_and_others_do_not(texts, marks):
    found = hash_words([text.encode() for text in texts], marks)
    expected = [words_of(text, marks) for text in texts]
    assert np.diff(found.offsets).tolist() == [len(words) for words in expected]
    flat = [word for words in expected for word in words]
    assert found.lengths.tolist() == [len(word.encode()) for word in flat]
    assert found.documents.tolist() == [index for index, words in enumerate(expected) for _ in words]
    by_word = {}
    for word, value in zip(flat, found.hashes.tolist(), strict=True):
        assert by_word.setdefault(word, value) == value
    assert len(set(by_word.values())) == len(by_word)


def test_the_same_numbers_everywhere():
    """Tags and duplicates made on one machine are those of another."""
    found = hash_words([b"The cat", "日本".encode()])
    assert found.hashes.tolist() == [
        5845325944204517568,
        12852412053637655647,
        9695104723233537252,
        12194259334125500134,
    ]


@pytest.mark.parametrize("chunk", [16, 64])
def test_chunks_do_not_matter_where_there_are_spaces(monkeypatch, chunk):
    texts = [b"some words of a text " * 9, b"", b"tiny", b"another one, with marks ... " * 5]
    whole = hash_words(texts)
    monkeypatch.setattr(hashing, "CHUNK_BYTES", chunk)
    for one, other in zip(whole, hash_words(texts), strict=True):
        assert one.tolist() == other.tolist()


def test_a_word_longer_than_a_chunk(monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK_BYTES", 8)
    assert hash_words([b"x" * 20]).lengths.tolist() == [8, 8, 4]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=4), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_ngrams_stay_inside_documents(documents, size):
    words = hash_words([" ".join(words).encode() for words in documents])
    hashes, first = ngrams(words, size)
    flat = [(d, word) for d, words in enumerate(documents) for word in words]
    expected = [
        (place, tuple(word for _, word in flat[place : place + size]))
        for place in range(len(flat) - size + 1)
        if flat[place][0] == flat[place + size - 1][0]
    ]
    assert first.tolist() == [place for place, _ in expected]
    assert len(set(hashes.tolist())) == len({gram for _, gram in expected})
    assert len({(h, g) for h, (_, g) in zip(hashes.tolist(), expected, strict=True)}) == len(set(hashes.tolist()))
