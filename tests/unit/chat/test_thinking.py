from __future__ import annotations

import time

import pytest

from nbg_lightning.chat.thinking import read_thinking


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", (None, "plain")),
        ("", (None, "")),
        ("<think>\nx\n</think>\n\n5", ("x", "5")),
        ("  <think>x</think>5\n", ("x", "5\n")),
        ("x</think>5", ("x", "5")),  # the prompt opened it
        ("</think>5", (None, "5")),
        ("5</think>", ("5", "")),
        ("<think></think>5", (None, "5")),
        ("<think>a</think>", ("a", "")),
        ("<think>a</think>m<think>b</think>n", ("a\nb", "m\nn")),  # two numbers must not become one
        ("<think>a<think>b</think>7</think>5", ("a<think>b\n7", "5")),
        ("<think>a</think>5</think>", ("a", "5")),
        ("<think>a</think>5</think>\n</think>\n", ("a", "5\n\n")),
        ("<think>a", (None, None)),
        ("7\n<think>a", (None, None)),
        ("<think>a</think>7\n<think>b", (None, None)),
        ("the tag <think> opens it", (None, "the tag <think> opens it")),
        ("<think>a</think>(<think>) b", ("a", "(<think>) b")),
    ],
)
def test_complete_texts(text, expected):
    assert read_thinking(text) == expected


@pytest.mark.parametrize("text", ["<think>a", "7<think>a", "the tag <think> opens it", "<think>a</think>7 <think>b"])
def test_a_text_that_is_cut_inside_its_thinking_has_no_answer(text):
    assert read_thinking(text, complete=False) == (None, None)


def test_a_text_that_is_cut_after_its_thinking_has_one():
    assert read_thinking("<think>a</think>the answer is", complete=False) == ("a", "the answer is")


@pytest.mark.parametrize(
    "piece", ["</think>", "<think>", "<think></think>", "a</think>", "x<think>y</think>", "</think>\n "]
)
def test_time_is_linear(piece):
    begin = time.process_time()
    read_thinking(piece * (1_000_000 // len(piece)))
    assert time.process_time() - begin < 5
