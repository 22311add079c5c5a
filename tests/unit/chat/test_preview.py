from __future__ import annotations

import io

import pytest
from rich.console import Console

from nbg_lightning.chat import Conversation, NanbeigeRenderer, RenderCounts
from nbg_lightning.chat.preview import find_warnings, preview
from nbg_lightning.chat.renderer import Rendered


@pytest.fixture
def sample(tokenizer):
    turns = [
        {"role": "user", "content": "What is [bold]2+2[/bold]? 😀"},
        {"role": "assistant", "content": "It is\n4"},
    ]
    return NanbeigeRenderer(tokenizer).render(Conversation(turns))


def printed(samples, tokenizer, colour=False, **arguments):
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=colour, color_system="standard" if colour else None)
    warnings = preview(samples, tokenizer, console, **arguments)
    return stream.getvalue(), warnings


def test_everything_is_visible(sample, tokenizer):
    text, warnings = printed(sample, tokenizer)
    assert warnings == []
    assert "<|im_start|>user↵" in text
    assert "What is [bold]2+2[/bold]? 😀<|im_end|>" in text
    assert f"{len(sample)} tokens, {sample.num_trained} trained" in text
    assert "in 1 spans, weights 1" in text


def test_trained_tokens_are_coloured_and_others_are_not(sample, tokenizer):
    text, _ = printed(sample, tokenizer, colour=True)
    green = "\x1b[30;42m"
    assert f"{green}It is↵" in text
    assert "\x1b[2mWhat is" in text or "\x1b[2muser↵" in text
    assert f"{green}What" not in text
    assert "\x1b[1;30;42m<|im_end|>" in text
    assert "\x1b[1;2m<|im_end|>" in text  # the user's stop token


def test_only_the_first_samples_are_printed_but_all_are_checked(sample, tokenizer):
    bad = Rendered(sample.ids, [0.0] * len(sample), sample.spans)
    text, warnings = printed([sample] * 4 + [bad], tokenizer, num_samples=2)
    assert "sample 1:" in text
    assert "sample 2:" not in text
    assert warnings == ["1 of 5 samples: no token is trained"]
    assert "warning: 1 of 5 samples: no token is trained" in text


def test_warnings(sample, tokenizer):
    def only(**changes):
        values = {name: getattr(sample, name) for name in ("ids", "loss_weights", "spans")}
        return find_warnings([Rendered(**{**values, **changes})], tokenizer)

    assert only() == []
    stop = sample.trained_spans()[0][1] - 1
    cases = {
        "does not end with a stop token": {"loss_weights": [*sample.loss_weights[:stop], 0.0, 0.0]},
        "more than 98% of the tokens": {"loss_weights": [1.0] * len(sample)},
        "less than 1% of the tokens": {
            "ids": [*sample.ids[:1] * 1000, tokenizer.eos_token_id],
            "loss_weights": [0.0] * 1000 + [1.0],
        },
        "begins with two bos": {
            "ids": [tokenizer.bos_token_id] * 2 + sample.ids,
            "loss_weights": [0.0] * 2 + sample.loss_weights,
        },
        "unknown tokens": {"ids": [tokenizer.unk_token_id, *sample.ids[1:]]},
        "without its reasoning": {"num_reasoning_dropped": 1},
        "1 of 1 samples were truncated": {"num_rounds_dropped": 2},
    }
    for text, changes in cases.items():
        warnings = only(**changes)
        assert any(text in warning for warning in warnings), (text, warnings)


def test_counts_are_shown_and_checked(sample, tokenizer):
    counts = RenderCounts(seen=10, rendered=3, too_long=6, invalid=1, errors=["train, sample 4: empty user content"])
    text, warnings = printed(sample, tokenizer, counts=counts)
    assert "10 samples: 3 rendered" in text
    assert "6 of 10 samples were truncated or dropped; raise max_length" in warnings
    assert "1 of 10 samples were invalid; first: train, sample 4: empty user content" in warnings
