"""An environment in a suite: episodes as items, failures as errors, and resuming after a kill."""

import json
from pathlib import Path

import pytest

from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.protocol import Completion, Sampling
from nbg_lightning.environments import EpisodeLimits
from nbg_lightning.evaluation import EnvironmentBenchmark, Suite, load_result
from nbg_lightning.pages.benchmarks import item_record
from nbg_lightning.testing.benchmarks import AnsweringEngine, write_rows
from nbg_lightning.testing.grpo import small_tokenizer
from nbg_lightning.testing.guessing import GuessingGame

LIMITS = EpisodeLimits(max_turns=3, isolated=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(small_tokenizer(tmp_path_factory.mktemp("tokenizer")))


class Guesses(AnsweringEngine):
    """Guesses 4, 5 and 6 in turn; sample by sample with another beginning."""

    def __init__(self, tokenizer, guess):
        self.tokenizer, self.stop = tokenizer, tokenizer.transformers.convert_tokens_to_ids("<|im_end|>")
        super().__init__(lambda prompt, sample: self._turn(prompt, guess))

    def _turn(self, prompt, guess):
        ids = (*self.tokenizer.encode(guess(self.tokenizer.decode(prompt.ids))), self.stop)
        return Completion(ids, (-1.0,) * len(ids), "stop", 0, 0, 0)


def upwards(text):
    """4 first, then one more for each hint."""
    return str(4 + text.count("Larger."))


ROWS = [
    {"question": "Guess four.", "answer": "4", "data": {"category": "easy"}},
    {"question": "Guess five.", "answer": "5", "data": {"category": "easy"}},
    {"question": "Guess nine.", "answer": "9", "data": {"category": "hard"}},
    {"question": "This breaks.", "answer": "five"},
]


def suite(path, **settings):
    benchmark = EnvironmentBenchmark(environment=GuessingGame(LIMITS), path=path, **settings)
    return Suite([benchmark], format="nanbeige", sampling=Sampling(max_new_tokens=50, temperature=1.0))


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "questions.jsonl", ROWS)


def test_episodes_are_scored_by_their_environment_and_its_failures_are_errors(tokenizer, rows, tmp_path):
    result = suite(rows, n=2).run(Guesses(tokenizer, upwards), tokenizer, folder=tmp_path / "out")
    found = result["environment"]
    assert (found.primary, found.items, found.scored, found.errors) == ("avg@2", 4, 3, 1)
    assert found.value == pytest.approx(2 / 3)
    assert found.metrics["pass@2"] == pytest.approx(2 / 3)
    assert found.intervals["avg@2"].low < 2 / 3 < found.intervals["avg@2"].high
    assert found.categories == {"easy": (1.0, 2), "hard": (0.0, 1)}
    assert "invalid literal" in found.first_error
    means = {name: found.metrics[f"episode/{name}"] for name in ("turns", "guesses", "answered", "max_turns", "calls")}
    assert means == pytest.approx({"turns": 2.0, "guesses": 2.0, "answered": 2 / 3, "max_turns": 1 / 3, "calls": 0.0})
    assert result.metrics["benchmark/environment/episode/turns"] == 2.0
    record = load_result(result.folder).records["environment"][1]
    sample = record["samples"][0]
    assert [turn["content"] for turn in sample["turns"]] == ["4", "Larger.", "5"]
    assert [turn.get("score") for turn in sample["turns"]] == [0.0, None, 1.0]
    assert (sample["end"], sample["score"]) == ("answered", 1.0)
    shown = item_record(record, "environment").answers[0]  # as `nbg view` reads it
    assert [(turn.role.split(", score")[0], turn.pieces[0].text) for turn in shown.turns] == [
        ("assistant, turn 1", "4"),
        ("user", "Larger."),
        ("assistant, turn 2", "5"),
    ]
    assert shown.score == 1.0 and ("ended by", "answered") in shown.facts
    assert record["prompt_tokens"] > 0 and found.about["new_tokens"] > 0


def test_what_was_played_is_not_played_again_and_a_changed_environment_is(tokenizer, rows, tmp_path):
    engine = Guesses(tokenizer, upwards)
    first = suite(rows).run(engine, tokenizer, folder=tmp_path / "out")
    calls = len(engine.calls)
    again = suite(rows).run(engine, tokenizer, folder=tmp_path / "out")
    assert again.folder == first.folder and again["environment"].value == first["environment"].value
    assert [len(prompts) for prompts, _ in engine.calls[calls:] if prompts] == [], "but for the broken item's opening"
    other = suite(rows)
    other.benchmarks[0].environment.secret = 7
    assert other.run(engine, tokenizer, folder=tmp_path / "out").folder != first.folder
    changed = [{**row, "data": {"hint": 1}} for row in ROWS]
    path = write_rows(tmp_path / "changed.jsonl", changed)
    Path(rows).write_text(Path(path).read_text())
    assert suite(rows).run(engine, tokenizer, folder=tmp_path / "out").folder != first.folder


def test_a_dying_engine_makes_errors_and_not_wrong_answers(tokenizer, rows):
    def dies(text):
        if "Larger." in text:
            raise RuntimeError("out of memory")
        return upwards(text)

    found = suite(rows).run(Guesses(tokenizer, dies), tokenizer)["environment"]
    assert (found.scored, found.errors, found.value) == (1, 3, 1.0)
    assert "out of memory" in found.first_error


def test_what_cannot_work_is_refused_before_anything_is_asked(tokenizer, rows):
    with pytest.raises(ValueError, match="set the format to nanbeige"):
        Suite([EnvironmentBenchmark(environment=GuessingGame(LIMITS), path=rows)], format="text").run(
            Guesses(tokenizer, upwards), tokenizer
        )
    for settings, said in (
        ({"path": rows}, "has no environment; give one"),
        ({"environment": GuessingGame(LIMITS)}, "path and source are invalid: nothing"),
        ({"environment": GuessingGame(LIMITS), "path": rows, "num_shots": 2}, "its own examples"),
    ):
        with pytest.raises(ValueError, match=said):
            EnvironmentBenchmark(**settings)


def test_an_environment_by_yaml_in_a_process_of_its_own(tokenizer, tmp_path):
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(2)]
    (tmp_path / "suite.yaml").write_text(
        json.dumps(
            {
                "format": "nanbeige",
                "sampling": {"max_new_tokens": 60, "temperature": 0.0},
                "benchmarks": [
                    {
                        "EnvironmentBenchmark": {
                            "name": "tools",
                            "environment": {"ToolEnvironment": {"functions": ["textwrap.dedent"]}},
                            "reward": "MathReward",
                            "path": write_rows(tmp_path / "q.jsonl", rows),
                        }
                    }
                ],
            }
        )
    )
    engine = Guesses(tokenizer, lambda text: "\\boxed{2}")
    found = Suite.from_yaml(tmp_path / "suite.yaml").run(engine, tokenizer)["tools"]
    assert (found.primary, found.value, found.errors) == ("accuracy", 0.5, 0)
