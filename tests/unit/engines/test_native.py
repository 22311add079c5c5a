"""The native engine: the same answer for any batching, and all finish reasons."""

import math

import pytest
import torch

from nbg_lightning.core import create_model, preset
from nbg_lightning.core.decode import Decoder, split_by_length
from nbg_lightning.engines import NativeEngine, Prompt, Sampling


@pytest.fixture(scope="module")
def model():
    model = create_model(preset("nano", vocab_size=300, max_position_embeddings=64))
    with torch.no_grad():
        for parameter in model.parameters():  # larger weights: continuations that depend on what was read
            parameter.mul_(3) if parameter.ndim == 2 else parameter
    return model


def prompts(*lengths):
    generator = torch.Generator().manual_seed(sum(lengths))
    return [Prompt(torch.randint(0, 300, (length,), generator=generator).tolist()) for length in lengths]


RAGGED = prompts(3, 17, 1, 9, 30, 4, 12)


def ids(results):
    return [[completion.ids for completion in group] for group in results]


def test_greedy_equals_a_forward_over_the_whole_text(model):
    results = NativeEngine(model).generate(RAGGED, Sampling(max_new_tokens=12, temperature=0))
    for prompt, [completion] in zip(RAGGED, results, strict=True):
        text = list(prompt.ids)
        for token, log_prob in zip(completion.ids, completion.log_probs, strict=True):
            expected = model(torch.tensor([text]))[0, -1].log_softmax(-1)
            assert token == expected.argmax()
            assert log_prob == pytest.approx(expected[token].item(), abs=1e-5)
            text.append(token)
        assert completion.finish_reason == "length"


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=10, temperature=0), Sampling(max_new_tokens=10, n=3)])
@pytest.mark.parametrize(
    "settings",
    [
        dict(max_rows=1),
        dict(max_rows=2),
        dict(max_rows=5),
        dict(max_batch_tokens=100),
        dict(prefill_tokens=1),
        dict(prefill_tokens=20, max_rows=4),
    ],
)
def test_batches_of_any_make_give_the_same_completions(model, sampling, settings):
    together = ids(NativeEngine(model).generate(RAGGED, sampling))
    assert ids(NativeEngine(model, **settings).generate(RAGGED, sampling)) == together


def test_a_sample_does_not_depend_on_what_is_beside_it(model):
    sampling = Sampling(max_new_tokens=10, n=4, seed=3)
    engine = NativeEngine(model)
    together = ids(engine.generate(RAGGED, sampling))
    reversed_order = ids(engine.generate(RAGGED[::-1], sampling))[::-1]
    alone = [ids(engine.generate([prompt], sampling))[0] for prompt in RAGGED]
    fewer = ids(engine.generate(RAGGED, Sampling(max_new_tokens=10, n=2, seed=3)))
    assert together == reversed_order == alone
    assert [group[:2] for group in together] == fewer
    assert all(len(set(group)) > 1 for group in together)
    assert together != ids(engine.generate(RAGGED, Sampling(max_new_tokens=10, n=4, seed=4)))


def test_equal_prompts_differ_by_their_seed(model):
    same, other = engine_two = NativeEngine(model).generate(
        [Prompt((5, 6), seed=1), Prompt((5, 6), seed=2)], Sampling(max_new_tokens=10)
    )
    assert same[0].ids != other[0].ids
    assert [group[0].prompt_index for group in engine_two] == [0, 1]


def test_samples_share_one_prefill(model, monkeypatch):
    seen = []
    prefill = Decoder.prefill

    def counting(self, given):
        seen.extend(given)
        return prefill(self, given)

    monkeypatch.setattr(Decoder, "prefill", counting)
    for settings in (
        dict(),
        dict(max_rows=3),
        dict(max_rows=1),
    ):  # with few rows, samples of a prompt come in one by one
        seen.clear()
        NativeEngine(model, **settings).generate(RAGGED, Sampling(max_new_tokens=3, n=5))
        assert sorted(seen) == sorted(prompt.ids for prompt in RAGGED)


