from __future__ import annotations

import pytest

from nbg_lightning.chat import (
    ChatOptions,
    Conversation,
    ConversationError,
    NanbeigeRenderer,
    RenderCounts,
    render_samples,
)
from nbg_lightning.chat.renderer import Rendered, check_mask


def rounds(number, text="word"):
    turns = [{"role": "system", "content": "Be brief."}]
    for index in range(number):
        turns += [
            {"role": "user", "content": f"{index}?"},
            {"role": "assistant", "content": f"{text} {index}"},
        ]
    return {"messages": turns}


def decode(tokenizer, rendered):
    return tokenizer.decode(rendered.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def run(tokenizer, samples, **options):
    counts = RenderCounts()
    renderer = NanbeigeRenderer(tokenizer, ChatOptions(**options))
    return list(render_samples(renderer, samples, counts, source="train", batch_size=3)), counts


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"train_on": "first"}, "train_on is invalid: first; there are all, last, last_query"),
        ({"overflow": "cut"}, "overflow is invalid: cut"),
        ({"on_invalid": "ignore"}, "on_invalid is invalid: ignore"),
        ({"max_length": 0}, "max_length is invalid: 0"),
    ],
)
def test_options_are_checked(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        ChatOptions(**arguments)


def test_order_indices_and_counts(tokenizer):
    samples = [rounds(number) for number in (1, 2, 3, 4, 5, 6, 7)]
    results, counts = run(tokenizer, samples)
    assert [index for index, _ in results] == list(range(7))
    single = NanbeigeRenderer(tokenizer)
    assert [rendered for _, rendered in results] == [single.render(Conversation.from_dict(item)) for item in samples]
    assert (counts.seen, counts.rendered, counts.too_long, counts.invalid, counts.truncated) == (
        7,
        7,
        0,
        0,
        0,
    )
    assert counts.tokens == sum(len(rendered) for _, rendered in results)
    assert counts.trained_tokens == sum(rendered.num_trained for _, rendered in results)


def test_exact_fit_is_kept_and_one_token_more_is_dropped(tokenizer):
    length = len(NanbeigeRenderer(tokenizer).render(Conversation.from_dict(rounds(2))))
    assert len(run(tokenizer, [rounds(2)], max_length=length)[0]) == 1
    results, counts = run(tokenizer, [rounds(2), rounds(1)], max_length=length - 1)
    assert [index for index, _ in results] == [1]
    assert (counts.seen, counts.rendered, counts.too_long) == (2, 1, 1)


def test_overflow_error_names_sample_and_lengths(tokenizer):
    with pytest.raises(ConversationError, match=r"train, sample 1: \d+ tokens are more than max_length=40"):
        run(tokenizer, [rounds(1), rounds(9)], max_length=40, overflow="error")


def test_truncate_left_keeps_the_system_turn_and_as_many_last_rounds_as_fit(tokenizer):
    renderer = NanbeigeRenderer(tokenizer)
    for kept in (1, 2, 3):
        messages = rounds(5)["messages"]
        expected = renderer.render(Conversation([messages[0], *messages[-2 * kept :]]))
        for spare in (0, 3):  # three more tokens are not enough for another round
            ((_, rendered),), counts = run(
                tokenizer, [rounds(5)], max_length=len(expected) + spare, overflow="truncate_left"
            )
            assert rendered.ids == expected.ids
            assert rendered.loss_weights == expected.loss_weights
            assert rendered.num_rounds_dropped == 5 - kept
            assert (counts.truncated, counts.rounds_dropped) == (1, 5 - kept)


def test_truncate_left_drops_a_last_round_that_does_not_fit(tokenizer):
    results, counts = run(tokenizer, [rounds(3, "word " * 50)], max_length=40, overflow="truncate_left")
    assert results == []
    assert (counts.too_long, counts.truncated, counts.rendered) == (1, 0, 0)


def test_truncate_left_never_splits_calls_from_results(tokenizer):
    sample = rounds(1)
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}
    sample["messages"] += [{"role": "user", "content": "do"}, call, {"role": "tool", "content": "x"}]
    sample["messages"] += [{"role": "assistant", "content": "done"}]
    full = NanbeigeRenderer(tokenizer).render(Conversation.from_dict(sample))
    ((_, rendered),), _ = run(tokenizer, [sample], max_length=len(full) - 1, overflow="truncate_left")
    text = decode(tokenizer, rendered)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\ndo<|im_end|>\n")
    assert "<tool_call>" in text
    assert "0?" not in text


def test_truncate_left_that_leaves_nothing_to_train_is_too_long(tokenizer):
    sample = rounds(3)
    for message in sample["messages"][3:]:
        if message["role"] == "assistant":
            message["weight"] = 0
    results, counts = run(tokenizer, [sample], max_length=40, overflow="truncate_left")
    assert results == []
    assert counts.too_long == 1


BAD = {"messages": [{"role": "user", "content": ""}]}
UNTRAINED = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}


@pytest.mark.parametrize(("bad", "cause"), [(BAD, "message 0: empty user content"), (UNTRAINED, "no token is trained")])
def test_bad_samples_are_named_or_counted(tokenizer, bad, cause):
    samples = [rounds(1), rounds(2), rounds(3), bad, rounds(4)]
    with pytest.raises(ConversationError, match=f"train, sample 3: {cause}"):
        run(tokenizer, samples)
    results, counts = run(tokenizer, samples, on_invalid="drop")
    assert [index for index, _ in results] == [0, 1, 2, 4]
    assert (counts.seen, counts.rendered, counts.invalid) == (5, 4, 1)
    assert counts.errors[0].startswith(f"train, sample 3: {cause}")


def test_counts_merge_over_workers(tokenizer):
    _, whole = run(tokenizer, [rounds(1), BAD, rounds(9), rounds(2)], max_length=60, on_invalid="drop")
    _, first = run(tokenizer, [rounds(1), BAD], max_length=60, on_invalid="drop")
    second = RenderCounts()
    renderer = NanbeigeRenderer(tokenizer, ChatOptions(max_length=60, on_invalid="drop"))
    list(render_samples(renderer, [rounds(9), rounds(2)], second, source="train", first_index=2))
    first.merge(second)
    assert first == whole
    assert whole.seen == whole.rendered + whole.too_long + whole.invalid == 4
    assert "4 samples: 2 rendered (0 truncated), 1 too long, 1 invalid" in whole.summary()


def test_mask_must_be_neither_empty_nor_full():
    check_mask([0.0, 1.0])
    with pytest.raises(ConversationError, match="no token is trained"):
        check_mask([0.0, 0.0])
    with pytest.raises(ConversationError, match="every token is trained"):
        check_mask([1.0, 0.5])


def test_trained_spans():
    weights = [1.0, 0.0, 0.5, 1.0, 0.0, 1.0]
    assert Rendered([0] * 6, weights, []).trained_spans() == [(0, 1), (2, 4), (5, 6)]
    assert Rendered([0] * 6, weights, []).num_trained == 4


def test_truncate_left_keeps_the_trained_round(tokenizer):
    # Only round 1 of 0..4 is trained: dropping round 0 fits, dropping more leaves nothing to train.
    sample = rounds(5)
    for message in sample["messages"]:
        if message["role"] == "assistant" and message["content"] != "word 1":
            message["weight"] = 0
    length = len(NanbeigeRenderer(tokenizer).render(Conversation.from_dict(sample)))
    ((_, rendered),), _ = run(tokenizer, [sample], max_length=length - 1, overflow="truncate_left")
    assert rendered.num_rounds_dropped == 1
