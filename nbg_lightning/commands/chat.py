"""`nbg chat MODEL ...`: talk to a model, to several samples of it, or to two models side by side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nbg_lightning import stopping
from nbg_lightning.commands.input_paths import check_model
from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.sampling_options import MODEL_HELP, add_options, read_tools, sampling_of, speaker_options
from nbg_lightning.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from nbg_lightning.commands.chat_session import NamedCall, Session
    from nbg_lightning.commands.chat_view import AnswerView
    from nbg_lightning.engines.chat import Answer

HELP = """\
/reset          forget the conversation
/system [TEXT]  set the system message; without TEXT, remove it
/pick N         continue from sample N of the last answer
/save FILE      append the conversation to a JSON-lines file, in the format that SFT reads
/quit           leave (also Ctrl-D, or Ctrl-C at the prompt)
A line that ends with \\ continues on the next one. Ctrl-C stops an answer."""
_MOST_ROUNDS = 32  # of calls in one turn


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: a model or an option that cannot be used.
    """
    arguments = parser().parse_args(argv)
    names = [*arguments.models, *arguments.server]
    if not names:
        raise ValueError("there is no model; give a checkpoint, a run's folder, a Hugging Face folder, or --server URL")
    for name in arguments.models:
        check_model(name)
    sampling, tools = sampling_of(arguments), read_tools(arguments.tools)

    from rich.console import Console

    from nbg_lightning.commands.chat_session import Session
    from nbg_lightning.commands.speaker import open_speaker

    console = Console(highlight=False)
    with ExitStack() as stack:
        speakers = [stack.enter_context(open_speaker(name, speaker_options(arguments))) for name in names]
        for speaker in speakers:
            if not speaker.converses and (arguments.system is not None or tools):
                raise ValueError(
                    f"--system and --tools have no effect: {speaker.name} has no chat format; set --template"
                )
        stack.enter_context(stopping.interrupts())
        sessions = [Session(speaker, sampling, tools, arguments.system) for speaker in speakers]
        return Chat(console, sessions, arguments.show_thinking, arguments.logprobs).run()


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg chat",
        description="Chat with a model. Several models answer side by side.",
        epilog="in a chat:\n" + HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("models", nargs="*", metavar="MODEL", help=MODEL_HELP)
    add_options(made, temperature=0.7, max_new_tokens=1024)
    made.add_argument("--show-thinking", action="store_true", help="show the thinking, not only its length")
    made.add_argument("--logprobs", action="store_true", help="print the log-probability of every token")
    return made


