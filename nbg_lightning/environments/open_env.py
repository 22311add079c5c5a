"""Environments on an OpenEnv server, accessed by its WebSocket protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import Environment, EpisodeLimits, ModelTurn, Opening, Reply, Turn
from nbg_lightning.environments.tools import argument_problem
from nbg_lightning.extra import require

RESET = "reset"
"""In the data of a question: what the server's ``reset`` takes, such as ``{"seed": 7}``."""
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_MAX_MESSAGE = 16_000_000  # bytes of an observation; the model reads at most `limits.turn_characters` of it
_CONNECT_SECONDS = 10.0
_ABOUT = ("metadata", "reward", "done")  # fields of an observation that the model does not read
_FULL = "CAPACITY_REACHED"
_OF_THE_MODEL = ("VALIDATION_ERROR",)  # errors that the model's action caused


class OpenEnvEnvironment(Environment):
    """A session on an OpenEnv server (https://github.com/huggingface/OpenEnv) for each episode.

    With ``field`` the model acts by text: its turn, without reasoning, is that field of the server's action, and the
    server's observation is the user's next message. Without it the model acts by calls of the server's MCP tools, whose
    schemas it gets; a turn without a call is then its answer. Rewards are the scores of turns. The server's ``done`` ends
    the episode; a server that fails or disconnects ends it without a score. Actions that the server rejects, and failed
    calls whose arguments violate the tool's schema, are reported to the model and counted (``invalid_arguments``).

    Args:
        url: URL of the server, ``http://host:port`` or ``ws://host:port``.
        field: name of a text field of the server's action, such as ``message``; None for MCP tools.
        observation: name of the field of an observation that the model reads; None: its only text field, otherwise all of
            it as JSON.
        score: score of the episode: its ``last`` reward, or the ``sum`` of all. Without any reward it is left to the run's
            reward.
        instruction: text of a system turn, for questions without one.
        show_tools: whether the prompt includes the tools' schemas.
        limits: limits of the episodes; set ``open_at_once`` if the server accepts fewer sessions than there are episodes.

    Raises:
        ValueError: a URL with another scheme, or an unknown score.
        ImportError: ``websockets`` is not installed.
    """

    def __init__(
        self,
        url: str,
        field: str | None = None,
        observation: str | None = None,
        score: Literal["last", "sum"] = "last",
        instruction: str | None = None,
        show_tools: bool = True,
        limits: EpisodeLimits = EpisodeLimits(step_seconds=60.0),  # noqa: B008 - never mutated
    ):
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError(f"url is invalid: {url!r:.200}; give http://host:port of an OpenEnv server")
        if score not in ("last", "sum"):
            raise ValueError(f"score is invalid: {score!r:.60}; there are last, sum")
        _client()
        self.url = f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}/ws"
        self.field, self.observation, self.score = field, observation, score
        self.instruction, self.show_tools, self.limits = instruction, show_tools, limits
        self._rewards: list[float] = []
        self._parameters: dict[str, Mapping[str, Any]] = {}
        self._link: Any = None

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        _client()  # imported once, in the process that episodes are forked from

    def reset(self, question: Question) -> Opening:
        self._rewards = []
        self._link = _client().connect(
            self.url, open_timeout=_CONNECT_SECONDS, close_timeout=1.0, max_size=_MAX_MESSAGE, compression=None
        )
        begun = self._asked("reset", dict(question.data.get(RESET, {})))
        turns: list[Turn] = list(question.messages)
        if self.instruction is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self.instruction})
        if shown := self._shown(begun["observation"]):
            turns[-1] = {**turns[-1], "content": f"{turns[-1]['content']}\n\n{shown}"}
        if self.field is not None:
            return Opening(tuple(turns))
        listed = self._asked("step", {"type": "list_tools"})["observation"].get("tools", [])
        if not listed:
            raise ValueError("the server has no MCP tools; set field to the text field of its action")
        functions = [_function(tool) for tool in listed]
        self._parameters = {function["name"]: function["parameters"] for function in functions}
        tools = [{"type": "function", "function": function} for function in functions] if self.show_tools else []
        return Opening(tuple(turns), tuple(tools))

    def step(self, turn: ModelTurn) -> Reply:
        if self.field is not None:
            return self._acted(turn.content)
        if not turn.calls:
            return Reply(done=True, score=self._whole())
        replies: list[Turn] = []
        counts = {"calls": len(turn.calls)}
        score: float | None = None
        for call in turn.calls:
            try:
                said = self._asked("step", {"type": "call_tool", "tool_name": call.name, "arguments": call.arguments})
            except _Refused as refusal:
                counts["invalid_arguments"] = counts.get("invalid_arguments", 0) + 1
                replies.append(_result(call, f"error: {refusal}"))
                continue
            text, problem = _called(said["observation"])
            if problem == "raised" and self._breaks_schema(call):  # servers call a wrong type a failure of the tool
                problem = "invalid_arguments"
            if problem is not None:
                counts[problem] = counts.get(problem, 0) + 1
            score = self._rewarded(said, score)
            if said.get("done"):
                return Reply(done=True, score=self._whole(), counts=counts)
            replies.append(_result(call, text))
        return Reply(tuple(replies), score=score, counts=counts)

    def _breaks_schema(self, call: ToolCall) -> bool:
        """Whether these arguments violate the tool's schema, as far as the schema is understood."""
        parameters = self._parameters.get(call.name)
        if not isinstance(parameters, Mapping) or not isinstance(parameters.get("properties"), Mapping):
            return False
        try:
            return argument_problem(call.name, call.arguments, parameters) is not None
        except (AttributeError, KeyError, TypeError):  # a server's schema may be anything
            return False

    def _acted(self, text: str) -> Reply:
        """The reply to a text action."""
        assert self.field is not None
        try:
            said = self._asked("step", {self.field: text})
        except _Refused as refusal:
            told: Turn = {"role": "user", "content": f"error: {refusal}"}
            return Reply((told,), counts={"invalid_arguments": 1})
        score = self._rewarded(said, None)
        if said.get("done"):
            return Reply(done=True, score=self._whole())
        return Reply(({"role": "user", "content": self._shown(said["observation"]) or "(nothing)"},), score=score)

    def close(self) -> None:
        if self._link is not None:
            self._link.send(json.dumps({"type": "close"}))
            self._link.close()

    def _asked(self, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message and return the server's answer.

        Raises:
            _Refused: the server rejects the action.
            RuntimeError: the server failed, or answered in another protocol.
        """
        self._link.send(json.dumps({"type": kind, "data": data}))
        found = json.loads(self._link.recv(timeout=self.limits.step_seconds))
        content = found.get("data") if isinstance(found, dict) else None
        if not isinstance(content, dict):
            raise RuntimeError(
                f"{self.url} answered what is no message of OpenEnv ({str(found)[:100]}); start an OpenEnv server there"
            )
        if found.get("type") == "error":
            said = f"{content.get('code')}: {content.get('message')}"
            if kind == "step" and content.get("code") in _OF_THE_MODEL:
                raise _Refused(f"{said}{_where(content.get('errors'))}")
            if content.get("code") == _FULL:
                raise RuntimeError(f"{self.url} answered {said}; set limits.open_at_once to its max_concurrent_envs")
            raise RuntimeError(f"{self.url} answered {said}; see the server's messages")
        if not isinstance(content.get("observation"), dict):
            raise RuntimeError(
                f"{self.url} answered {found.get('type')!r} without an observation; see the server's messages"
            )
        return content

    def _shown(self, observation: Mapping[str, Any]) -> str:
        """The text of an observation for the model."""
        fields = {name: value for name, value in observation.items() if name not in _ABOUT}
        if self.observation is not None:
            if self.observation not in fields:
                raise ValueError(f"observation is invalid: {self.observation!r}; there are {', '.join(fields)}")
            fields = {self.observation: fields[self.observation]}
        if len(fields) == 1 and isinstance(value := next(iter(fields.values())), str):
            return value
        return json.dumps(fields, ensure_ascii=False) if fields else ""

    def _rewarded(self, said: Mapping[str, Any], before: float | None) -> float | None:
        """The score of a turn with this reward added."""
        reward = said.get("reward")
        if reward is None:
            return before
        self._rewards.append(float(reward))
        return self._rewards[-1] + (before or 0.0)

    def _whole(self) -> float | None:
        """The score of the episode."""
        if not self._rewards:
            return None
        return sum(self._rewards) if self.score == "sum" else self._rewards[-1]


def _client() -> Any:
    return require("websockets.sync.client", "OpenEnvEnvironment", "openenv")


class _Refused(Exception):
    """The server rejects the model's action."""


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    """An MCP tool in the format of chat templates."""
    parameters = tool.get("input_schema") or tool.get("inputSchema") or {"type": "object", "properties": {}}
    return {"name": tool["name"], "description": tool.get("description") or "", "parameters": parameters}


def _called(observation: Mapping[str, Any]) -> tuple[str, str | None]:
    """The result of a tool as text, and the name of the count if it failed."""
    error = observation.get("error")
    if error is not None:
        kind = error.get("error_type", "") if isinstance(error, dict) else ""
        problem = {"tool_not_found": "unknown_tools", "invalid_args": "invalid_arguments"}.get(kind, "raised")
        return f"error: {error.get('message') if isinstance(error, dict) else error}", problem
    result = observation.get("result")
    if isinstance(result, dict) and "content" in result:
        text = "\n".join(str(part.get("text", "")) for part in result["content"] if isinstance(part, dict))
        return text, "raised" if result.get("is_error") or result.get("isError") else None
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False), None


def _result(call: ToolCall, text: str) -> Turn:
    return {"role": "tool", "name": call.name, "tool_call_id": call.id, "content": text}


def _where(errors: Any) -> str:
    """The fields that a server rejects, with its reasons."""
    if not isinstance(errors, list):
        return ""
    told = [f"{'.'.join(map(str, e.get('loc', ())))}: {e.get('msg')}" for e in errors[:3] if isinstance(e, dict)]
    return f" ({'; '.join(told)})" if told else ""
