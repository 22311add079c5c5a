"""`nbg prepare`: tokenize the data of a run in advance, on one machine, on several, or on Ray."""

from __future__ import annotations

import argparse

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.settings import make_datamodule, read_config

PART_NEEDS = "all machines must see the sources and data.data_dir under the same paths"


def main(argv: list[str]) -> int:
    """Prepare the sources of a config, or this machine's part of them."""
    arguments = parser().parse_args(argv)
    if arguments.part is not None and arguments.engine == "ray":
        raise ValueError(
            f"--part is invalid: {arguments.part}; with --engine ray the cluster shares the work: leave it out"
        )

    config = read_config(arguments.config)  # before anything heavy is imported

    from nbg_lightning.data.share import Share
    from nbg_lightning.datamodules.prepared import PreparedDataModule

    share = None if arguments.part is None else Share.parse(arguments.part)
    names = " ".join(arguments.config)
    data = make_datamodule(config, names)
    if not isinstance(data, PreparedDataModule):
        raise ValueError(
            f"{names}: {type(data).__name__} has nothing to prepare, it reads its sources as they are; start nbg fit"
        )
    if arguments.workers is not None:
        data.prepare_workers = arguments.workers
    data.engine = arguments.engine
    if share is None:
        data.prepare_data()
    elif waiting := data.prepare_share(share):
        print(f"part {share} is prepared; {', '.join(waiting)}: the last machine to end writes the manifest")
        return 0
    print(f"prepared in {data.place}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg prepare", description=__doc__)
    made.add_argument("config", nargs="+", help="configs of `nbg fit`, merged from left to right")
    made.add_argument("--part", metavar="i/N", help=f"prepare part i of N, as machine i of N; {PART_NEEDS}")
    made.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: use the cluster at RAY_ADDRESS, or a local one (default local)",
    )
    made.add_argument(
        "--workers", type=int, metavar="n", help="number of processes (default: data.prepare_workers, or all cores)"
    )
    return made
