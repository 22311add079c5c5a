"""One conversation with one model: its messages, its answers, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nbg_lightning.commands.speaker import Hear, Speaker
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, Sampling

_OPEN_CALL = "<tool_call>"
NamedCall = tuple[str, dict[str, Any]]


@dataclass
class Heard:
    """What a sample has said so far.

    Attributes:
        pieces: texts with their log-probs, in order.
    """

    pieces: list[tuple[str, float | None]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


@dataclass
class Session:
    """A conversation.

    Attributes:
        speaker: the model.
        sampling: how its answers are drawn.
        tools: JSON schemas that it may call.
        system: the system message; None for none.
        messages: what was said, without the system message.
    """

    speaker: Speaker
    sampling: Sampling
    tools: list[dict[str, Any]] | None = None
    system: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    _samples: list[Answer] = field(default_factory=list)

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """All messages, as a line of a data set has them."""
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, *self.messages] if self.speaker.converses else self.messages[-1:]

    def say(self, text: str) -> None:
        """Add a user's turn."""
        self.messages.append({"role": "user", "content": text})

    def answer(self, hear: Hear) -> list[Answer]:
        """Let the model answer; the first of several answers is kept.

        Ctrl-C ends the answer, and what was heard until then is kept as one that was cut.

        Raises:
            ValueError: the conversation cannot be a prompt; the last turn is removed.
            ConnectionError: the model failed, or its server; the same.
        """
        heard = [Heard() for _ in range(self.sampling.n)]

        def listen(sample: int, text: str, log_prob: float | None) -> None:
            heard[sample].pieces.append((text, log_prob))
            hear(sample, text, log_prob)

        try:
            prompt = self.speaker.prompt(self.conversation, self.tools)
            [completions] = self.speaker.speak([prompt], self.sampling, listen)
            if failure := next((each.error for each in completions if each.finish_reason == "error"), None):
                raise ConnectionError(failure)
            self._samples = [self.speaker.read(completion) for completion in completions]
        except KeyboardInterrupt:
            self._samples = [self._cut(each, number) for number, each in enumerate(heard)]
        except (ValueError, OSError):
            self.take_back()
            raise
        self.keep(0)
        return self._samples

    def _cut(self, heard: Heard, number: int) -> Answer:
        completion = Completion((), (), "deadline", 0, number, self.speaker.engine.weight_version, None, heard.text)
        answer = self.speaker.read(completion)
        if self.speaker.opens_thinking:
            text = f"<think>\n{heard.text}"
            answer = self.speaker.read(replace(completion, text=text))
        return answer

    def keep(self, number: int) -> None:
        """Go on with this sample of the last answer; one without an answer is not kept, nor the turn that it answers.

        Raises:
            ValueError: there is no such sample.
        """
        if not 0 <= number < len(self._samples):
            raise ValueError(f"there is no sample {number + 1}; there are {len(self._samples)} of the last answer")
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        answer = self._samples[number]
        if answer.final is None:
            self.take_back()
            return
        message: dict[str, Any] = {"role": "assistant", "content": answer.final}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        self.messages.append(message)

    def take_back(self) -> None:
        """Forget the last turn of the user, and all after it."""
        while self.messages and self.messages.pop()["role"] != "user":
            pass

    def reset(self) -> None:
        """Forget all but the system message."""
        self.messages.clear()
        self._samples.clear()

    # -- tools ---------------------------------------------------------------------------------------------------------

    def calls(self) -> list[NamedCall]:
        """What the kept answer calls; empty without tools, and where no call can be read."""
        if not self.tools or not self.messages or self.messages[-1]["role"] != "assistant":
            return []
        text = self.messages[-1]["content"]
        if _OPEN_CALL not in text:
            return []
        from nbg_lightning.evaluation.tasks.bfcl import extract_calls

        return extract_calls(text[text.index(_OPEN_CALL) :]) or []

    def give_results(self, results: Callable[[NamedCall], str | None]) -> bool:
        """Ask for the result of each call of the kept answer, and add them; False where one is not given.

        Args:
            results: a call to its result; None if there is none.
        """
        calls, given = self.calls(), []
        for call in calls:
            if (result := results(call)) is None:
                return False
            given.append(result)
        if not calls:
            return False
        first = len(self.messages)
        message = self.messages[-1]
        message["content"] = message["content"][: message["content"].index(_OPEN_CALL)].rstrip()
        message["tool_calls"] = [
            {"id": f"call-{first}-{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for place, (name, arguments) in enumerate(calls)
        ]
        self.messages += [
            {"role": "tool", "content": result, "tool_call_id": f"call-{first}-{place}"}
            for place, result in enumerate(given)
        ]
        return True
