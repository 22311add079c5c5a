"""The docs page's own environment, and the limits of episodes."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import Environment, EpisodeLimits, ModelTurn, Reply
from nbg_lightning.environments.worker import EnvironmentFailed, LocalEpisode

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


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("score", float("nan")),
        ("score", "1"),
        ("status", "well"),
        ("detail", None),
        ("counts", [1]),
        ("counts", {"a": "b"}),
    ],
)
def test_a_reply_that_nothing_can_read_is_refused_where_it_is_made(setting, value):
    with pytest.raises(ValueError, match=f"{setting} is invalid: .*; "):
        Reply(**{setting: value})
    assert Reply(done=True, score=np.float32(0.5)).score == 0.5


class Leaves(Environment):
    """Ends its interpreter."""

    limits = EpisodeLimits(isolated=False)

    def reset(self, question):
        sys.exit(3)

    def step(self, turn):
        return Reply(done=True)


def test_an_environment_that_leaves_the_interpreter_ends_its_episode_alone():
    with pytest.raises(EnvironmentFailed, match=r"Leaves\.reset failed"):
        LocalEpisode(Leaves()).reset(Question(()), 1.0)
