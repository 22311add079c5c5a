"""`nbg`: Lightning's fit, validate, test and predict on YAML, and the library's own commands.

`nbg --help` and each command import only what they need, since importing torch takes seconds.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from nbg_lightning import stopping
from nbg_lightning.commands.table import GROUPS, OWN_COMMANDS, TRAINER_COMMANDS, own_command
from nbg_lightning.config_files import resolve_arguments
from nbg_lightning.distributed import end_rank, get_world_size
from nbg_lightning.error_line import first_line, is_user_error, message, one_line
from nbg_lightning.last_words import say
from nbg_lightning.parent import die_with, is_launched
from nbg_lightning.suggestion import did_you_mean

_KEPT = {  # what a stopped command reports about its work; training reports its checkpoint
    "chat": "the conversation is not saved (/save FILE saves one)",
    "pass-rate": "finished questions are kept; run the same command to resume",
    "recipe": "finished steps are kept; run the same command to resume",
}
_KEPT_BY_BUILDERS = "finished parts are kept; run the same command to resume"
_KEPT_BY_OTHERS = "run the same command to start over"


def _help() -> str:
    lines = ["usage: nbg COMMAND ...", "", "Pretrain and post-train language models from YAML configs."]
    summaries = TRAINER_COMMANDS | {name: summary for name, (_, summary) in OWN_COMMANDS.items()}
    width = max(map(len, summaries))
    for title, names in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<{width}} {summaries[name]}" for name in names)]
    lines += ["", "New here: nbg init. Options of a command: nbg COMMAND --help. Full traceback of an error: --debug."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; user errors are printed in one line, with exit code 2."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from nbg_lightning import __version__

        print(f"nbg_lightning {__version__}")
        return 0
    command = argv[0]
    if command not in TRAINER_COMMANDS and command not in OWN_COMMANDS:
        known = [*TRAINER_COMMANDS, *OWN_COMMANDS]
        meant = did_you_mean(command, [*known, "--help", "--version"])
        all_of_them = "nbg --help lists all commands" if meant else f"there are: {', '.join(known)}"
        print(f"nbg: error: no command {command!r}{meant}; {all_of_them}", file=sys.stderr)
        return 2
    if os.getcwd() not in sys.path:  # a config may name a class or function of a file here; installed ones come first
        sys.path.append(os.getcwd())
    with stopping.handling(f"nbg {command}", owns_process=arguments is None) as signals:
        signals.kept = lambda: _KEPT.get(
            command, _KEPT_BY_BUILDERS if command.startswith("build-") else _KEPT_BY_OTHERS
        )
        if is_launched():
            die_with(os.getppid())
        try:
            code = _run(command, argv, debug, signals)
        except (Exception, SystemExit) as error:
            if not _is_one_of_several(arguments):
                raise
            code = _told(error)
    if code > 128 and is_launched():
        code = 0  # Lightning kills a rank that has started one that failed
    if _is_one_of_several(arguments):
        end_rank(code)
    return code


def _is_one_of_several(arguments: Sequence[str] | None) -> bool:
    """Whether this process is a rank among others, and nothing else."""
    return arguments is None and "torch.distributed" in sys.modules and get_world_size() > 1


def _told(error: BaseException) -> int:
    """Print an exception that nobody catches as Python does at its end, and return its exit code."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


@contextmanager
def _uncollected() -> Iterator[None]:
    """Import without garbage collection, and exclude the imported objects from later collections: saves a sixth of the time
    to a first step.
    """
    if not gc.isenabled() or "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # libraries look at the end whether something of theirs was left
        gc.enable()


def _say_what_is_read(argv: Sequence[str]) -> None:
    """Tell an interactive user what is being loaded, since the terminal stays empty while torch is imported."""
    configs = [after for before, after in pairwise(argv) if before == "--config"]
    configs += [argument.removeprefix("--config=") for argument in argv if argument.startswith("--config=")]
    if configs and sys.stderr.isatty():
        print(f"nbg {argv[0]}: reading {', '.join(configs)}", file=sys.stderr, flush=True)


def _run(command: str, argv: list[str], debug: bool, signals: stopping.StopHandler) -> int:
    try:
        argv = resolve_arguments(argv)  # a missing config is reported before anything heavy is imported
        if command in TRAINER_COMMANDS:
            if not is_launched():  # by a rank that has checked
                from nbg_lightning.commands.precheck import check

                check(argv)
                _say_what_is_read(argv)
            with _uncollected():
                from nbg_lightning.commands.trainer import main as run

            signals.phase = "working"
            return run(argv)
        from nbg_lightning.quiet import quiet_libraries

        quiet_libraries()
        own = own_command(command)
        signals.phase = "working"
        return own.main(argv[1:])
    except stopping.Stopped as stop:
        say(signals.line())
        return 128 + stop.signal
    except KeyboardInterrupt:
        print(f"nbg {command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug or not (is_user_error(error) or signals.received):
            raise
        if signals.received:  # another rank or a worker may have left, which got the signal too
            say(f"nbg {command}: after {signals.received.name}: {first_line(error)}")
            say(signals.line())
            return 128 + signals.received
        print(f"nbg {command}: error: {one_line(message(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
