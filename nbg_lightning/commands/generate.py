"""`nbg generate MODEL [PROMPT ...]`: answers to prompts from arguments, standard input or a file, as text or JSON lines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nbg_lightning import stopping
from nbg_lightning.commands.input_paths import check_model
from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.sampling_options import MODEL_HELP, add_options, read_tools, sampling_of, speaker_options
from nbg_lightning.json_lines import json_line, read_json_lines

if TYPE_CHECKING:
    from nbg_lightning.commands.speaker import Speaker
    from nbg_lightning.engines.protocol import Completion, Prompt, Sampling

_PROMPTS_PER_CALL = 256


@dataclass(frozen=True)
class Asked:
    """One prompt.

    Attributes:
        given: ``{"prompt": text}`` or ``{"messages": [...]}``, and other fields of its line, which are kept.
        messages: what the model is asked with.
        tools: functions that it may call.
    """

    given: dict[str, Any]
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None


def main(argv: list[str]) -> int:
    """Run the command; exit code 1 if a prompt got no answer.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: a model, prompt or option that cannot be used.
    """
    arguments = parser().parse_args(argv)
    names = [*([arguments.model] if arguments.model else []), *arguments.server]
    prompts = list(arguments.prompts)
    if len(names) == 2 and len(arguments.server) == 1:  # with --server, all arguments are prompts
        prompts, names = [names[0], *prompts], names[1:]
    if len(names) != 1:
        raise ValueError(
            "generate takes exactly one model; give one: a checkpoint, a run's folder, a Hugging Face folder, or --server URL"
        )
    if not arguments.server:
        check_model(names[0])
    sampling, tools = sampling_of(arguments), read_tools(arguments.tools)
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and output.exists():
        raise FileExistsError(f"--output is invalid: {output} exists; remove it, or name another file")
    asked = read_prompts(prompts, arguments.prompts_file, arguments.system, tools)

    from nbg_lightning.commands.speaker import open_speaker

    with ExitStack() as stack:
        speaker = stack.enter_context(open_speaker(names[0], speaker_options(arguments)))
        as_json = arguments.json or (output is not None and output.suffix in (".jsonl", ".json"))
        stream = sys.stdout.buffer if output is None else stack.enter_context(_new_file(output))
        handler = stopping.current()
        if handler is not None and output is not None:
            handler.kept = lambda: f"{output} has the answers so far; remove it, and run the same command to start over"
        writer = Writer(stream, as_json, arguments.logprobs, len(asked) * sampling.n > 1)
        return generate(speaker, asked, sampling, writer)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg generate",
        description="Generate answers to prompts from arguments, standard input or a JSON-lines file.",
    )
    made.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    made.add_argument(
        "prompts",
        nargs="*",
        metavar="PROMPT",
        help="prompt texts; without any, or with -, one is read from standard input",
    )
    made.add_argument(
        "--prompts",
        dest="prompts_file",
        metavar="FILE",
        help='JSON-lines file with "prompt", or "messages" and "tools"; - is standard input',
    )
    made.add_argument(
        "--output", metavar="FILE", help="write to this file instead of standard output; .jsonl implies --json"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object per answer, with all its fields")
    made.add_argument("--logprobs", action="store_true", help="add token ids and log-probabilities to the JSON")
    add_options(made, temperature=0.7, max_new_tokens=512)
    return made


def read_prompts(
    texts: Sequence[str], file: str | None, system: str | None, tools: list[dict[str, Any]] | None
) -> list[Asked]:
    """All prompts.

    Args:
        texts: of the command line.
        file: of JSON lines; ``-`` for standard input.
        system: a message before those that have none.
        tools: functions for those that bring none.

    Raises:
        FileNotFoundError, ValueError: prompts that are not there, or empty, or without the fields; the place is named.
    """
    begin = [] if system is None else [{"role": "system", "content": system}]
    if file is not None and texts:
        raise ValueError("prompts are given twice, as arguments and as --prompts; give them once")
    rows: list[tuple[str, Any]]
    if file is not None:
        path = Path("/dev/stdin" if file == "-" else file)
        if file != "-" and not path.is_file():
            raise FileNotFoundError(f"--prompts is invalid: {file}; give a file of JSON lines")
        rows = [(f"{file}, line {number}", row) for number, row in read_json_lines(path)]
    else:
        given = [sys.stdin.read().rstrip("\n") if each == "-" else each for each in texts or ["-"]]
        rows = [(f"prompt {number}", {"prompt": text}) for number, text in enumerate(given, start=1)]
    if not rows:
        raise ValueError(f"{file} has no prompts; give JSON lines")
    return [_asked(place, row, begin, tools) for place, row in rows]


def _asked(place: str, row: Any, begin: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Asked:
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, dict) or not ("prompt" in row or "messages" in row):
        raise ValueError(f'{place} has no prompt; give {{"prompt": text}} or {{"messages": [...]}}')
    messages = row.get("messages", row.get("prompt"))
    if isinstance(messages, str):
        if not messages.strip():
            raise ValueError(f"{place} is empty; write a prompt")
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise ValueError(f"{place} is invalid: {str(messages)[:40]!r}; give a text, or a list of messages")
    has_system = messages[0].get("role") in ("system", "developer")
    return Asked(row, messages if has_system else [*begin, *messages], row.get("tools") or tools)


class Writer:
    """Writes answers.

    Args:
        stream: where.
        as_json: a line of JSON for each; else texts.
        log_probs: ids and log-probs, in JSON.
        several: texts get a line that says whose they are.
    """

    def __init__(self, stream: IO[bytes], as_json: bool, log_probs: bool, several: bool):
        self.stream, self.as_json, self.log_probs, self.several = stream, as_json, log_probs, several
        self._safe = stream.isatty()

    @property
    def streams(self) -> bool:
        """Whether texts are written as they come: one, as text."""
        return not self.as_json and not self.several

    def piece(self, text: str) -> None:
        """Write what one answer has grown by."""
        self._write(text)

    def _write(self, text: str) -> None:
        from nbg_lightning.printable import printable

        self.stream.write((printable(text) if self._safe else text).encode("utf-8", "replace"))
        self.stream.flush()

    def answer(self, asked: Asked, number: int, speaker: Speaker, completion: Completion, prompt: Prompt) -> None:
        """Write one answer whole."""
        read = speaker.read(completion)
        if not self.as_json:
            title = f"--- prompt {number + 1}, sample {completion.sample_index + 1}\n" if self.several else ""
            self._write(f"{title}{completion.error or read.text}\n")
            return
        line: dict[str, Any] = {
            **asked.given,
            "model": speaker.name,
            "sample": completion.sample_index,
            "text": read.text,
            "reasoning": read.reasoning,
            "answer": read.final,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": len(prompt.ids) or None,
            "new_tokens": len(completion.ids) or None,
            "error": completion.error,
        }
        if self.log_probs:
            line |= {"ids": list(completion.ids), "log_probs": list(completion.log_probs)}
        self.stream.write(json_line(line))
        self.stream.flush()


def generate(speaker: Speaker, asked: Sequence[Asked], sampling: Sampling, writer: Writer) -> int:
    """Ask a model all prompts, some at a time, and write the answers; 1 if one has no answer.

    Raises:
        ValueError, ConnectionError: the only prompt cannot be answered.
    """
    failed = 0
    for first in range(0, len(asked), _PROMPTS_PER_CALL):
        part = asked[first : first + _PROMPTS_PER_CALL]
        prompts, errors = _prompts(speaker, part)
        if len(asked) == 1 and errors:
            raise ValueError(errors[0])
        todo = [prompt for prompt in prompts if prompt is not None]
        heard: list[str] = []

        def hear(_sample: int, text: str, _log_prob: float | None, heard: list[str] = heard) -> None:
            heard.append(text)
            writer.piece(text)

        completions = iter(speaker.speak(todo, sampling, hear if writer.streams else None) if todo else [])
        for place, (each, prompt) in enumerate(zip(part, prompts, strict=True)):
            samples = _refused(errors[place], sampling) if prompt is None else next(completions)
            failed += any(sample.finish_reason == "error" for sample in samples)
            if writer.streams:
                if samples[0].error is not None:
                    raise ConnectionError(samples[0].error)
                writer.piece("\n")
                continue
            from nbg_lightning.engines.protocol import Prompt

            for sample in samples:
                writer.answer(each, first + place, speaker, sample, prompt or Prompt(()))
    if failed:
        print(f"nbg generate: {failed} of {len(asked)} prompts have no answer; each says why", file=sys.stderr)
    return int(failed > 0)


def _prompts(speaker: Speaker, asked: Sequence[Asked]) -> tuple[list[Prompt | None], dict[int, str]]:
    """The prompts, and for those that cannot be made why."""
    prompts: list[Prompt | None] = []
    errors: dict[int, str] = {}
    for place, each in enumerate(asked):
        try:
            prompts.append(speaker.prompt(each.messages, each.tools))
        except ValueError as error:
            prompts.append(None)
            errors[place] = str(error)
    return prompts, errors


def _refused(error: str, sampling: Sampling) -> list[Completion]:
    from nbg_lightning.engines.protocol import failed

    return failed(0, sampling, 0, error)


def _new_file(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")