def test_rows_that_are_done_leave_the_batch(model, monkeypatch):
    sizes = []
    rows = Decoder.rows

    def counting(self, cache, lengths):
        sizes.append(len(lengths))
        return rows(self, cache, lengths)

    monkeypatch.setattr(Decoder, "rows", counting)
    engine = NativeEngine(model)
    plain = engine.generate(RAGGED, Sampling(max_new_tokens=12, temperature=5.0))
    stop = tuple({group[0].ids[2 + index] for index, group in enumerate(plain)})
    sizes.clear()
    stopped = engine.generate(RAGGED, Sampling(max_new_tokens=12, temperature=5.0, stop_ids=stop))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 3
    for [before], [after] in zip(plain, stopped, strict=True):
        assert after.ids == before.ids[: len(after.ids)]
        assert after.finish_reason == "stop"
        assert after.ids[-1] in stop
        assert not set(after.ids[:-1]) & set(stop)


def test_stop_strings_end_with_the_token_that_completes_them(model):
    def decode(tokens):
        return "".join(f"<{token}>" for token in tokens)

    engine = NativeEngine(model, decode=decode)
    [[plain]] = engine.generate(RAGGED[:1], Sampling(max_new_tokens=12))
    stop = decode(plain.ids[3:5])[1:-1]  # from inside the fourth token to inside the fifth
    [[stopped]] = engine.generate(RAGGED[:1], Sampling(max_new_tokens=12, stop_strings=("no such", stop)))
    assert stopped.ids == plain.ids[:5]
    assert stopped.log_probs == pytest.approx(plain.log_probs[:5], abs=1e-6)
    assert stopped.finish_reason == "stop"
    with pytest.raises(ValueError, match=r"decode=tokenizer\.decode"):
        NativeEngine(model).generate(RAGGED[:1], Sampling(stop_strings=("x",)))


def test_what_cannot_be_continued_is_an_error_in_its_place(model, monkeypatch):
    bad = [Prompt(()), Prompt((1,) * 64), Prompt((300,)), Prompt((-1,))]
    mixed = [RAGGED[0], bad[0], RAGGED[1], *bad[1:]]
    results = NativeEngine(model).generate(mixed, Sampling(max_new_tokens=4, n=2))
    assert [group[0].finish_reason for group in results] == ["length", "error", "length", "error", "error", "error"]
    assert "64 tokens, and the window is 64" in results[3][0].error
    assert all(len(group) == 2 and [c.sample_index for c in group] == [0, 1] for group in results)
    clean = NativeEngine(model).generate(RAGGED[:2], Sampling(max_new_tokens=4, n=2))
    assert ids(results)[0:3:2] == ids(clean)
    # ... and before any work, if there is no other.
    monkeypatch.setattr(Decoder, "__init__", lambda *_: pytest.fail("no forward is needed"))
    NativeEngine(model).generate(bad, Sampling())


def test_a_prompt_that_the_cache_cannot_hold_names_the_setting(model):
    [[refused], [done]] = NativeEngine(model, max_batch_tokens=30).generate(prompts(30, 4), Sampling(max_new_tokens=8))
    assert "max_batch_tokens=30" in refused.error
    assert done.finish_reason == "length"


def test_the_window_ends_a_completion(model):
    [[completion]] = NativeEngine(model).generate(prompts(60), Sampling(max_new_tokens=50))
    assert len(completion.ids) == 4
    assert completion.finish_reason == "length"


def test_broken_weights_are_an_error_and_not_an_answer(model):
    broken = create_model(preset("nano"))
    with torch.no_grad():
        broken.layers["1"].feed_forward.w2.weight[3, 3] = math.nan
    [[completion]] = NativeEngine(broken).generate(RAGGED[:1], Sampling(max_new_tokens=4))
    assert completion.finish_reason == "error"
    assert "not finite" in completion.error
    assert completion.ids == ()


def test_deadline_returns_what_is_there(model):
    sampling = Sampling(max_new_tokens=30, n=2)
    full = NativeEngine(model, max_rows=4).generate(RAGGED, sampling)
    for deadline in (0.0, 0.02):
        results = NativeEngine(model, max_rows=4).generate(RAGGED, sampling, deadline=deadline)
        reasons = {completion.finish_reason for group in results for completion in group}
        assert "deadline" in reasons
        assert reasons <= {"deadline", "length"}
        for group, complete in zip(results, full, strict=True):
            for cut, whole in zip(group, complete, strict=True):
                assert cut.ids == whole.ids[: len(cut.ids)]
    assert ids(NativeEngine(model, max_rows=4).generate(RAGGED, sampling, deadline=60.0)) == ids(full)


