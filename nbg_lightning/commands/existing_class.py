"""The class that a config names, in its source."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from nbg_lightning.class_names import class_path
from nbg_lightning.class_source import Definition, find, module_file, names_of
from nbg_lightning.commands.config_shapes import Wrong
from nbg_lightning.moved import new_name
from nbg_lightning.suggestion import did_you_mean

_FIX = "name a class that there is"


def existing_class(path: str, where: str) -> Definition | None:
    """The class; None where it may exist though its source does not tell.

    Raises:
        Wrong: it certainly does not.
    """
    if (found := find(path)) is not None:
        return found
    if "." not in path:
        # Lightning knows its own classes by their names alone.
        return None if where.startswith("trainer.") and path[:1].isupper() else find(class_path(path, where))
    module, _, name = path.rpartition(".")
    top = path.partition(".")[0]
    if top != "nbg_lightning":
        if not top.isidentifier() or module_file(top) is not None or _installed(top):
            return None
        raise Wrong(
            f"{where}: {path}: No module named {top!r}; give package.module.Name of a class that Python can import"
        )
    if (new := new_name(path)) is not None:
        raise ValueError(f"{where}: {path} has a new name: {new}; write that")
    names = names_of(module)
    if names is None:
        parent, _, last = module.rpartition(".")
        beside = names_of(parent) or []
        raise Wrong(f"{where}: {path}: No module named {module!r}{did_you_mean(last, beside)}; {_FIX}")
    if name in names:
        return None
    raise Wrong(f"{where}: {path}: module {module!r} has no attribute {name!r}{_meant(name, names)}; {_FIX}")


def _meant(name: str, names: Sequence[str]) -> str:
    import nbg_lightning

    public: list[str] = nbg_lightning.__all__  # type: ignore[attr-defined]  # lazy_names makes it
    near = did_you_mean(name, [each for each in names if each[:1] != "_"])
    return near or did_you_mean(name, public)


def _installed(top: str) -> bool:
    """Whether a module without Python source is there, such as an extension."""
    return importlib.util.find_spec(top) is not None
