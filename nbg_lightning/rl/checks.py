"""Checks that raise or warn before a reinforcement learning run wastes its steps."""

from __future__ import annotations

from collections.abc import Sequence

from nbg_lightning import log
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.rl.metrics import RolloutSummary


def check_settings(group_size: int, max_new_tokens: int, temperature: float, inner_updates: int) -> None:
    """Check the settings of rollouts.

    Raises:
        ValueError: one of them is out of its range.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("inner_updates", inner_updates)):
        if value < 1:
            raise ValueError(f"{name} is invalid: {value}; give at least 1")
    if group_size < 2:
        raise ValueError(f"group_size is invalid: {group_size}; an answer is compared with its group: give at least 2")
    if not temperature > 0:
        raise ValueError(
            f"temperature is invalid: {temperature}; give a number above 0: greedy answers of a group are all the same"
        )


def check_window(longest_prompt: int, max_new_tokens: int, window: int) -> None:
    """Check that prompts and answers fit into the model's window.

    Raises:
        ValueError: a prompt leaves no room for an answer.
    """
    if longest_prompt >= window:
        raise ValueError(
            f"the longest prompt has {longest_prompt:,} tokens, and the model's window is {window:,}; set the datamodule's "
            "max_prompt_tokens"
        )
    if longest_prompt + max_new_tokens > window:
        log.warn(
            f"the longest prompt ({longest_prompt:,} tokens) and max_new_tokens={max_new_tokens:,} exceed the model's "
            f"window of {window:,}: its answers are cut earlier"
        )


def check_gold_answers(questions: Sequence[Question], format: ChatFormat, max_new_tokens: int) -> None:
    """Warn if gold answers are longer than the length limit, since then no sample can be correct."""
    tokenizer = format.tokenizer
    golds = [question.answer for question in questions if question.answer]
    lengths = [] if tokenizer is None else [len(tokenizer.encode(gold)) + 1 for gold in golds]
    if (number := sum(length > max_new_tokens for length in lengths)) > 0:
        log.warn(
            f"max_new_tokens={max_new_tokens} is shorter than {number} of the first {len(lengths)} gold answers "
            f"(the longest takes {max(lengths)} tokens with its end): no sample can be right there; raise it"
        )


def check_truncation(summary: RolloutSummary, step: int, max_new_tokens: int, mask_truncated: bool) -> None:
    """Warn if the length limit cut every answer of a step."""
    if summary.answers and summary.truncated == summary.answers:
        log.warn(
            f"step {step}: all {summary.answers} answers were cut at max_new_tokens={max_new_tokens}"
            f"{', and none is trained' if mask_truncated else ''}: raise it"
        )
