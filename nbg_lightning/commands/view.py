"""`nbg view PATH [PATH2]`: rollouts, benchmark items, pairs, conversations or pass rates as one HTML page that opens offline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.settings import check_config
from nbg_lightning.quantities import size_text

if TYPE_CHECKING:
    from nbg_lightning.pages.records import ShownRecords
    from nbg_lightning.pages.samples import TrainedTokens

GENERATOR = b"<meta name=generator content=nbg_lightning>"  # of a page that may be written over
_HEAD_BYTES = 2000
YAML = (".yaml", ".yml")


def main(argv: list[str]) -> int:
    """Write the page.

    Raises:
        FileNotFoundError, ValueError: paths with nothing to show, or another file at the output path.
    """
    arguments = parser().parse_args(argv)
    for name in ("limit", "max_characters"):
        if (value := vars(arguments)[name]) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is invalid: {value}; give at least 1")
    paths = [Path(path).expanduser() for path in (arguments.path, arguments.second) if path is not None]
    for path in paths:
        if path.suffix in YAML:
            check_config([str(path)])
    out = arguments.out or _place(paths[0])
    if arguments.terminal:
        return _show(paths, arguments.limit, arguments.max_characters, _marks(arguments.tokenizer, arguments.template))
    _check_place(out)

    from nbg_lightning.data.durable import write_atomic
    from nbg_lightning.pages.viewer import viewer_page

    marks = _marks(arguments.tokenizer, arguments.template)
    runs = [_collections(path, arguments.limit, marks) for path in paths]
    title = " beside ".join(map(str, paths))
    others = runs[1] if len(runs) > 1 else None
    names = (str(paths[0]), str(paths[-1]))
    page = viewer_page(title, runs[0], others, names, arguments.max_characters)
    write_atomic(out, page)
    for path, run in zip(paths, runs, strict=True):
        for each in run:
            print(f"{path}: {len(each.records):,} of {each.total:,} {each.noun}")
            for note in each.notes:
                print(f"  {note}")
    print(f"page: {out} ({size_text(out.stat().st_size)})")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg view",
        description="Write one offline HTML page of a run folder (rollouts, newest benchmark results, pass rates), a benchmark "
        "result, a .jsonl or .parquet file of rollouts, items, pairs or conversations, a pass-rate ledger, or the training "
        "data of a config. Two paths are shown side by side.",
    )
    made.add_argument("path", metavar="PATH", help="folder, file, or config of nbg fit")
    made.add_argument("second", metavar="PATH2", nargs="?", help="the same of another run, shown beside the first")
    made.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write the page (default: view.html in the folder, or beside the file)",
    )
    made.add_argument(
        "--terminal", action="store_true", help="print the records instead, trained text in colour (default limit 3)"
    )
    made.add_argument("--limit", type=int, default=300, help="records per path, evenly spaced (default 300)")
    made.add_argument(
        "--max-characters", type=int, default=20_000, help="longer texts are cut in the middle (default 20000)"
    )
    made.add_argument(
        "--tokenizer", help="folder, hub name or checkpoint; marks the trained tokens of conversations and pairs"
    )
    made.add_argument("--template", default="auto", help="chat format used with --tokenizer (default auto)")
    return made


def _show(paths: list[Path], limit: int, max_characters: int, marks: TrainedTokens | None) -> int:
    """Print the records."""
    from rich.console import Console

    from nbg_lightning.pages.terminal import record_lines

    console = Console()
    for path in paths:
        for line in record_lines(_collections(path, limit, marks), max_characters):
            console.print(line, soft_wrap=True)
    return 0


def _marks(tokenizer: str | None, template: str) -> TrainedTokens | None:
    if tokenizer is None:
        return None
    from nbg_lightning.pages.samples import TrainedTokens

    return TrainedTokens(tokenizer, template)


def _collections(path: Path, limit: int, marks: TrainedTokens | None) -> list[ShownRecords]:
    if path.suffix in YAML:
        from nbg_lightning.commands.view_data import data_collections

        return data_collections(str(path), limit)
    from nbg_lightning.pages.sources import Looked, open_path

    return open_path(path, Looked(limit, marks))


def _place(path: Path) -> Path:
    """Where the page goes: into a run's folder, beside a file; of a YAML into the working folder."""
    if path.is_dir():
        return path / "view.html"
    name = path.name.partition(".")[0] or path.name
    return (Path() if path.suffix in YAML else path.parent) / f"{name}.view.html"


def _check_place(out: Path) -> None:
    if out.is_dir():
        raise ValueError(f"--out is invalid: {out} is a folder; give the name of a file in it")
    if out.exists() and GENERATOR not in _beginning(out):
        raise ValueError(f"--out is invalid: {out} exists and was not written by nbg view; give another name")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out is invalid: the folder {out.parent} does not exist; make it first")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
