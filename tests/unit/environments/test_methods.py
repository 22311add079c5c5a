"""A class whose public methods are tools, as for TRL's environment_factory, unchanged."""

import copy
import pickle

import pytest

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question
from nbg_lightning.environments import MethodEnvironment, ModelTurn


class Counter:
    """As in TRL's documentation: ``reset(**kwargs)``, tools with docstrings, and its own reward."""

    def __init__(self):
        self.value = self.reward = 0.0

    def reset(self, **kwargs) -> str | None:
        self.value = kwargs["start"]
        return f"The counter is at {self.value}."

    def increment(self, step: int) -> int:
        """Increment the counter.

        Args:
            step: by how much.
        """
        self.value += step
        self.reward = float(self.value == 5)
        return self.value

    def _hidden(self) -> None: ...


class Plain:
    def say(self, word: str) -> str:
        return word


class Nothing:
    value = 1


ASKED = Question(({"role": "user", "content": "Count to five."},), "5", data={"start": 2})


def call(name, **arguments):
    return ModelTurn("", None, "", (ToolCall(name, arguments, "call00000"),))


def test_each_episode_has_an_object_of_its_own():
    made = pickle.loads(pickle.dumps(MethodEnvironment(Counter)))
    first, second = copy.deepcopy(made), copy.deepcopy(made)
    opening = first.reset(ASKED)
    second.reset(ASKED)
    assert opening.turns[-1]["content"] == "Count to five.\n\nThe counter is at 2."
    ((schema,),) = (opening.tools,)
    assert schema["function"]["name"] == "increment"
    assert schema["function"]["parameters"]["properties"]["step"]["description"] == "by how much."
    assert first.step(call("increment", step=3)).turns[0]["content"] == "5"
    assert second.step(call("increment", step=1)).turns[0]["content"] == "3"
    ends = [each.step(ModelTurn("done", None, "done")) for each in (first, second)]
    assert [(end.done, end.score) for end in ends] == [(True, 1.0), (True, 0.0)]
    assert first.step(call("_hidden")).counts["unknown_tools"] == 1
    first.close()


def test_without_reset_and_reward_the_runs_reward_scores():
    environment = MethodEnvironment(Plain)
    environment.reset(ASKED)
    assert environment.step(call("say", word="hi")).turns[0]["content"] == "hi"
    end = environment.step(ModelTurn("hi", None, "hi"))
    assert end.done and end.score is None
    with pytest.raises(ValueError, match="no public method"):
        MethodEnvironment(Nothing)
