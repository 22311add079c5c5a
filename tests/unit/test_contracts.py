"""What callbacks and modules require of each other and of datamodules is declared, and implemented by the library's classes."""

import ast
from pathlib import Path

import lightning.pytorch as pl
import pytest

from nbg_lightning import contracts
from nbg_lightning.contracts import curriculum_of, datamodule_of
from nbg_lightning.datamodules import PromptDataModule
from nbg_lightning.modules import GRPOModule, PretrainModule
from nbg_lightning.rewards import MathReward
from nbg_lightning.schedule.curriculum import Curriculum
from nbg_lightning.testing import (
    SMALL_LENGTH,
    SMALL_SHAPE,
    SMALL_STEP_TOKENS,
    SumQuestions,
    SyntheticDataModule,
    small_stages,
)

ROOT = Path(__file__).parents[2]
LIBRARY_ROOMS = (
    "commands",
    "engines",
    "losses",
    "modules",
    "recipe",
    "rewards",
    "rl",
    "schedule",
    "teachers",
    "strategy.py",
)
WINDOWS = {"a": 64, "b": 64}
ROOMS = ["callbacks", "datamodules", *(f"nbg_lightning/{room}" for room in LIBRARY_ROOMS)]
CURRICULUM = Curriculum(small_stages(), SMALL_STEP_TOKENS, SMALL_LENGTH)


class Plain(pl.LightningDataModule):
    """A user's datamodule that does not use this library."""


@pytest.mark.parametrize(
    "protocol", ["HasCurriculum", "TakesCurriculum", "NamesUnit", "HasChatTemplate", "CountsSteps"]
)
def test_datamodules_of_the_library_have_what_callbacks_ask(protocol):
    questions = PromptDataModule({"sums": SumQuestions()}, tokenizer="unused")
    for datamodule in (SyntheticDataModule(WINDOWS, 64), questions):
        assert isinstance(datamodule, getattr(contracts, protocol))
    assert not isinstance(Plain(), getattr(contracts, protocol))


def test_units():
    assert SyntheticDataModule.unit == "tokens"
    assert PromptDataModule.unit == "questions"


def test_only_a_module_that_draws_answers_keeps_rollouts():
    policy, language_model = GRPOModule(MathReward(), SMALL_SHAPE), PretrainModule(SMALL_SHAPE)
    for module in (policy, language_model):
        assert isinstance(module, contracts.CountsSkippedSteps)
        assert isinstance(module, contracts.KeepsRollouts) == (module is policy)
        assert isinstance(module, contracts.LimitsAnswers) == (module is policy)


def test_a_trainer_knows_no_datamodule_until_it_is_given_one():
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert datamodule_of(trainer) is None
    assert curriculum_of(trainer) is None
    trainer.datamodule = Plain()
    assert curriculum_of(trainer) is None
    trainer.datamodule = data = SyntheticDataModule(WINDOWS, 64)
    data.use_curriculum(CURRICULUM)
    assert curriculum_of(trainer) is CURRICULUM


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_asked_by_an_attribute_written_as_text(room):
    found = [
        f"{file.name}:{call.lineno}"
        for file in sorted((ROOT / room).rglob("*.py") if (ROOT / room).is_dir() else [ROOT / room])
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr")
        if isinstance(call.args[1], ast.Constant)
    ]
    assert found == []
