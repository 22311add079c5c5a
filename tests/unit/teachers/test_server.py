"""Parsing a server's prompt_logprobs; the real server is in tests/integration/test_teacher_server.py."""

import contextlib
import math

import numpy as np
import pytest

from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.teachers.server import ServerTeacher, _read
from nbg_lightning.teachers.targets import Sequence
from nbg_lightning.testing.json_server import ErrorReply, json_server

SEQUENCE = Sequence(np.array([5, 6, 7, 8]), np.array([False, False, True, True]))


def listed(*probabilities, own=None):
    """What the server says of one token: ids 10, 11, ... by rank, and the token itself at its rank."""
    found = {str(10 + n): {"logprob": math.log(p), "rank": n + 1} for n, p in enumerate(probabilities)}
    if own is not None:
        found[str(own)] = {"logprob": -9.0, "rank": 77}
    return found


def reply(*entries):
    return {"choices": [{"prompt_logprobs": [None, listed(0.9, 0.1), *entries]}]}


def test_lists_of_trained_tokens_by_hand():
    found = _read(reply(listed(0.5, 0.3, 0.1), listed(0.6, 0.2, own=8)), SEQUENCE, 2)
    # Entries 2 and 3 are about the trained tokens 7 and 8; what is beyond k goes into the tail.
    assert found.ids.tolist() == [[10, 11], [10, 11]]
    assert np.allclose(np.exp(found.log_probs), [[0.5, 0.3], [0.6, 0.2]])
    assert np.allclose(np.exp(found.tail), [0.2, 0.2])
    whole = _read(reply(listed(0.75, 0.25), listed(0.5, 0.5)), SEQUENCE, 2)
    assert (whole.tail == -math.inf).all()  # nothing is left over


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": [{}]}, "no prompt_logprobs for 4 tokens"),
        ({"error": "overloaded"}, "no prompt_logprobs for 4 tokens"),
        ({"choices": [{"prompt_logprobs": [None, {}]}]}, "has 2 prompt_logprobs for 4"),
        (reply(listed(0.5, 0.3), listed(0.5)), "fewer than 2 ids of token 3"),
        (reply(listed(0.5, 0.3), listed(0.5, own=8)), "fewer than 2 ids of token 3"),
        (reply(listed(0.5, 0.3), None), "fewer than 2 ids of token 3"),
        (reply(listed(5.0, 3.0), listed(0.5, 0.2)), "no log-probabilities"),
    ],
)
def test_what_is_not_that_is_an_error(answer, message):
    with pytest.raises(ValueError, match=message):
        _read(answer, SEQUENCE, 2)


@contextlib.contextmanager
def server_of(tokenizer):
    """A server that names the ids of a prompt as vLLM does, in the words of its tokenizer."""

    def answer(path, body):
        if body is None:
            return {"data": [{"id": "teacher"}]}
        ids = body["prompt"]
        if max(ids) >= tokenizer.vocab_size:
            raise ErrorReply(400, {"error": {"message": "Token id is out of vocabulary"}})
        named = [{str(i): {"logprob": -1.0, "rank": 1, "decoded_token": tokenizer.decode([i])}} for i in ids[1:]]
        return {"choices": [{"prompt_logprobs": [None, *named]}]}

    with json_server(answer) as url:
        yield url


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Two tokenizers of one size, and a larger one."""
    root = tmp_path_factory.mktemp("tokenizers")
    texts = {
        "dogs": (["the quick brown fox jumps over the lazy dog " * 3] * 20, 280),
        "code": (["def main(argv): return sum(int(x) for x in argv)\n" * 3] * 20, 280),
        "large": (["the quick brown fox jumps over the lazy dog " * 3, "Grüße aus Köln, 12345"] * 20, 300),
    }
    for name, (documents, size) in texts.items():
        train_bpe(documents, size, root / name)
    return {name: Tokenizer(root / name) for name in texts}


def test_a_server_with_the_datas_tokenizer_is_taken(tokenizers):
    with server_of(tokenizers["dogs"]) as url, ServerTeacher(url) as teacher:
        teacher.check_tokenizer(tokenizers["dogs"])


def test_a_server_with_another_tokenizer_is_refused(tokenizers):
    with (
        server_of(tokenizers["code"]) as url,
        ServerTeacher(url) as teacher,
        pytest.raises(ValueError, match=r"another tokenizer than the data \(\d+ of \d+ ids differ"),
    ):
        teacher.check_tokenizer(tokenizers["dogs"])


def test_a_server_with_fewer_ids_is_refused(tokenizers):
    with (
        server_of(tokenizers["dogs"]) as url,
        ServerTeacher(url, retries=0) as teacher,
        pytest.raises(ValueError, match=r"cannot be compared with the data's tokenizer .*300 ids"),
    ):
        teacher.check_tokenizer(tokenizers["large"])
