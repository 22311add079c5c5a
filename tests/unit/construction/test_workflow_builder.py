"""A custom builder, as on the page on building data."""

import json
import re
from pathlib import Path

import pytest

from nbg_lightning.construction import ChatModelConfig
from nbg_lightning.engines.protocol import Completion, failed

PAGE = Path(__file__).parents[3] / "docs" / "construction_solutions.md"


class Titler:
    """An engine that gives the texts' last word, refuses one text, and fails for another."""

    interface = "chat"
    weight_version = 0

    def __init__(self):
        self.asked, self.broken = 0, True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def generate(self, prompts, sampling, deadline=None):
        self.asked += len(prompts)
        answers = []
        for index, prompt in enumerate(prompts):
            word = prompt.text.split()[-1]
            if word == "broken" and self.broken:
                answers.append(failed(index, sampling, 0, "the server is down"))
                continue
            text = "I'm sorry, but I can't help with that." if word == "refused" else f"On {word}"
            answers.append([Completion((), (), "stop", index, 0, 0, None, text)])
        return answers


@pytest.fixture(scope="module")
def builder():
    """The page's class."""
    [code] = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "TitleBuilder" in block]
    scope = {"__name__": "page"}
    exec(code[: code.index("\nTitleBuilder(out=")], scope)
    return scope["TitleBuilder"]


def test_the_page_s_builder_builds_counts_and_goes_on(builder, tmp_path):
    engine = Titler()
    texts = {"a": "About cats", "b": "It is refused", "c": "It is broken"}

    def build():
        models = {"small": ChatModelConfig(engine)}
        return builder(out=str(tmp_path), texts=texts, titler="small", models=models, progress=False)

    report = build().run()
    assert {name: found["count"] for name, found in report["outcomes"].items()} == {
        "kept": 1,
        "title_refused": 1,
        "engine_error": 1,
    }
    assert engine.asked == 1 + 3 + 3  # a refusal and an error are asked again
    engine.broken, asked = False, engine.asked
    report = build().run()
    assert engine.asked == asked + 1  # only the one that failed
    rows = [json.loads(line) for line in (tmp_path / "titles.jsonl").read_text().splitlines()]
    assert rows == [{"key": "a", "title": "On cats"}, {"key": "c", "title": "On broken"}]
    shown = build().shown(report)
    assert shown[0].title == "build-titles: 3 items" and ("kept", "2", "") in shown[0].rows
    assert f"{tmp_path}/titles.jsonl: 2 rows" in shown


def test_a_role_must_name_a_model(builder, tmp_path):
    with pytest.raises(ValueError, match=r"titler is invalid: 'small' is none of the models \(none\)"):
        builder(out=str(tmp_path), texts={}, titler="small")


@pytest.mark.parametrize("setting", ["items_per_batch", "max_characters"])
def test_settings_that_cannot_be(builder, tmp_path, setting):
    with pytest.raises(ValueError, match=f"{setting} is invalid: 0; give at least 1"):
        builder(out=str(tmp_path), texts={}, titler="m", models={"m": ChatModelConfig(Titler())}, **{setting: 0})
    with pytest.raises(ValueError, match="limit is invalid: -1; give at least 0"):
        builder(out=str(tmp_path), texts={}, titler="m", models={"m": ChatModelConfig(Titler())}, limit=-1)
