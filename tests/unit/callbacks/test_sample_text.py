"""Samples end at the model's stop token, are readable, and do not affect training."""

import dataclasses

import pytest
import torch

from nbg_lightning.callbacks.sample_text import SampleText
from nbg_lightning.engines.native import NativeEngine
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


def test_readable_and_without_effect_on_training(tmp_path, capsys, monkeypatch):
    """A model that generates the end token at the fourth position: neither it nor anything after it is shown."""

    class Ending(NativeEngine):
        def generate(self, prompts, sampling, deadline=None):
            assert sampling.stop_ids == (END,)
            [[completion]] = super().generate(prompts, sampling, deadline)  # all its work is done
            return [[dataclasses.replace(completion, ids=(2, 3, 0, END), error=None)]]

    plain = train_small(tmp_path / "plain")
    monkeypatch.setattr("nbg_lightning.callbacks.sample_text.NativeEngine", Ending)
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
    with pytest.raises(ValueError, match="SampleText is invalid: prompts="):
        SampleText(**options)
