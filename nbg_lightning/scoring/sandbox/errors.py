"""The program's exceptions in the tests: builtin ones, and a stand-in for each of the program's own classes."""

from __future__ import annotations

import builtins

from nbg_lightning.scoring.sandbox.handles import Handle, OwnError, ProgramError, number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

BUILTIN: dict[str, type[BaseException]] = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
}
# These would end a loop of the test, or the judge, so they are raised only in tests that name them.
ENDING = frozenset(
    ("StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "KeyboardInterrupt", "BaseException")
)


class Errors:
    """The exception classes.

    Args:
        named: names used by the tests.
    """

    def __init__(self, named: frozenset[str]):
        self.classes: dict[int, type[BaseException]] = {}
        self.builtin = {name: kind for name, kind in BUILTIN.items() if name not in ENDING or name in named}

    def kind(self, ancestry: Sequence[Any], handle: Any) -> type[BaseException]:
        """The class that stands for one of the program's.

        Args:
            ancestry: names of builtin classes, and number, name and bases of others; bases first.
            handle: creates the handle for a number and a name.

        Raises:
            ValueError, TypeError: the program's description is invalid.
        """
        found: type[BaseException] = ProgramError
        for each in ancestry:
            if type(each) is str:
                found = self.builtin.get(each, ProgramError) if each in BUILTIN else ProgramError
                continue
            number, name, bases = each
            if number not in self.classes:
                kinds = dict.fromkeys(self._base(base) for base in bases)
                namespace = {"__module__": "program", "_class": handle(int(number), str(name))}
                first = () if any(issubclass(kind, OwnError) for kind in kinds) else (OwnError,)
                whole = [kind for kind in kinds if kind is not ProgramError or len(kinds) == 1]
                self.classes[number] = type(str(name), (*first, *whole), namespace)
            found = self.classes[number]
        return found

    def _base(self, base: Any) -> Any:
        if type(base) is str:
            return self.builtin.get(base, ProgramError)
        return self.classes.get(base, ProgramError)

    def error(
        self, kind: type[BaseException], arguments: tuple[Any, ...], text: str, handle: Handle | None
    ) -> BaseException:
        """Recreate an exception of the program without calling any code of the program."""
        try:
            made = kind.__new__(kind, *arguments)
            if issubclass(kind, OwnError):
                made.args = arguments
                made.__dict__.update(_handle=handle, _text=text)
            else:
                kind.__init__(made, *arguments)
            return made
        except (TypeError, ValueError):  # such as a UnicodeDecodeError with unsuitable arguments
            return ProgramError(f"{kind.__name__}: {text}")

    def class_number(self, kind: Any) -> int | None:
        """The number of a class that stands for one of the program's; None for others."""
        return (
            number_of(kind._class)
            if isinstance(kind, type) and issubclass(kind, OwnError) and kind is not OwnError
            else None
        )
