"""A small corpus of three kinds of text, shared by tests."""

import contextlib
import random

import pytest

from nbg_lightning.construction.filtering.corpus import CorpusSettings, build_corpus
from nbg_lightning.construction.store import KeyedLines
from nbg_lightning.data.sources import InMemory

SCIENCE = [
    "energy",
    "theorem",
    "proof",
    "electron",
    "because",
    "therefore",
    "measure",
    "hypothesis",
    "equation",
    "shows",
]
SPAM = ["buy", "now", "free", "money", "click", "winner", "prize", "viagra", "offer", "limited", "!!!", "$$$"]
COMMON = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "it",
    "with",
    "for",
    "on",
    "as",
    "by",
    "at",
    "from",
    "this",
    "be",
    "are",
    "was",
]


def make_texts(words, number, seed):
    chance = random.Random(seed)
    return [
        " ".join(chance.choice(words if chance.random() < 0.4 else COMMON) for _ in range(chance.randint(30, 120)))
        + f" number {seed}-{index}."
        for index in range(number)
    ]


@pytest.fixture(scope="session")
def texts():
    return {"science": make_texts(SCIENCE, 150, 0), "spam": make_texts(SPAM, 150, 1)}


@pytest.fixture(scope="session")
def corpus(texts, tmp_path_factory):
    sources = {name: InMemory(own) for name, own in texts.items()}
    settings = CorpusSettings(near=None)
    return build_corpus(sources, tmp_path_factory.mktemp("corpus") / "c", settings, trust={"spam": 0.5}, num_workers=0)


@pytest.fixture
def keyed():
    """Opens files of keyed lines, and closes them after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda file: stack.enter_context(contextlib.closing(KeyedLines(file)))
