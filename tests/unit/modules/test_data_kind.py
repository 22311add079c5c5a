"""Which datamodules fit a module, and what sets its learning rate."""

import itertools
from types import SimpleNamespace

import pytest

import nbg_lightning as nbg
from nbg_lightning import data
from nbg_lightning.callbacks import FGWSD, WarmupDecay
from nbg_lightning.callbacks.learning_rate import LearningRateRule
from nbg_lightning.data.source_checks import check_sources
from nbg_lightning.datamodules.ordered import OrderedDataModule
from nbg_lightning.modules.data_kind import check_data

MODULES = {
    nbg.PretrainModule: nbg.CurriculumDataModule,
    nbg.SFTModule: nbg.ChatDataModule,
    nbg.DPDModule: nbg.PreferenceDataModule,
    nbg.GRPOModule: nbg.PromptDataModule,
}


@pytest.mark.parametrize(("module", "datamodule"), itertools.product(MODULES, MODULES.values()))
def test_every_pair_that_does_not_fit_is_refused_in_one_sentence(module, datamodule):
    data = object.__new__(datamodule)
    if MODULES[module] is datamodule:
        check_data(module.__name__, module.trains_on, data)
        return
    with pytest.raises(ValueError, match=rf"{module.__name__} works on .* {datamodule.__name__} gives") as raised:
        check_data(module.__name__, module.trains_on, data)
    assert MODULES[module].__name__ in str(raised.value)
    assert "\n" not in str(raised.value)


def test_benchmarks_go_with_any_module():
    check_data("SFTModule", "conversations", object.__new__(nbg.BenchmarkDataModule))


def test_data_and_algorithms_of_the_users_own_are_taken():
    class Own(OrderedDataModule):
        def source_windows(self, source, length):
            return 1

        def read(self, source, window, length):
            raise AssertionError

        def fingerprints(self):
            return {}

    check_data("SFTModule", "conversations", Own())
    check_data("MyModule", None, object.__new__(nbg.ChatDataModule))
    check_data("SFTModule", "conversations", None)


def test_two_rules_of_the_learning_rate_are_refused():
    stages = [nbg.Stage("a", 1024, 1e-3, {"web": 1})]
    rules = [FGWSD(stages, 512, 64), WarmupDecay(1e-3)]
    assert all(isinstance(rule, LearningRateRule) for rule in rules)
    with pytest.raises(ValueError, match="FGWSD and WarmupDecay both set the learning rate"):
        rules[1].setup(SimpleNamespace(callbacks=rules), None, "fit")


SOURCES = {
    nbg.CurriculumDataModule: data.JsonLines("x.jsonl"),
    nbg.ChatDataModule: data.ChatList([]),
    nbg.PreferenceDataModule: data.PairList([]),
    nbg.PromptDataModule: data.QuestionList([]),
}


@pytest.mark.parametrize(("datamodule", "owner"), itertools.permutations(SOURCES, 2))
def test_every_source_in_another_datamodule_is_refused_with_its_own(datamodule, owner):
    arguments = {} if datamodule is nbg.PromptDataModule else {"tokenizer": "x"}
    if datamodule in (nbg.ChatDataModule, nbg.PreferenceDataModule):
        arguments |= {"sequence_length": 64, "tokens_per_step": 128}
    with pytest.raises(ValueError, match=f"source 's' is invalid: a .* go to {owner.__name__}") as raised:
        datamodule(sources={"s": SOURCES[owner]}, **arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("sources", "cause"),
    [
        ([data.ChatList([])], "sources are invalid: a list; give names to them"),
        ("chat.jsonl", "sources are invalid: a str"),
        ({}, "ChatDataModule needs at least one source"),
        (
            {"s": "chat.jsonl"},
            "source 's' is invalid: a str, which is not a source; ChatDataModule takes sources of conversations",
        ),
        ({"s": None}, "source 's' is invalid: a NoneType"),
    ],
)
def test_what_is_no_source_is_refused(sources, cause):
    with pytest.raises(ValueError, match=cause):
        check_sources(sources, "conversations", "ChatDataModule")
