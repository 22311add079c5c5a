"""Execution of a build's workflows: open models, and a journal of their responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.provenance import digest
from nbg_lightning.construction.store import JsonRecord, KeyedLines
from nbg_lightning.construction.workflow import ModelRequest, ModelResponse, Workflow
from nbg_lightning.engines.chat import ChatModel
from nbg_lightning.engines.protocol import Prompt, Sampling
from nbg_lightning.error_line import first_line

MAX_FAILURES = 100  # consecutive failures after which a model is not used any more


class RequestScheduler:
    """Runs many workflows concurrently; used as a context manager.

    Simultaneous requests are sent to an engine in one call. Every response is in the journal, under the item's key and the
    step's name, before its workflow receives it.

    Args:
        models: models by name.
        journal: stores the responses.
        seed: combined with the item's key and the step to seed every response.

    Attributes:
        made: number of requests sent to models.
        replayed: number of responses taken from the journal.

    Raises:
        RuntimeError: from `respond`: an engine failed repeatedly.
    """

    def __init__(self, models: Mapping[str, ChatModelConfig], journal: KeyedLines, seed: int = 0):
        self.configs, self.journal, self.seed = dict(models), journal, seed
        self.made = self.replayed = 0
        self._chats: dict[str, ChatModel] = {}
        self._failures: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> RequestScheduler:
        self._chats = {name: config.open_chat() for name, config in self.configs.items()}
        with ExitStack() as stack:  # leaves what was entered if a later one fails
            for config in {id(config.engine): config for config in self.configs.values()}.values():
                stack.enter_context(config.engine)
                config.load()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, workflows: Mapping[str, Workflow], ended: Callable[[str, JsonRecord], None]) -> None:
        """Run all workflows to completion in lockstep, batching simultaneous requests.

        Args:
            workflows: workflows by item key.
            ended: called with the key and record of each workflow as soon as it ends.
        """
        sent: dict[str, list[ModelResponse] | None] = dict.fromkeys(workflows)
        while sent:
            pending: list[tuple[str, list[ModelRequest[Any]]]] = []
            for key, responses in sent.items():
                workflow = workflows[key]
                try:
                    pending.append((key, next(workflow) if responses is None else workflow.send(responses)))
                except StopIteration as stop:
                    ended(key, stop.value)
            flat = iter(self.respond([(key, request) for key, requests in pending for request in requests]))
            sent = {key: [next(flat) for _ in requests] for key, requests in pending}

    def respond(self, requests: Sequence[tuple[str, ModelRequest[Any]]]) -> list[ModelResponse]:
        """The responses to requests of items; from the journal if available.

        Raises:
            RuntimeError: the last `MAX_FAILURES` responses of a model failed, or a step made another request before.
        """
        responses: list[ModelResponse | None] = [self._remembered(key, request) for key, request in requests]
        groups: dict[tuple[str, Sampling], list[int]] = {}
        for index, (_, request) in enumerate(requests):
            if responses[index] is None:
                groups.setdefault((request.model, request.sampling), []).append(index)
        for (model, sampling), indices in groups.items():
            drawn = self._draw(model, sampling, [requests[index] for index in indices])
            for index, response in zip(indices, drawn, strict=True):
                responses[index] = response
        return [response for response in responses if response is not None]

    def _remembered(self, key: str, request: ModelRequest[Any]) -> ModelResponse | None:
        record = self.journal.get(f"{key}/{request.step}")
        if record is None:
            return None
        if record["asked"] != digest(request.messages):
            raise RuntimeError(
                f"step {request.step!r} of item {key} is invalid: it asked something else before; give another folder"
            )
        self.replayed += 1
        return ModelResponse(record["text"], record["finish_reason"])

    def _draw(
        self, name: str, sampling: Sampling, requests: list[tuple[str, ModelRequest[Any]]]
    ) -> list[ModelResponse]:
        """Call the engine and store its responses; failed ones are not stored, so that another run retries them."""
        chat = self._chats[name]
        prompts: list[Prompt] = []
        responses: dict[int, ModelResponse] = {}
        places = []
        for index, (key, request) in enumerate(requests):
            seed = int(digest([self.seed, key, request.step])[:15], 16)
            try:
                prompts.append(chat.format.prompt(request.messages, seed=seed))
                places.append(index)
            except ValueError as error:
                responses[index] = ModelResponse("", "error", f"no prompt: {first_line(error)}")
        answers = chat.write_prompts(prompts, sampling, self.configs[name].deadline) if prompts else []
        records = []
        for index, [answer] in zip(places, answers, strict=True):
            completion = answer.completion
            if completion.finish_reason in ("error", "deadline"):
                responses[index] = ModelResponse(answer.text, completion.finish_reason, completion.error or "deadline")
                self._failures[name] = self._failures.get(name, 0) + 1
                continue
            self._failures[name] = 0
            responses[index] = ModelResponse(answer.text, completion.finish_reason)
            key, request = requests[index]
            records.append(
                {
                    "key": f"{key}/{request.step}",
                    "model": name,
                    "text": answer.text,
                    "finish_reason": completion.finish_reason,
                    "tokens": len(completion.ids),
                    "asked": digest(request.messages),
                }
            )
        self.journal.add(records)
        self.made += len(requests)
        self._check_failures(name, responses)
        return [responses[index] for index in range(len(requests))]

    def _check_failures(self, name: str, responses: Mapping[int, ModelResponse]) -> None:
        if self._failures.get(name, 0) >= MAX_FAILURES:
            first = next(response.error for response in responses.values() if response.error)
            raise RuntimeError(
                f"model {name!r} is invalid: its last {self._failures[name]} responses failed ({first}); fix its engine and "
                "run the same command to resume"
            )
