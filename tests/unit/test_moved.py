"""Names of earlier versions are answered with the names of today."""

import importlib

import pytest

from nbg_lightning.import_path import import_object
from nbg_lightning.moved import MODULES, NAMES, new_name, recorded_name


@pytest.mark.parametrize(("old", "new"), sorted(MODULES.items()))
def test_an_earlier_module_says_where_it_is(old, new):
    importlib.import_module(f"nbg_lightning.{new}")
    assert new_name(f"nbg_lightning.{old}") == f"nbg_lightning.{new}"
    room = (
        new.partition(".")[0] if old.startswith("rollout") else f"{new}; write that$"
    )  # Python asks for the room first
    with pytest.raises(ModuleNotFoundError, match=f"nbg_lightning.{room}"):
        importlib.import_module(f"nbg_lightning.{old}")


@pytest.mark.parametrize(("old", "new"), sorted(NAMES.items()))
def test_an_earlier_name_says_where_it_is(old, new):
    assert import_object(f"nbg_lightning.{new}") is not None
    room, _, name = old.partition(".")
    with pytest.raises(ImportError, match=f"nbg_lightning.{new}; write that$"):
        exec(f"from nbg_lightning.{room} import {name}")


def test_a_public_name_of_a_moved_room():
    with pytest.raises(
        ImportError, match=r"^nbg_lightning\.rollout has .*\.engines, or nbg_lightning\.rl for rollouts"
    ):
        importlib.import_module("nbg_lightning.rollout")
    assert new_name("nbg_lightning.rollout.PassRateBand") == "nbg_lightning.rl.PassRateBand"
    assert new_name("nbg_lightning.rollout.chat.Answer") == "nbg_lightning.engines.chat.Answer"
    assert new_name("nbg_lightning.engines.Answer") is None
    assert new_name("other.rollout") is None


def test_what_files_record_stays_as_it_was():
    from nbg_lightning.data.question_sources import QuestionList
    from nbg_lightning.engines.server import ServerEngine

    assert recorded_name(ServerEngine) == "nbg_lightning.rollout.server.ServerEngine"
    assert recorded_name(QuestionList) == "nbg_lightning.data.question_sources.QuestionList"
