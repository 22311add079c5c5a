"""Defers imports and compilations that other libraries perform at import time until their first use.

torchmetrics imports transformers (and with it scikit-learn and pandas), scipy.signal and matplotlib for text, audio and
image metrics; torchtitan compiles FlexAttention, which imports torch's compiler, as selective checkpointing does. Together
that is half of the processor time to the first step of a small run, which needs none of them. While one of `_WHILE`'s
modules is executed, it gets placeholders, which resolve to the real objects on use. Modules that are already imported are
unaffected.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Deferred:
    """A placeholder for an attribute of a module, or the result of calling one, which is created on first use.

    Args:
        make: creates the real object.
        window: decides whether calls are deferred too.
    """

    def __init__(self, make: Callable[[], Any], window: _Window) -> None:
        self._make = functools.cache(make)
        self._window = window

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._window.is_open:
            return Deferred(lambda: self._make()(*args, **kwargs), self._window)
        return self._make()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in ("_make", "_window") or (name.startswith("__") and self._window.is_open):  # by copy and inspect
            raise AttributeError(name)
        if self._window.is_open:
            return Deferred(lambda: getattr(self._make(), name), self._window)
        return getattr(self._make(), name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._make(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._make())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._make())


class _Window:
    """The period in which packages are replaced by placeholders: a finder for them and all their modules.

    Args:
        names: names of packages or modules that are not imported yet.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.is_open = True

    def holds(self, name: str) -> bool:
        """Whether a module is stood in for."""
        return any(name == each or name.startswith(f"{each}.") for each in self.names)


class _StandIn(ModuleType):
    """A module whose attributes are deferred while its window is open, and the real module's afterwards."""

    def __init__(self, name: str, window: _Window) -> None:
        super().__init__(name)
        self._window = window

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def make() -> Any:
            return getattr(importlib.import_module(self.__name__), name)

        return Deferred(make, self._window) if self._window.is_open else make()


class _StandInFinder(MetaPathFinder, Loader):
    """Finds stand-ins."""

    def __init__(self, window: _Window) -> None:
        self.window = window

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if self.window.holds(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self.window)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is executed."""


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Replace packages or modules by placeholders while others are imported that use them; already imported ones stay real.

    Args:
        names: full names.
    """
    window = _Window([name for name in names if name not in sys.modules])
    finder = _StandInFinder(window)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn) and window.holds(name):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                vars(sys.modules.get(parent, finder)).pop(child, None)
        window.is_open = False


@contextmanager
def compiled_at_first_call() -> Iterator[None]:
    """Let `torch.compile` return functions that are compiled when they are first called."""
    import torch

    compile_now = torch.compile

    def compile_later(model: Any = None, **options: Any) -> Any:
        if model is None:
            return functools.partial(compile_later, **options)
        compiled = functools.cache(functools.partial(compile_now, model, **options))

        @functools.wraps(model)
        def call(*args: Any, **kwargs: Any) -> Any:
            return compiled()(*args, **kwargs)

        return call

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


_WHILE: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "torchmetrics": lambda: deferred("transformers", "scipy.signal", "matplotlib"),
    "torchtitan.distributed.activation_checkpoint": lambda: deferred("torch._functorch.partitioners"),
    "torchtitan.models.common.attention": compiled_at_first_call,
}
"""Modules, and within what they are executed."""


class _DeferringLoader(Loader):
    """A module's own loader, within what `_WHILE` says."""

    def __init__(self, name: str, own: Loader) -> None:
        self.name = name
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with _WHILE[self.name]():
            self.own.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)  # such as get_source, for tracebacks


class _DeferringFinder(MetaPathFinder):
    """Called for every module; finds those of `_WHILE`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname not in _WHILE:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                if spec.loader is not None:
                    spec.loader = _DeferringLoader(fullname, spec.loader)
                return spec
        return None


def install() -> None:
    """Enable the deferrals in `_WHILE`, once per process."""
    if not any(isinstance(finder, _DeferringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeferringFinder())
