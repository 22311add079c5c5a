"""The server engine against a real vLLM server on a loopback port. Starting it takes some 30 s."""

import numpy as np
import pytest
import torch

from nbg_lightning.core import create_model, preset
from nbg_lightning.engines import NativeEngine, Prompt, Sampling, ServerEngine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory, serve):
    """A model, its tokenizer, and the address of a server that has them."""
    from nbg_lightning.core.hf_folder import save_hugging_face
    from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

    root = tmp_path_factory.mktemp("served")
    train_bpe(["the quick brown fox jumps over the lazy dog " * 3] * 20, 300, root / "tokenizer")
    tokenizer = Tokenizer(root / "tokenizer")
    model = create_model(preset("nano", max_position_embeddings=256), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    save_hugging_face(model, root / "model", tokenizer, dtype="float32", verify=False)
    arguments = ["--max-model-len", "256", "--logprobs-mode", "processed_logprobs", "--served-model-name", "nano"]
    with serve(root / "model", *arguments) as url:
        yield model, tokenizer, url


def prompts(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [Prompt(torch.randint(0, 300, (length,), generator=generator).tolist()) for length in lengths]


def assert_same(ours, theirs):
    for group, other in zip(ours, theirs, strict=True):
        for one, two in zip(group, other, strict=True):
            assert (one.ids, one.finish_reason) == (two.ids, two.finish_reason)
            assert np.allclose(one.log_probs, two.log_probs, atol=1e-4, rtol=0)


def test_ids_and_log_probs_are_those_of_the_native_engine(served):
    model, tokenizer, url = served
    native = NativeEngine(model, decode=tokenizer.decode)
    asked = prompts(3, 40, 1, 9, 90)
    greedy = Sampling(max_new_tokens=16, temperature=0)
    plain = native.generate(asked, greedy)
    with ServerEngine(url) as engine:
        assert engine.model == "nano"
        assert_same(engine.generate(asked, greedy), plain)
        stop = Sampling(max_new_tokens=16, temperature=0, stop_ids=(plain[1][0].ids[5],))
        assert_same(engine.generate(asked, stop), native.generate(asked, stop))
        warm = Sampling(max_new_tokens=12, temperature=0.7, n=3)
        first = engine.generate(asked, warm)
        assert [[c.ids for c in group] for group in first] == [
            [c.ids for c in group] for group in engine.generate(asked[::-1], warm)[::-1]
        ]
        for prompt, group in zip(asked, first, strict=True):
            assert len({c.ids for c in group}) == 3
            for completion in group:
                [scores] = native.score([prompt.ids + completion.ids], temperature=0.7)
                assert np.allclose(completion.log_probs, scores[len(prompt.ids) - 1 :], atol=1e-4)


def test_its_errors_are_completions(served):
    _, _, url = served
    with ServerEngine(url, retries=1, pause=0.01) as engine:
        good, long, empty = engine.generate([*prompts(3), Prompt((1,) * 300), Prompt(())], Sampling(max_new_tokens=4))
        assert good[0].finish_reason == "length"
        assert long[0].finish_reason == "error"
        assert "HTTP 400" in long[0].error
        assert empty[0].finish_reason == "error"
        [[late]] = engine.generate(prompts(3), Sampling(max_new_tokens=200), deadline=0.01)
        assert late.finish_reason == "deadline"


def test_text_in_text_out(served):
    _, _, url = served
    with ServerEngine(url, interface="text") as engine:
        [[completion]] = engine.generate([Prompt((), text="the quick")], Sampling(max_new_tokens=6, temperature=0))
    assert completion.finish_reason in ("stop", "length")
    assert isinstance(completion.text, str)
    assert completion.ids == completion.log_probs == ()