def test_new_weights_answer_at_once_and_carry_their_version():
    model = create_model(preset("nano"))
    engine, sampling = NativeEngine(model), Sampling(max_new_tokens=8, temperature=0)
    before = engine.generate(RAGGED, sampling)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    engine.sync(iter(()), version=5)
    after = engine.generate(RAGGED, sampling)
    assert ids(before) != ids(after)
    assert {c.weight_version for g in before for c in g} == {0}
    assert {c.weight_version for g in after for c in g} == {5}
    expected = model(torch.tensor([RAGGED[1].ids]))[0, -1].argmax()
    assert after[1][0].ids[0] == expected


def test_training_does_not_notice(model):
    model.train()
    model(torch.tensor([RAGGED[1].ids])).sum().backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    values = [parameter.detach().clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    NativeEngine(model).generate(RAGGED, Sampling(max_new_tokens=5, n=2))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    for parameter, grad, value in zip(model.parameters(), grads, values, strict=True):
        assert torch.equal(parameter.grad, grad)
        assert torch.equal(parameter, value)
        assert parameter.requires_grad
    model(torch.tensor([RAGGED[1].ids])).sum().backward()  # still trainable
    model.zero_grad()


@pytest.mark.parametrize(
    "changes",
    [dict(qk_norm=True), dict(qkv_bias=True), dict(tie_word_embeddings=False), dict(num_key_value_heads=2)],
)
@pytest.mark.parametrize("copied", [True, False])
def test_every_kind_of_model_decodes_as_it_reads(changes, copied, monkeypatch):
    if not copied:  # as large models
        monkeypatch.setattr("nbg_lightning.core.decode._COPY_BELOW_BYTES", 0)
    model = create_model(preset("nano", **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_norm" in name or "k_norm" in name:
                parameter.uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))
            elif name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    engine = NativeEngine(model)
    results = engine.generate(RAGGED[:3], Sampling(max_new_tokens=8))
    for prompt, [completion] in zip(RAGGED, results, strict=False):
        [scores] = engine.score([prompt.ids + completion.ids])
        whole = model(torch.tensor([prompt.ids + completion.ids]))[0].log_softmax(-1)
        expected = whole[:-1].gather(-1, torch.tensor(prompt.ids + completion.ids)[1:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(scores), expected)
        torch.testing.assert_close(torch.tensor(completion.log_probs), expected[len(prompt.ids) - 1 :])


def test_raised_rope_base_is_used():
    model = create_model(preset("nano"))
    engine, text = NativeEngine(model), prompts(40)[0].ids
    before = engine.score([text])
    model.rope_theta = 1e6
    assert engine.score([text]) != before
    [[completion]] = engine.generate([Prompt(text)], Sampling(max_new_tokens=4))
    expected = model(torch.tensor([text + completion.ids]))[0].log_softmax(-1)
    assert completion.log_probs[3] == pytest.approx(expected[42, completion.ids[3]].item(), abs=1e-5)


def test_bfloat16_stays_near_its_own_forward():
    model = create_model(preset("nano")).bfloat16()
    results = NativeEngine(model).generate(RAGGED, Sampling(max_new_tokens=20))
    for prompt, [completion] in zip(RAGGED, results, strict=True):
        whole = model(torch.tensor([prompt.ids + completion.ids]))[0].float().log_softmax(-1)
        expected = whole[len(prompt.ids) - 1 : -1].gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
        assert (torch.tensor(completion.log_probs) - expected).abs().max() < 0.05


def test_score_refuses_what_it_cannot_score(model):
    engine = NativeEngine(model)
    assert engine.score([]) == []
    assert engine.score([[3]]) == [[]]
    for bad in ([], [1] * 65):
        with pytest.raises(ValueError, match="sequence 1 is invalid"):
            engine.score([[1, 2], bad])


def test_settings_are_checked():
    with pytest.raises(ValueError, match="max_rows is invalid: 0"):
        NativeEngine(create_model(preset("nano")), max_rows=0)


def test_rows_are_read_in_groups_of_like_length():
    assert split_by_length([40] * 64) == [slice(0, 64)]
    assert split_by_length([1000] * 4 + [10] * 12) == [slice(0, 4), slice(4, 8), slice(8, 16)]
    parts = split_by_length(list(range(500, 0, -5)))
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, 100)
