"""Suggestions in parser errors."""

import pytest

from nbg_lightning.commands.meant import with_suggestion


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        ("data: nbg_lightning.ChatDataModule: Option 'tokeniser' is not accepted", "tokenizer"),
        ("model: nbg_lightning.SFTModule: unrecognized arguments: --optimiser.lr=1", "optimizer"),
        ("unrecognized arguments: --trainer.max_stepz 3", "max_steps"),
        ("unrecognized arguments: --trainer.default_rootdir x", "default_root_dir"),
        ("core: expected Literal['small', 'tiny']; given value: tinny", "tiny"),
    ],
)
def test_the_name_that_was_meant(message, meant):
    assert with_suggestion(message) == f"{message} (did you mean {meant}?)"


@pytest.mark.parametrize(
    "message",
    [
        "data: nbg_lightning.ChatDataModule: Option 'zzz' is not accepted",
        "no.such.Thing: Option 'tokeniser' is not accepted",
        "unrecognized arguments: --qqqq",
        "something else",
    ],
)
def test_nothing_like_it(message):
    assert with_suggestion(message) == message


def test_a_class_without_its_package():
    message = "model: there is no class {}; write package.module.Name"
    assert with_suggestion(message.format("SFTModule")).endswith("(did you mean nbg_lightning.SFTModule?)")
    assert with_suggestion(message.format("Zzz")) == message.format("Zzz")
