"""Names of earlier versions are answered with their current names."""

import importlib
import inspect
import pickle

import pytest

from nbg_lightning.import_path import import_object
from nbg_lightning.moved import IN_MODULES, MODULES, NAMES, new_name, recorded_name


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


@pytest.mark.parametrize(("old", "new"), sorted(IN_MODULES.items()))
def test_a_former_name_of_a_module_says_where_it_is(old, new):
    assert import_object(f"nbg_lightning.{new}") is not None
    module, _, name = old.rpartition(".")
    with pytest.raises(ImportError, match=rf"^nbg_lightning\.{old} has a new name: nbg_lightning\.{new}; write that$"):
        exec(f"from nbg_lightning.{module} import {name}")


def test_a_module_with_former_names_is_a_module_as_others():
    import nbg_lightning.distributed as module

    assert not hasattr(module, "Worlds")
    with pytest.raises(AttributeError, match=r"module 'nbg_lightning\.distributed' has no attribute 'Worlds'"):
        _ = module.Worlds
    assert inspect.getsource(module.gather_objects).startswith("def gather_objects")
    assert pickle.loads(pickle.dumps(module.gather_objects)) is module.gather_objects


def test_a_name_that_changed_in_a_module_that_moved():
    assert new_name("nbg_lightning.evaluation.world.World") == "nbg_lightning.distributed.gather_objects"
    assert new_name("nbg_lightning.construction.writers.Ask") == "nbg_lightning.construction.workflow.ModelRequest"


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
