"""Sampling settings, seeds, and errors about prompts that cannot be continued."""

import subprocess
import sys

import pytest

from nbg_lightning.engines.protocol import Prompt, Sampling, prompt_error, sample_seed
from nbg_lightning.engines.stop_strings import StopStrings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(max_new_tokens=0), "max_new_tokens is invalid: 0"),
        (dict(n=0), "n is invalid: 0"),
        (dict(temperature=-1.0), "temperature"),
        (dict(temperature=float("nan")), "temperature"),
        (dict(temperature=float("inf")), "temperature"),
        (dict(top_p=0.0), "top_p"),
        (dict(top_p=1.5), "top_p"),
        (dict(top_k=-1), "top_k"),
        (dict(stop_strings="end"), "stop_strings is invalid: 'end'"),
        (dict(stop_strings=("",)), "empty text"),
    ],
)
def test_settings_without_meaning_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        Sampling(**settings)
    assert "\n" not in str(raised.value)


def test_truncated_says_whether_log_probs_are_the_models():
    assert not Sampling().truncated
    assert Sampling(top_p=0.9).truncated
    assert Sampling(top_k=5).truncated
    assert not Sampling(temperature=0, top_p=0.9).truncated  # greedy draws nothing


def test_seeds_depend_on_prompt_and_sample_alone():
    first, again, other = Prompt((1, 2, 3)), Prompt([1, 2, 3]), Prompt((1, 2, 4))
    seed = sample_seed(Sampling(seed=1), first, 0)
    assert seed == sample_seed(Sampling(seed=1, n=7, max_new_tokens=3), again, 0)
    distinct = {
        seed,
        sample_seed(Sampling(seed=2), first, 0),
        sample_seed(Sampling(seed=1), first, 1),
        sample_seed(Sampling(seed=1), other, 0),
        sample_seed(Sampling(seed=1), Prompt((1, 2, 3), seed=0), 0),
        sample_seed(Sampling(seed=1), Prompt((1, 2, 3), seed=1), 0),
    }
    assert len(distinct) == 6
    assert all(0 <= value < 2**63 for value in distinct)


def test_what_cannot_be_continued_is_named():
    assert prompt_error(Prompt((1, 2)), 0, window=3, vocab_size=5) is None
    assert "no token ids" in prompt_error(Prompt(()), 0, window=3, vocab_size=5)
    assert "prompt 4 has 3 tokens, and the window is 3" in prompt_error(Prompt((1, 2, 3)), 4, window=3, vocab_size=5)
    assert "id 5" in prompt_error(Prompt((1, 5)), 0, window=3, vocab_size=5)


def test_importing_the_protocol_imports_no_torch():
    code = "import sys, nbg_lightning.engines.protocol; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PIECES = {0: "", 1: "a", 2: "b", 3: "ab", 4: " end", 5: "of", 6: "a longer piece of text", 7: "\n"}


def decode(ids):
    return "".join(PIECES[token] for token in ids)


@pytest.mark.parametrize(
    ("ids", "stops", "reached"),
    [
        ([1, 2, 1], ("end",), False),
        ([1, 4], ("end",), True),
        ([2, 3, 7], ("b\n",), True),
        ([4, 0, 0, 0, 0, 0, 0, 0, 0, 5], ("endof",), True),  # tokens without text in between
        ([1, 2, 6], ("ba lo",), True),  # ends inside the newest token
        ([1] * 50 + [2], ("aaaab", "x"), True),
        ([1] * 50, ("b",), False),
        ([], ("b",), False),
        ([4], (), False),
    ],
)
def test_stop_strings_are_found_in_the_end_of_the_text(ids, stops, reached):
    assert StopStrings(stops, decode).reached(ids) is reached


def test_a_stop_string_costs_the_same_in_a_long_text():
    decoded = []

    def counting(ids):
        decoded.append(len(ids))
        return decode(ids)

    StopStrings(("end",), counting).reached([1] * 100_000)
    assert sum(decoded) < 100