class Chat:
    """The loop of a chat.

    Args:
        console: where answers are shown.
        sessions: one for each model; all are given the same turns.
        show_thinking: all of it.
        log_probs: print them.
        read: what reads a line of the user; it raises EOFError at the end.
    """

    def __init__(
        self,
        console: Console,
        sessions: Sequence[Session],
        show_thinking: bool = False,
        log_probs: bool = False,
        read: Callable[[str], str] | None = None,
    ):
        self.console, self.sessions = console, sessions
        self.show_thinking, self.log_probs = show_thinking, log_probs
        self._read = read or _line_reader()

    def run(self) -> int:
        """Talk until the user ends it; the exit code."""
        if sys.stdin.isatty():
            self.console.print("/help lists what can be typed besides a prompt", style="dim")
        while True:
            try:
                text = self._input("> ")
            except EOFError:
                return 0
            try:
                if text.startswith("/"):
                    if self._command(text):
                        return 0
                elif text.strip():
                    self.turn(text)
            except (ValueError, OSError) as error:
                self._say(f"error: {error}")

    def turn(self, text: str) -> None:
        """A turn of the user, and the answers; then the results of calls, as long as they are given.

        Raises:
            ValueError, ConnectionError: as `Session.answer`.
        """
        for session in self.sessions:
            session.say(text)
        answering = list(self.sessions)
        for _ in range(_MOST_ROUNDS):
            self._answer(answering)
            answering = [session for session in answering if session.give_results(self._result)]
            if not answering:
                return

    def _answer(self, sessions: Sequence[Session]) -> None:
        from nbg_lightning.commands.chat_view import AnswerView

        places = [(each, sample) for each in sessions for sample in range(each.sampling.n)]
        titles = [each.speaker.name + (f" {sample + 1}" if each.sampling.n > 1 else "") for each, sample in places]
        opened = [session.speaker.opens_thinking for session, _ in places]
        answers: list[Answer] = []
        failures: list[str] = []
        with AnswerView(self.console, titles, opened, self.show_thinking, self.log_probs) as view:
            for number, session in enumerate(sessions):
                first = number * session.sampling.n  # the same for all sessions
                try:
                    answers += session.answer(partial(_hear, view, first))
                except (ValueError, OSError) as error:
                    failures.append(f"error: {session.speaker.name}: {error}")
        for line in dict.fromkeys([*failures, *_endings(answers)]):
            self._say(line)

    def _result(self, call: NamedCall) -> str | None:
        name, arguments = call
        self._say(f"call: {name}({json.dumps(arguments, ensure_ascii=False)[1:-1]})")
        try:
            return self._input("result (empty: none) > ") or None
        except EOFError:
            return None

    def _command(self, text: str) -> bool:
        """A command of the chat; whether it ends."""
        name, _, rest = text.strip().partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "/reset": lambda _: self._reset(),
            "/system": self._system,
            "/pick": self._pick,
            "/save": self._save,
            "/help": lambda _: self._say(HELP),
        }
        if name in ("/quit", "/exit", "/bye"):
            return True
        if name not in commands:
            raise ValueError(f"there is no command {name}; there are {', '.join(commands)}, /quit")
        commands[name](rest.strip())
        return False

    def _reset(self) -> None:
        for session in self.sessions:
            session.reset()
        self._say("the conversation is forgotten")

    def _system(self, text: str) -> None:
        if unable := [each.speaker.name for each in self.sessions if not each.speaker.converses]:
            raise ValueError(f"a system message has no effect: {unable[0]} has no chat format; set --template")
        for session in self.sessions:
            session.system = text or None
        self._say("the system message is set" if text else "there is no system message")

    def _pick(self, text: str) -> None:
        if not text.isdecimal():
            raise ValueError("/pick is invalid: it takes the number of a sample; write /pick 2")
        for session in self.sessions:
            session.keep(int(text) - 1)
        self._say(f"the conversation goes on with sample {int(text)}")

    def _save(self, text: str) -> None:
        from nbg_lightning.json_lines import json_line

        if not text:
            raise ValueError("/save is invalid: it takes the name of a file; write /save chat.jsonl")
        path = Path(text).expanduser()
        lines = []
        for session in self.sessions:
            tools = {} if session.tools is None else {"tools": session.tools}
            lines.append(json_line({"messages": session.conversation, **tools, "model": session.speaker.name}))
        with path.open("ab") as file:
            file.writelines(lines)
        self._say(f"added to {path}")

    def _input(self, prompt: str) -> str:
        lines = [self._read(prompt)]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._read("| "))
        return "\n".join(lines).encode("utf-8", "replace").decode("utf-8")  # a terminal may send bytes that are no text

    def _say(self, text: str) -> None:
        self.console.print(printable(text), style="dim", soft_wrap=True, markup=False)


def _hear(view: AnswerView, place: int, sample: int, text: str, log_prob: float | None) -> None:
    view.add(place + sample, text, log_prob)


def _endings(answers: Sequence[Answer]) -> list[str]:
    """Notices for answers that were cut before their end."""
    lines = {
        "length": "(cut at the limit: --max-new-tokens, or the model's window)",
        "deadline": "(stopped)",
    }
    return [lines[each.completion.finish_reason] for each in answers if each.completion.finish_reason in lines]


def _line_reader() -> Callable[[str], str]:
    """Reads lines of standard input, with editing and a history on a terminal."""
    if not sys.stdin.isatty():

        def plain(_prompt: str) -> str:
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            return line.rstrip("\n")

        return plain
    with suppress(ImportError):
        import readline  # noqa: F401  # input() edits lines with it
    return input
