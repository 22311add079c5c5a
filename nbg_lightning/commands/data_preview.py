"""`nbg data preview`: the conversations of a config as they will be trained, before anyone pays for a run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbg_lightning.datamodules.chat import ChatDataModule

WINDOW_BOUND = 1 << 16  # conversations that the packing is estimated from


def main(argv: list[str]) -> int:
    """Print the first conversations of each source, with trained tokens in colour, lengths, packing and warnings."""
    parser = argparse.ArgumentParser(prog="nbg data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preview = commands.add_parser("preview", help=main.__doc__, description=main.__doc__)
    preview.add_argument("config", nargs="+", help="YAML files of `nbg fit`, merged left to right")
    preview.add_argument("--samples", type=int, default=2, help="conversations printed of each source (default 2)")
    preview.add_argument(
        "--look-at", type=int, default=1000, help="conversations rendered of each source (default 1000)"
    )
    preview.add_argument("--source", help="only this source")
    arguments = preview.parse_args(argv[1:]) if argv[:1] == ["preview"] else parser.parse_args(argv)
    if arguments.samples < 0 or arguments.look_at < 1:
        raise ValueError("--samples must be at least 0, and --look-at at least 1")
    print_preview(chat_datamodule(arguments.config), arguments.samples, arguments.look_at, arguments.source)
    return 0


def chat_datamodule(configs: list[str]) -> ChatDataModule:
    """The datamodule of a config; nothing is prepared.

    Raises:
        ValueError: the config has no ``data``, or one without conversations.
    """
    from jsonargparse import ArgumentParser, Namespace
    from lightning.pytorch import LightningDataModule

    from nbg_lightning.commands.schedule import read_config
    from nbg_lightning.datamodules.chat import ChatDataModule

    config = read_config(configs)
    if not isinstance(config.get("data"), dict) or "class_path" not in config["data"]:
        raise ValueError(f"{' '.join(configs)}: there is no data.class_path")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    data = {"class_path": config["data"]["class_path"], "init_args": dict(config["data"].get("init_args") or {})}
    data["init_args"].setdefault("seed", config.get("seed", 0))
    try:
        found: Namespace = parser.instantiate_classes(parser.parse_object({"data": data}))
    except Exception as error:  # jsonargparse raises its own kind; each means: this config cannot be
        raise ValueError(f"{' '.join(configs)}: {' '.join(str(error).split())[:500]}") from error
    if not isinstance(found.data, ChatDataModule):
        raise ValueError(f"{data['class_path']} has no conversations: preview shows configs with ChatDataModule")
    return found.data


def print_preview(data: ChatDataModule, num_samples: int, look_at: int, only: str | None = None) -> list[str]:
    """Prints every source, and returns the warnings.

    Args:
        data: the datamodule; its sources are read from their beginning, and nothing is written but a tokenizer.
        num_samples: conversations printed of each source.
        look_at: conversations that lengths, packing and warnings are made from.
        only: name of the one source to show.
    """
    from rich.console import Console
    from rich.text import Text

    from nbg_lightning.chat import RenderCounts, render_samples
    from nbg_lightning.chat.preview import preview

    console = Console()
    if only is not None and only not in data.sources:
        raise ValueError(f"there is no source {only!r}; there are: {', '.join(data.sources)}")
    tokenizer = data.load_tokenizer()
    renderer = data.renderer(tokenizer)
    console.print(Text(special_tokens(tokenizer), style="dim"))
    warnings = []
    for name, source in data.sources.items():
        if only not in (None, name):
            continue
        console.rule(Text(f"{name} ({type(source).__name__})"))
        counts = RenderCounts()
        rows: Iterator[Any] = (row for part in source.parts() for row in part.documents())
        samples = [sample for _, sample in render_samples(renderer, islice(rows, look_at), counts, name)]
        if not samples:
            console.print(Text(f"warning: no conversation is left; {counts.summary()}", style="bold red"))
            warnings.append(f"{name}: no conversation is left")
            continue
        found = preview(samples, tokenizer.transformers, console, counts, num_samples)
        warnings += [f"{name}: {warning}" for warning in found]
        console.print(Text(lengths_and_packing([len(sample) for sample in samples], data)))
    return warnings


def special_tokens(tokenizer: Any) -> str:
    """The tokens that matter in a chat format, with their ids."""
    named = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    parts = [f"{role} {tokenizer.decode([index])} = {index}" for role, index in named.items() if index is not None]
    added = tokenizer.transformers.get_added_vocab()
    parts += [f"{text} = {index}" for text, index in sorted(added.items(), key=lambda pair: pair[1])][:24]
    return "special tokens: " + ", ".join(dict.fromkeys(parts))


def lengths_and_packing(lengths: list[int], data: ChatDataModule) -> str:
    """Quantiles of the lengths, and how full windows get by each way of packing."""
    import numpy as np

    from nbg_lightning.data.packing import best_fit_decreasing, length_buckets, packing_efficiency, padded_batches

    array = np.array(lengths[:WINDOW_BOUND])
    low, middle, high = (int(q) for q in np.quantile(array, [0.1, 0.5, 0.9]))
    text = f"lengths: {array.min()} to {array.max()} tokens, median {middle}, 80 % between {low} and {high}\n"
    inputs = np.maximum(1, array - 1)
    shares = {
        name: packing_efficiency(packer(inputs, data.sequence_length), inputs, data.sequence_length)
        for name, packer in (
            ("best_fit", best_fit_decreasing),
            ("bucketed", length_buckets),
            ("padded", padded_batches),
        )
    }
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return text + f"packing of these {len(array)} into windows of {data.sequence_length:,}: {listed}"
