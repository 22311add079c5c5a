"""Guess the source class for a text: files by their extensions, a folder by its content, otherwise a dataset on the hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.sources.files import walk
from nbg_lightning.remote import is_url
from nbg_lightning.suggestion import did_you_mean

Form = Literal["JSON lines", "Parquet", "texts", "data set"]

ENDINGS: Mapping[Form, tuple[str, ...]] = {
    "JSON lines": (".jsonl", ".jsonl.gz", ".ndjson", ".json"),
    "Parquet": (".parquet",),
    "texts": (".txt", ".md", ".rst"),
}


def _classes(prefix: str) -> dict[Form, str]:
    return {"JSON lines": f"{prefix}JsonLines", "Parquet": f"{prefix}Parquet", "data set": f"{prefix}HuggingFace"}


_CLASSES: Mapping[DataKind, Mapping[Form, str]] = {
    "documents": {**_classes(""), "texts": "TextFolder"},
    "conversations": _classes("Chat"),
    "pairs": _classes("Pair"),
    "questions": _classes("Question"),
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DATA_SET_FILES = ("state.json", "dataset_dict.json")  # of Dataset.save_to_disk
_FIX = "give a file, a folder, a pattern such as corpus/*.jsonl.gz, a URL, or the name of a data set such as owner/name"


class Guess(NamedTuple):
    """The class that reads what a text refers to.

    Attributes:
        class_path: class of the source.
        argument: the argument that takes the text.
        form: format of the data.
    """

    class_path: str
    argument: Literal["path", "name_or_folder"]
    form: Form


def guess_source(text: str, kind: DataKind) -> Guess:
    """The source class for a path, pattern, folder or hub name.

    A name with a known extension need not exist yet: an earlier command may create it.

    Args:
        text: as a user wrote it.
        kind: the kind of data that the source shall provide.

    Raises:
        ValueError: there is no such file or name, a folder has data of no or of several formats, or this format does not provide
            this kind of data.

    Example:
        >>> guess_source("corpus/*.jsonl.gz", "documents").class_path, guess_source("owner/name", "pairs").class_path
        ('nbg_lightning.data.JsonLines', 'nbg_lightning.data.PairHuggingFace')
    """
    form = _form(text)
    if form not in _CLASSES[kind]:
        known = ", ".join(_CLASSES[kind])
        raise ValueError(f"{text} is invalid: {form} give no {kind}; write them as one of: {known}")
    argument: Literal["path", "name_or_folder"] = "name_or_folder" if form == "data set" else "path"
    return Guess(f"nbg_lightning.data.{_CLASSES[kind][form]}", argument, form)


def source_names(texts: Sequence[str]) -> list[str]:
    """Names for sources without one: that of the file, or of the last folder of a pattern.

    >>> source_names(["my/chats.jsonl.gz", "corpus/web/*.parquet", "owner/name"])
    ['chats', 'web', 'name']

    Raises:
        ValueError: two sources would have the same name.
    """
    names = [_name(text) for text in texts]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"sources are invalid: two are called {doubled[0]}; give names to them: {{NAME: PATH}}")
    return names


def _name(text: str) -> str:
    whole = [part for part in Path(text).parts if not glob.has_magic(part) and part not in ("/", ".", "..", "~")]
    last = whole[-1] if whole else "data"
    return last.lstrip(".").partition(".")[0] or "data"


def _form(text: str) -> Form:
    if not text.strip():
        raise ValueError(f"path is invalid: {text!r}; {_FIX}")
    path = Path(text).expanduser()
    if path.is_dir():
        return _form_of_folder(path, text)
    form = _form_of_name(text)
    if form is not None:
        if path.is_file() and text.endswith(".json") and _is_list(path):
            raise ValueError(f"{text} is invalid: it is one JSON list; write one object a line (JSON lines, .jsonl)")
        return form
    if path.is_file():
        raise ValueError(f"{text} is invalid: its extension is unknown; rename it to {_endings()}, or name the class")
    if is_url(text):
        raise ValueError(f"{text} is invalid: its extension is unknown; choose one of {_endings()}, or name the class")
    if glob.has_magic(text):
        forms = {_form_of_name(found) for found in glob.glob(str(path), recursive=True)} - {None}
        if len(forms) == 1:
            return forms.pop()  # type: ignore[return-value]  # None was taken out
        raise ValueError(f"{text} is invalid: it matches {_several(forms)}; end the pattern in one of {_endings()}")
    if _HUB_NAME.fullmatch(text):
        return "data set"
    beside = [str(path.parent / each.name) for each in path.parent.iterdir()] if path.parent.is_dir() else []
    raise ValueError(f"{text} is invalid: there is no such file{did_you_mean(text, beside, 0.8)}; {_FIX}")


def _form_of_name(name: str) -> Form | None:
    return next((form for form, endings in ENDINGS.items() if name.endswith(endings)), None)


def _form_of_folder(folder: Path, text: str) -> Form:
    if any((folder / name).is_file() for name in _DATA_SET_FILES):
        return "data set"
    forms = {form for form, endings in ENDINGS.items() if walk(folder, endings, ())}
    if len(forms) != 1:
        fix = f"give a pattern, such as {text.rstrip('/')}/*.jsonl" if forms else _FIX
        raise ValueError(f"{text} is invalid: the folder has {_several(forms)}; {fix}")
    return forms.pop()


def _several(forms: set[Any]) -> str:
    return " and ".join(sorted(forms)) if forms else f"no file that ends in {_endings()}"


def _endings() -> str:
    return ", ".join(ending for endings in ENDINGS.values() for ending in endings)


def _is_list(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(64).lstrip().startswith(b"[")
