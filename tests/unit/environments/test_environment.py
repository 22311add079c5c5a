"""The page's own environment, and the bounds of episodes."""

import re
from pathlib import Path

import pytest

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import EpisodeLimits, ModelTurn

PAGE = Path(__file__).parents[3] / "docs" / "environments.md"


def test_the_environment_of_the_page_plays(tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(source.strip().splitlines()) <= 25
    space = {}
    exec(source, space)
    guess = space["Guess"]()
    opening = guess.reset(Question(({"role": "user", "content": "Guess."},), "7"))
    assert opening.turns[0]["content"] == "Guess."
    said = [guess.step(ModelTurn(text, content=text)) for text in ("what", "5", "9", "7")]
    assert [reply.turns[0]["content"] for reply in said[:3]] == ["Write a number.", "Larger.", "Smaller."]
    assert said[3].done and said[3].score == 1.0


@pytest.mark.parametrize(
    "setting", ["max_turns", "max_tokens", "turn_characters", "unreadable_calls", "workers", "open_at_once"]
)
def test_a_bound_that_leaves_nothing_is_refused(setting):
    with pytest.raises(ValueError, match=f"{setting} is invalid: 0; give at least 1"):
        EpisodeLimits(**{setting: 0})


@pytest.mark.parametrize("seconds", [0.0, float("nan"), float("inf")])
def test_seconds_are_bounded(seconds):
    with pytest.raises(ValueError, match="step_seconds is invalid"):
        EpisodeLimits(step_seconds=seconds)
