"""Search in a folder: the best passages by words, reading, and nothing outside of the folder."""

import math
import pickle

import pytest

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question
from nbg_lightning.environments import ModelTurn, SearchEnvironment
from nbg_lightning.environments.passages import PassageIndex, read_documents, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    (place / "animals").mkdir()
    (place / "animals" / "otters.md").write_text("# Otters\n\nOtters hold hands while they sleep.\n")
    (place / "tides.txt").write_text("The tide in the bay of Fundy rises by sixteen metres.\n" + "filler words\n" * 200)
    (place / "secret.bin").write_text("otters otters otters")
    (place.parent / "outside.md").write_text("otters outside")
    (place / "link.md").symlink_to(place.parent / "outside.md")
    return str(place)


def answers(environment, name, **arguments):
    reply = environment.step(ModelTurn("", None, "", (ToolCall(name, arguments, "call00000"),)))
    return reply.turns[0]["content"]


def test_passages_are_found_and_documents_read(folder):
    environment = pickle.loads(pickle.dumps(SearchEnvironment(folder, results=2)))
    environment.reset(Question(({"role": "user", "content": "What do otters hold?"},), "hands"))
    found = answers(environment, "search", query="What do sleeping OTTERS hold?")
    assert found.startswith("animals/otters.md, line 1:") and "outside" not in found
    assert "sixteen metres" in answers(environment, "search", query="tide Fundy").split("\n\n")[0]
    assert answers(environment, "search", query="quantum") == "(nothing found)"
    assert answers(environment, "read", document="animals/otters.md", first=3, lines=1).endswith("while they sleep.")
    assert "there is no document" in answers(environment, "read", document="../outside.md")
    assert answers(environment, "read", document="tides.txt", first=10_000) == "(no such lines)"


def test_scores_are_those_of_the_formula():
    texts = {"a": "red red blue", "b": "blue", "c": "green green green red"}
    index = PassageIndex(texts)

    def score(name, query):
        own, mean = words(texts[name]), 8 / 3
        total = 0.0
        for word in query.split():
            holding = sum(word in words(text) for text in texts.values())
            idf = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
            count = own.count(word)
            total += idf * count * 2.5 / (count + 1.5 * (0.25 + 0.75 * len(own) / mean))
        return total

    for query in ("red", "red blue", "green blue"):
        expected = sorted((name for name in texts if score(name, query)), key=lambda name: -score(name, query))
        assert [passage.document for passage in index.best(query, 3)] == expected


def test_folders_without_texts_are_refused(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        SearchEnvironment(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="has no"):
        SearchEnvironment(str(tmp_path))
    with pytest.raises(ValueError, match="at least 1"):
        SearchEnvironment(folder, results=0)


def test_vectors_find_passages_without_a_word_of_the_query(tmp_path):
    """Cars and motors stand together in some texts: a query of cars finds a text that only has motors."""
    pairs = [("car", "motor"), ("motor", "piston"), ("cat", "fur"), ("fur", "paw"), ("tea", "cup"), ("cup", "leaf")]
    for number, (first, second) in enumerate(pairs * 2):
        (tmp_path / f"{number:02d}.txt").write_text(f"{first} {second} {first} {second} note{number}")
    (tmp_path / "only.txt").write_text("motor motor motor")
    by_words = PassageIndex(read_documents(tmp_path)).best("car", 5)
    assert {passage.document for passage in by_words} == {"00.txt", "06.txt"}
    both = PassageIndex(read_documents(tmp_path), vectors=True).best("car", 4)
    assert [passage.document for passage in both[:2]] == ["00.txt", "06.txt"]  # high in both rankings
    assert {passage.document for passage in both[2:]} <= {"only.txt", "01.txt", "07.txt"}
    assert PassageIndex(read_documents(tmp_path), vectors=True).best("nowhere", 4) == []
    assert [p.document for p in PassageIndex({"a": "one"}, vectors=True).best("one", 3)] == ["a"]
    assert "only.txt" in SearchEnvironment(str(tmp_path), vectors=True).search("car")
