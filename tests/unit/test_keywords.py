"""Settings that constructors pass on: declared for type checkers like the base class's, and flat keys in YAML."""

import inspect
from typing import get_type_hints

import pytest
from jsonargparse import ArgumentParser

import nbg_lightning as nbg
from nbg_lightning.datamodules.prepared import PreparationKeywords, PreparedDataModule
from nbg_lightning.datamodules.questions import QuestionDataModule, QuestionKeywords
from nbg_lightning.datamodules.rendered import RenderedDataModule, RenderingKeywords
from nbg_lightning.keywords import constructor_parameters

NAMED = {"sources", "tokenizer", "sequence_length", "tokens_per_step"}  # by every datamodule itself
COMMON = NAMED | {"data_dir", "validation_fraction", "validation_tokens", "validation_rows", "num_workers", "seed"}
RENDERED = COMMON | {"prepare_workers", "epochs", "tokens", "template", "train_on_thinking", "max_length", "overflow"}
RENDERED |= {"on_invalid", "default_system", "add_bos"}
QUESTIONS = {"sources", "tokenizer", "template", "max_prompt_tokens", "on_invalid", "data_dir", "seed", "ledger"}


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        (PreparationKeywords, PreparedDataModule),
        (RenderingKeywords, RenderedDataModule),
        (QuestionKeywords, QuestionDataModule),
    ],
)
def test_declared_keywords_are_those_of_the_base_with_the_same_types(declared, kind):
    taken = {name: p.annotation for name, p in constructor_parameters(kind).items() if name not in NAMED}
    hints = get_type_hints(kind.__init__)
    assert set(taken) == set(get_type_hints(declared))
    own = {name: hint for name, hint in get_type_hints(declared).items() if name in inspect.signature(kind).parameters}
    assert own == {name: hints[name] for name in own} and own


@pytest.mark.parametrize(
    ("datamodule", "keys"),
    [
        (nbg.ChatDataModule, RENDERED | {"packing", "train_on"}),
        (nbg.PreferenceDataModule, RENDERED | {"cache"}),
        (nbg.PromptDataModule, QUESTIONS | {"pass_rate", "min_questions", "stages", "validation_sources", "steps"}),
    ],
)
def test_yaml_keys_stay_flat_and_have_their_defaults(datamodule, keys):
    assert keys <= set(constructor_parameters(datamodule))
    assert len(inspect.signature(datamodule).parameters) <= 15
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(datamodule, "data")
    defaults = parser.get_defaults().data
    assert keys <= set(vars(defaults)) and defaults.data_dir == "runs/data" and defaults.seed == 0


def test_a_wrong_keyword_is_refused_by_name():
    with pytest.raises(TypeError, match="validation_share"):
        nbg.ChatDataModule({}, "tokenizer", 8, 8, validation_share=0.1)
