"""An untrusted tokenizer.json is loaded, or refused quickly with one line."""

import json
import random
import shutil
import time
from contextlib import suppress

import pytest

from nbg_lightning.data.tokenizer import Tokenizer, train_bpe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train_bpe(["the cat sat on the mat " * 20], 280, tmp_path_factory.mktemp("tokenizer") / "bpe")


@pytest.fixture
def changed(folder, tmp_path):
    """Writes a tokenizer with other rules; gives its folder."""

    def write(change):
        copy = shutil.copytree(folder, tmp_path / "changed")
        rules = json.loads((folder / "tokenizer.json").read_text())
        change(rules)
        (copy / "tokenizer.json").write_text(json.dumps(rules))
        return copy

    return write


def added(id, content="<x>"):
    return lambda rules: rules["added_tokens"].append({**rules["added_tokens"][0], "id": id, "content": content})


def named(id):
    return lambda rules: rules["model"]["vocab"].__setitem__("zzz", id)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (added(2**31), "the token '<x>' has the id 2,147,483,648, beyond any vocabulary"),
        (added(2**32), "beyond any vocabulary"),
        (added(10**6), "'<x>' has the id 1,000,000 in the file and 280 when it is loaded"),
        (added(281), "has the id 281 in the file and 280 when"),
        (added(5), "has the id 5 in the file and 280 when"),
        (added(-1), "expected u32"),
        (added(1.5), "expected u32"),
        (named(2**31), "the token 'zzz' has the id 2,147,483,648, beyond any vocabulary"),
        (named(10**7), "beyond any vocabulary"),
        (named(9_999_999), "has the id 9,999,999, and there are 281 tokens"),
        (named(2000), "has the id 2,000, and there are 281 tokens"),
        (lambda rules: (rules["model"].update(vocab={}, merges=[]), rules.update(added_tokens=[])), "it has no tokens"),
        (lambda rules: rules["model"]["merges"].append(["q", "zq"]), "not a tokenizer"),
        (lambda rules: rules.update(added_tokens=5), "not a tokenizer"),
    ],
)
def test_ids_beyond_the_vocabulary_are_refused(changed, change, said):
    begin = time.process_time()
    with pytest.raises(ValueError, match=said) as caught:
        Tokenizer(changed(change))
    assert "\n" not in str(caught.value)
    assert time.process_time() - begin < 2


def test_an_added_token_behind_the_vocabulary_is_read(changed):
    tokenizer = Tokenizer(changed(added(280)))
    assert tokenizer.vocab_size == 281
    assert tokenizer.encode("<x>", special=True) == [280]


def test_long_numbers_that_are_no_ids_are_read(changed):
    folder = changed(added(280, '": 123456789,'))
    assert Tokenizer(folder).token_id('": 123456789,') == 280


def test_damage_is_refused_in_one_line(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "damaged")
    good, draw, said = (folder / "tokenizer.json").read_bytes(), random.Random(1), []
    for number in range(200):
        data = bytearray(good)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (copy / "tokenizer.json").write_bytes(data if number % 5 else data[: draw.randrange(len(data))])
        with suppress(ValueError):  # a letter of another token is still a tokenizer
            Tokenizer(copy).encode("the cat")
            continue
        said.append(number)
    assert len(said) > 100
    for data in (b"[" * 100_000, b"\xff\xfe{}", b"", b"null"):
        (copy / "tokenizer.json").write_bytes(data)
        with pytest.raises(ValueError, match="not a tokenizer") as caught:
            Tokenizer(copy)
        assert "\n" not in str(caught.value)
