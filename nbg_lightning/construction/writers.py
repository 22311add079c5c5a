"""Models that builders ask: engines with what they need to be spoken to, and every answer kept.

A builder's work on one item is a `Script`: a generator that yields what it asks and is sent the answers. `Interview`
drives many scripts at once, gives all questions to an engine that come up together, and keeps every answer in a journal
under the item's key and the step's name, before a script sees it. So a build that was killed goes through its scripts
again without asking anything twice, and comes to the same end.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import inspect
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nbg_lightning.chat.thinking import read_thinking
from nbg_lightning.construction.store import KeyedLines, Record
from nbg_lightning.data.tokenizer import load_tokenizer
from nbg_lightning.engines.chat import Template, Writer
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling
from nbg_lightning.error_line import first_line
from nbg_lightning.moved import recorded_name
from nbg_lightning.scoring.refusal import is_refusal

MAX_FAILURES = 100  # failed answers in a row after which an engine is not asked any more
_SECRETS = {"api_key"}
_NAMES_WEIGHTS = ("weights", "folder")  # arguments of engines that name files on this machine
_NAMES_FILES = (*_NAMES_WEIGHTS, "path")  # and of sources


@dataclass
class WriterConfig:
    """A model that writes.

    Args:
        engine: what generates; it is entered when the build begins and left when it ends. One that begins without weights
            (`VLLMEngine`) is given those of its folder.
        tokenizer: folder, hub name or checkpoint of the model's tokenizer; by default that of the engine's weights. Engines
            that take and give text (`ServerEngine` with ``interface: chat``) need none.
        template: the chat format, see `rollout.chat.Template`.
        deadline: seconds for a call.

    Raises:
        ValueError: a deadline that is none.
    """

    engine: Engine
    tokenizer: str | None = None
    template: Template = "auto"
    deadline: float | None = 3600.0

    def __post_init__(self) -> None:
        if self.deadline is not None and self.deadline <= 0:
            raise ValueError(f"deadline={self.deadline} of a writer must be positive, or null for none")

    def writer(self) -> Writer:
        """The engine with its tokenizer; nothing is started.

        Raises:
            ValueError, FileNotFoundError: there is no tokenizer, or it cannot do the format.
        """
        if getattr(self.engine, "interface", None) in ("chat", "text") and self.tokenizer is None:
            return Writer(self.engine, None, self.template)
        name = self.tokenizer or next((str(v) for n in _NAMES_WEIGHTS if (v := getattr(self.engine, n, None))), None)
        if name is None:
            raise ValueError(
                f"{type(self.engine).__name__} has no weights whose tokenizer could be used: give the writer a tokenizer"
            )
        return Writer(self.engine, load_tokenizer(name), self.template)

    def load(self) -> None:
        """Weights for an open engine that has none yet.

        Raises:
            ValueError: it names no folder with weights.
        """
        if self.engine.weight_version >= 0:
            return
        from nbg_lightning.core.weight_sources import hf_name
        from nbg_lightning.core.weights import open_weights

        folder = getattr(self.engine, "folder", None)
        if folder is None:
            raise ValueError(f"{type(self.engine).__name__} has no weights: give it the folder of a Hugging Face model")
        weights = open_weights(folder)
        self.engine.sync(((hf_name(name), weights.read([name])[name]) for name in weights.shapes), 0)


# -- questions and answers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """One thing asked of a model.

    Attributes:
        writer: name of the model.
        step: what for; its answer is kept under this name, so an item has each step once.
        messages: the conversation that the model continues.
        sampling: how it is drawn; one answer.
    """

    writer: str
    step: str
    messages: tuple[dict[str, Any], ...]
    sampling: Sampling


def user_turn(text: str) -> tuple[dict[str, Any], ...]:
    """A conversation of one question."""
    return ({"role": "user", "content": text},)


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        text: all of it.
        finish_reason: see `Completion`.
        error: what went wrong, if no answer came.
    """

    text: str
    finish_reason: str
    error: str | None = None

    @property
    def final(self) -> str | None:
        """The text after the reasoning, stripped; None where reasoning began and never ended."""
        answer = read_thinking(self.text, self.finish_reason == "stop")[1]
        return None if answer is None else answer.strip()


