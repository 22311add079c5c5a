"""Capabilities of engines follow from their members, and a minimal engine suffices everywhere."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import jsonargparse
import numpy as np
import pytest

from nbg_lightning import engines
from nbg_lightning.construction.engines import engine_identity, engine_place
from nbg_lightning.core import create_model, preset
from nbg_lightning.core.hf_config import make_hf_config
from nbg_lightning.engines import LocalEngine, NativeEngine, Prompt, Sampling, ServerEngine, TokenScore, VLLMEngine
from nbg_lightning.engines.capabilities import interface_of, takes_weights, vocab_size_of, weights_of, window_of
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.engines.supervised import SupervisedEngine
from nbg_lightning.evaluation import Arithmetic, Suite, TextPerplexity
from nbg_lightning.evaluation.live import run_on_server
from nbg_lightning.evaluation.log_likelihood import EngineScorer, Request
from nbg_lightning.testing.benchmarks import character_tokenizer, write_rows

PAGE = Path(__file__).parents[3] / "docs" / "own_engine.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The module that the page shows."""
    file = tmp_path_factory.mktemp("page") / "my_engine.py"
    file.write_text(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])
    spec = importlib.util.spec_from_file_location("my_engine", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def minimal(page):
    return page.CountingEngine()


def test_the_least_engine_is_one_in_yaml(page, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_engine", page)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--engine", type=Engine)
    found = parser.instantiate(
        parser.parse_object({"engine": {"class_path": "my_engine.CountingEngine", "init_args": {"first": 5}}})
    ).engine
    assert found.generate([Prompt((1,))], Sampling(max_new_tokens=9, stop_ids=(7,)))[0][0].ids == (5, 6, 7)


def test_the_least_engine_says_the_least(minimal):
    assert not takes_weights(minimal)
    assert interface_of(minimal) == "ids"
    assert window_of(minimal) is vocab_size_of(minimal) is weights_of(minimal) is None
    assert engine_place(minimal) == "CountingEngine"
    with pytest.raises(ValueError, match="nobody can say which weights CountingEngine has"):
        engine_identity(minimal)


def test_the_least_engine_runs_a_suite_and_rates_nothing(minimal, tmp_path):
    tokenizer = character_tokenizer(tmp_path / "tokenizer")
    suite = Suite([Arithmetic(count=3)], format="text", sampling=Sampling(max_new_tokens=4, temperature=0.0))
    result = run_on_server(suite, minimal, tokenizer, None, "own")
    assert result.benchmarks[0].items == 3 and result.benchmarks[0].errors == 0
    rated = Suite([TextPerplexity(path=write_rows(tmp_path / "texts.jsonl", [{"text": "a b"}]), name="texts")])
    with pytest.raises(ValueError, match="texts rates given answers, and CountingEngine only writes"):
        rated.run(minimal, tokenizer)


def test_the_least_engine_is_supervised(minimal):
    def never(ids):
        raise AssertionError("nothing is compared")

    supervised = SupervisedEngine(minimal, create_model(preset("nano")), never)
    supervised.open()
    [[completion]] = supervised.generate([Prompt((1, 2))], Sampling(max_new_tokens=2), None, 7)
    supervised.close()
    assert completion.ids == (1, 2) and completion.weight_version == 7


class Scoring:
    """Rates every token alike."""

    def token_scores(self, sequences):
        return [[TokenScore(-1.0, True)] * (len(ids) - 1) for ids in sequences]


def test_an_engine_that_scores_may_say_neither_window_nor_vocabulary():
    scorer = EngineScorer(Scoring())
    assert scorer.window == 2048 and scorer.vocab_size is None
    [rated] = scorer([Request((1, 10**9), (3, 4, 5))])
    assert rated.total == -3.0 and rated.error is None


def test_a_window_and_a_vocabulary_that_are_said_are_kept():
    engine = Scoring()
    engine.window, engine.vocab_size = 6, 10
    long, outside = EngineScorer(engine)([Request((1, 2, 3), (4, 5, 6)), Request((1,), (11,))])
    assert "the window is 4" in long.error and np.isnan(long.total)
    assert "the id 11 is not in the vocabulary of 10" in outside.error


ABILITIES = [name for name in engines.__all__ if name.endswith("Engine") or name == "Windowed"]


def abilities(engine):
    types = {name: getattr(engines, name) for name in ABILITIES if name != "Engine"}
    return {name for name, kind in types.items() if getattr(kind, "_is_protocol", False) and isinstance(engine, kind)}


def test_what_the_shipped_engines_can_do():
    server = ServerEngine("http://127.0.0.1:9/v1", "m", "chat")
    assert abilities(server) == {"InterfaceEngine", "ServedEngine", "StreamingEngine", "TokenScoringEngine"}
    assert abilities(NativeEngine(create_model(preset("nano")))) == {"AttachableEngine", "StreamingEngine", "Windowed"}
    assert abilities(VLLMEngine()) == {
        "AttachableEngine",
        "ComparableEngine",
        "RoundingEngine",
        "SkeletonEngine",
        "TokenScoringEngine",
    }
    assert takes_weights(None) and takes_weights(VLLMEngine()) and not takes_weights(server)


def test_every_ability_is_in_the_page():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    declared = {
        name for name in ABILITIES if name != "Engine" and getattr(getattr(engines, name), "_is_protocol", False)
    }
    assert rows == declared


def test_a_local_engine_names_its_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(make_hf_config(preset("nano"))))
    engine = LocalEngine(str(tmp_path))
    assert weights_of(engine) == str(tmp_path) == engine_place(engine)
    assert abilities(engine) == {"FolderEngine", "StreamingEngine", "VocabularyEngine", "Windowed"}
    assert (window_of(engine), vocab_size_of(engine)) == (engine.shape.max_position_embeddings, engine.shape.vocab_size)
