"""Reading a server's prompt_logprobs; the real server is in tests/integration/test_teacher_server.py."""

import math

import numpy as np
import pytest

from nbg_lightning.teachers.server import _read
from nbg_lightning.teachers.targets import Sequence

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