Script = Generator[list[Ask], list[Reply], Record]
"""The work on one item: yields what is asked at once, is sent the answers in order, returns the item's record."""

T = TypeVar("T")


class UnusableError(Exception):
    """An answer that cannot be used; another may be drawn.

    Args:
        reason: one word of a count, such as ``refused`` or ``unparsable``.
        detail: what exactly, in a line.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def readable(reply: Reply, whole: bool = True) -> str:
    """The text of an answer that can be used.

    Args:
        reply: the answer.
        whole: a text that was cut off by its length is unusable.

    Raises:
        UnusableError: ``engine_error``, ``truncated``, ``empty`` or ``refused``.
    """
    if reply.error is not None or reply.finish_reason in ("error", "deadline"):
        raise UnusableError("engine_error", reply.error or "not finished at the deadline")
    text = reply.final
    if text is None or (whole and reply.finish_reason == "length"):
        raise UnusableError("truncated", reply.text[-80:])
    if not text:
        raise UnusableError("empty")
    if is_refusal(text):
        raise UnusableError("refused", text[:120])
    return text


def asked(
    questions: Sequence[tuple[Ask, Callable[[Reply], T]]], tries: int, trace: list[Record]
) -> Generator[list[Ask], list[Reply], list[T | None]]:
    """Asks several things at once, and those again whose answers are unusable, as part of a script.

    Args:
        questions: what is asked, and what reads the answer and raises `UnusableError` for one that is of no use.
        tries: answers drawn for each, at most.
        trace: every answer is appended, with what became of it.

    Returns:
        What was read; None where no answer was usable.
    """
    found: list[T | None] = [None] * len(questions)
    waiting = list(range(len(questions)))
    for attempt in range(tries):
        asks = [questions[index][0] for index in waiting]
        if attempt:
            asks = [dataclasses.replace(ask, step=f"{ask.step}#{attempt}") for ask in asks]
        if not asks:
            break
        replies = yield asks
        again = []
        for index, ask, reply in zip(waiting, asks, replies, strict=True):
            entry: Record = {"step": ask.step, "writer": ask.writer, "outcome": "ok", "text": reply.text}
            entry["finish_reason"] = reply.finish_reason
            try:
                found[index] = questions[index][1](reply)
            except UnusableError as error:
                entry.update(outcome=error.reason, detail=error.detail)
                again.append(index)
            trace.append(entry)
        waiting = again
    return found


# -- the interview -------------------------------------------------------------------------------------------------------


class Interview:
    """Open models, and the journal of what they answered; use it in a ``with`` block.

    Args:
        writers: models by name.
        journal: where answers are kept.
        seed: every answer is drawn by a seed made of this, its item's key and its step.

    Raises:
        RuntimeError: from `ask`: an engine failed again and again.
    """

    def __init__(self, writers: Mapping[str, WriterConfig], journal: KeyedLines, seed: int = 0):
        self.configs, self.journal, self.seed = dict(writers), journal, seed
        self.asked = self.replayed = 0
        self._writers: dict[str, Writer] = {}
        self._failures: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Interview:
        self._writers = {name: config.writer() for name, config in self.configs.items()}
        with ExitStack() as stack:  # what was entered is left if another cannot be
            for config in {id(config.engine): config for config in self.configs.values()}.values():
                stack.enter_context(config.engine)
                config.load()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, scripts: Mapping[str, Script], ended: Callable[[str, Record], None]) -> None:
        """All scripts to their ends, in step: what they ask at the same time is asked together.

        Args:
            scripts: by the key of their item.
            ended: is told the key and the record of each as soon as it ends.
        """
        sent: dict[str, list[Reply] | None] = dict.fromkeys(scripts)
        while sent:
            pending: list[tuple[str, list[Ask]]] = []
            for key, replies in sent.items():
                try:
                    pending.append((key, next(scripts[key]) if replies is None else scripts[key].send(replies)))
                except StopIteration as stop:
                    ended(key, stop.value)
            flat = self.ask([(key, ask) for key, asks in pending for ask in asks])
            answers = iter(flat)
            sent = {key: [next(answers) for _ in asks] for key, asks in pending}

    def ask(self, asks: Sequence[tuple[str, Ask]]) -> list[Reply]:
        """The answer to each question of each item; from the journal where it is there."""
        replies: list[Reply | None] = [self._remembered(key, ask) for key, ask in asks]
        groups: dict[tuple[str, Sampling], list[int]] = {}
        for index, (_, ask) in enumerate(asks):
            if replies[index] is None:
                groups.setdefault((ask.writer, ask.sampling), []).append(index)
        for (writer, sampling), indices in groups.items():
            for index, reply in zip(
                indices, self._write(writer, sampling, [asks[index] for index in indices]), strict=True
            ):
                replies[index] = reply
        return [reply for reply in replies if reply is not None]

    def _remembered(self, key: str, ask: Ask) -> Reply | None:
        record = self.journal.get(f"{key}/{ask.step}")
        if record is None:
            return None
        if record["asked"] != _digest(ask.messages):
            raise RuntimeError(
                f"the step {ask.step!r} of item {key} was asked something else before: give another folder"
            )
        self.replayed += 1
        return Reply(record["text"], record["finish_reason"])

    def _write(self, name: str, sampling: Sampling, asks: list[tuple[str, Ask]]) -> list[Reply]:
        """Asks the engine, and keeps what it answers; what failed is not kept, so that another run asks it again."""
        writer = self._writers[name]
        prompts: list[Prompt] = []
        replies: dict[int, Reply] = {}
        places = []
        for index, (key, ask) in enumerate(asks):
            seed = int(_digest([self.seed, key, ask.step])[:15], 16)
            try:
                prompts.append(writer.format.prompt(ask.messages, seed=seed))
                places.append(index)
            except ValueError as error:
                replies[index] = Reply("", "error", f"no prompt: {first_line(error)}")
        completions = writer.write_prompts(prompts, sampling, self.configs[name].deadline) if prompts else []
        records = []
        for index, answers in zip(places, completions, strict=True):
            completion: Completion = answers[0].completion
            if completion.finish_reason in ("error", "deadline"):
                replies[index] = Reply(answers[0].text, completion.finish_reason, completion.error or "deadline")
                self._failures[name] = self._failures.get(name, 0) + 1
                continue
            self._failures[name] = 0
            replies[index] = Reply(answers[0].text, completion.finish_reason)
            key, ask = asks[index]
            records.append(
                {
                    "key": f"{key}/{ask.step}",
                    "writer": name,
                    "text": answers[0].text,
                    "finish_reason": completion.finish_reason,
                    "tokens": len(completion.ids),
                    "asked": _digest(ask.messages),
                }
            )
        self.journal.add(records)
        self.asked += len(asks)
        if self._failures.get(name, 0) >= MAX_FAILURES:
            first = next(reply.error for reply in replies.values() if reply.error)
            raise RuntimeError(
                f"the last {self._failures[name]} answers of {name!r} failed ({first}): mend the engine and start again, "
                "the build goes on from here"
            )
        return [replies[index] for index in range(len(asks))]


# -- provenance ----------------------------------------------------------------------------------------------------------


def describe(value: Any) -> Any:
    """What an object was made of, as JSON: its class and the arguments of its ``__init__`` that it keeps.

    Keys for servers are left out. Where files of this machine are named, their sizes and times are part of it.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): describe(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
    else:
        names = [name for name in inspect.signature(type(value).__init__).parameters if name != "self"]
    kept = {name: getattr(value, name) for name in names if hasattr(value, name) and name not in _SECRETS}
    found: Record = {name: describe(each) for name, each in kept.items() if not callable(each)}
    found["class"] = recorded_name(type(value))
    for name in _NAMES_FILES:
        if isinstance(kept.get(name), (str, Path)) and (files := _files(Path(kept[name]).expanduser())):
            found["files"] = _digest([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return found


def _files(path: Path) -> list[Path]:
    """The file, or all files of a folder or a pattern, sorted."""
    if path.is_file():
        return [path]
    found = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    return sorted(file for file in found if file.is_file())


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
