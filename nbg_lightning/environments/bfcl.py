"""BFCL's multi-turn tasks, executed and checked by the package ``bfcl-eval``."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.chat.values import did_you_mean, key_list
from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import Environment, EpisodeLimits, ModelTurn, Opening, Reply, Turn

TASK = "bfcl"
"""In the data of a question: the item's row with ``turns``, ``tools``, ``later_tools`` and ``ground_truth``."""
MAX_STEPS = 20
"""Turns of the model to one of the user's; with more the item is wrong, as in the package's own harness."""
_MORE_TOOLS = "{functions}\nI have updated some more functions you can choose from. What about now?"
_UTILITIES = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils"
_CHECKER = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker"


class BFCLEnvironment(Environment):
    """Simulated file systems, cars, tickets and trading accounts that the model operates by calls, over several user
    requests.

    A turn with calls is answered by their results, one without calls by the user's next message. After the last one, the
    package's checker compares all states and results with those of the gold calls: the score is 1 or 0. The package's
    executor evaluates text, so only calls of the item's functions, with JSON values, reach it.

    Args:
        limits: limits of the episodes.

    Raises:
        ModuleNotFoundError: when an episode starts: the package is not installed.
    """

    def __init__(
        self,
        limits: EpisodeLimits = EpisodeLimits(max_turns=160, step_seconds=30.0),  # noqa: B008 - never mutated
    ):
        self.limits = limits
        self._task: Mapping[str, Any] = {}
        self._name = ""
        self._known: dict[str, Mapping[str, Any]] = {}
        self._done: list[list[list[str]]] = []  # calls by turn of the user and turn of the model
        self._steps = 0

    def reset(self, question: Question) -> Opening:
        self._task, self._name = question.data[TASK], f"episode{uuid.uuid4().hex}"
        # As in the package's harness, a function that is not shown yet can be called: one gold answer does.
        tools = [*self._task["tools"], *(tool for later in self._task["later_tools"].values() for tool in later)]
        self._known = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        self._done, self._steps = [[]], 0
        self._execute([])  # creates the state that the calls work on
        return Opening(tuple(self._task["turns"][0]), tuple(self._task["tools"]))

    def step(self, turn: ModelTurn) -> Reply:
        if not turn.calls:
            return self._next_request()
        self._steps += 1
        if self._steps > MAX_STEPS:
            return Reply(done=True, score=0.0, detail=f"more than {MAX_STEPS} turns for one request")
        read = [self._written(call) for call in turn.calls]
        results = iter(self._execute([text for text, problem in read if problem is None]))
        self._done[-1].append([text for text, problem in read if problem is None])
        replies: list[Turn] = []
        for call, (_, problem) in zip(turn.calls, read, strict=True):
            content = next(results) if problem is None else f"error: {problem}"
            replies.append({"role": "tool", "name": call.name, "tool_call_id": call.id, "content": content})
        unknown = sum(problem is not None for _, problem in read)
        return Reply(tuple(replies), counts={"calls": len(read), **({"unknown_tools": unknown} if unknown else {})})

    def _next_request(self) -> Reply:
        """The user's next message, or the end of the episode."""
        number, self._steps = len(self._done), 0
        if number == len(self._task["turns"]):
            return self._checked()
        self._done.append([])
        turns = list(self._task["turns"][number])
        later = self._task["later_tools"].get(str(number), ())
        if later:
            functions = json.dumps([tool["function"] for tool in later], ensure_ascii=False)
            turns.append({"role": "user", "content": _MORE_TOOLS.format(functions=functions)})
        return Reply(tuple(turns))

    def _checked(self) -> Reply:
        made = [[step for step in steps if step] for steps in self._done]
        row = {name: self._task[name] for name in ("id", "initial_config", "involved_classes")}
        check = importlib.import_module(_CHECKER).multi_turn_checker
        found = check(made, self._task["ground_truth"], row, row["id"].rpartition("_")[0], f"{self._name}_checked")
        detail = "" if found["valid"] else str(found.get("error_type") or found.get("error_message"))
        return Reply(done=True, score=float(found["valid"]), detail=detail)

    def _written(self, call: ToolCall) -> tuple[str, str | None]:
        """A call in the executor's syntax, and the reason if it is rejected."""
        if call.name not in self._known:
            meant = did_you_mean(call.name, self._known)
            return "", f"there is no function {call.name!r:.60}{meant}; there are {key_list(self._known)}"
        parameters = self._known[call.name].get("properties", {})
        for name in call.arguments:
            if name not in parameters:
                return "", f"{call.name} has no parameter {name!r:.60}; there are {key_list(parameters)}"
        arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
        return f"{call.name}({arguments})", None

    def _execute(self, calls: Sequence[str]) -> list[str]:
        found: list[str] = importlib.import_module(_UTILITIES).execute_multi_turn_func_call(
            list(calls),
            self._task["initial_config"],
            self._task["involved_classes"],
            self._name,
            self._task["id"],
            long_context="long_context" in self._task["id"],
        )[0]
        return found
