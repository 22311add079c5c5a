"""Samples end where the model ends them, can be read, and change nothing of the training."""

import pytest
import torch

from nbg_lightning.callbacks.sample_text import SampleText, continue_text
from nbg_lightning.core.create import create_model
from nbg_lightning.testing import SMALL_SHAPE, SyntheticDataModule, train_small

END = 7


class Letters:
    """Ids are letters; one of them is a control token."""

    bos_id, eos_id = 0, END

    def __init__(self):
        self.decoded = []

    def encode(self, text):
        return [ord(letter) - ord("A") for letter in text]

    def decode(self, ids, skip_special_tokens=False):
        self.decoded.append(list(ids))
        letters = {END: "</s>", 0: "<s>"}
        text = [letters.get(i, chr(ord("A") + i)) for i in ids if not (skip_special_tokens and i in letters)]
        return "".join(text)


def data():
    module = SyntheticDataModule({"a": 97, "b": 23}, SMALL_SHAPE.vocab_size)
    module.tokenizer = Letters()
    return module


@pytest.fixture
def model():
    return create_model(SMALL_SHAPE, seed=2)


def test_ends_at_the_end_token(model):
    prompt = torch.tensor([3, 1, 4])
    whole = continue_text(model, prompt, 20, temperature=1.0, seed=1)
    assert len(whole) == 20
    end = whole[8]
    cut = continue_text(model, prompt, 20, temperature=1.0, seed=1, eos_id=end)
    assert cut == whole[: whole.index(end)]


def test_may_end_at_once(model):
    prompt = torch.tensor([3, 1, 4])
    first = continue_text(model, prompt, 1, temperature=0.0, seed=0)[0]
    assert continue_text(model, prompt, 5, temperature=0.0, seed=0, eos_id=first) == []


def test_readable_and_without_effect_on_training(tmp_path, capsys, monkeypatch):
    """A model that says the end token at the fourth place: nothing of it, or after it, is shown."""
    import nbg_lightning.callbacks.sample_text as module

    real = module.continue_text

    def forced(model, prompt, num_tokens, temperature, seed, eos_id=None):
        assert eos_id == END
        real(model, prompt, num_tokens, temperature, seed, eos_id)  # all its work is done
        return [2, 3, 0]

    plain = train_small(tmp_path / "plain")
    monkeypatch.setattr(module, "continue_text", forced)
    datamodule = data()
    sampled = train_small(
        tmp_path / "sampled",
        datamodule=datamodule,
        callbacks=[SampleText(["ABC"], num_tokens=4)],
        limit_val_batches=1.0,
        val_check_interval=4,
        logger=True,
    )
    assert sampled.losses == plain.losses
    assert all(torch.equal(sampled.weights[name], plain.weights[name]) for name in plain.weights)
    assert "ABCCD\n" in capsys.readouterr().out
    assert len(datamodule.tokenizer.decoded) == 3 + 1  # after each validation, and at the end


def test_validation_without_a_board_costs_nothing(tmp_path):
    datamodule = data()
    train_small(
        tmp_path,
        datamodule=datamodule,
        callbacks=[SampleText(["ABC"], num_tokens=2)],
        limit_val_batches=1.0,
        val_check_interval=4,
    )
    assert len(datamodule.tokenizer.decoded) == 1  # at the end only


@pytest.mark.parametrize(
    "options", [{"prompts": []}, {"prompts": ["a"], "num_tokens": 0}, {"prompts": ["a"], "temperature": -1}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="SampleText needs a prompt"):
        SampleText(**options)
