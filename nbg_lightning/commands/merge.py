"""`nbg merge`: the average of checkpoints of a run as a Hugging Face folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nbg_lightning.commands.export_weights import add_verification_option, add_writing_options
from nbg_lightning.commands.input_paths import check_model
from nbg_lightning.commands.parser import CommandParser

if TYPE_CHECKING:
    from nbg_lightning.core.weight_sources import Weights

RULES = ("uniform", "linear", "one_minus_sqrt", "cosine", "ema")


def main(argv: list[str]) -> int:
    """Average checkpoints, one group of tensors at a time, and write the folder."""
    arguments = parser().parse_args(argv)
    if len(arguments.checkpoints) < 2:
        raise ValueError(f"CKPT is invalid: {len(arguments.checkpoints)} of them; give two checkpoints or more")
    numbers = parse_numbers(arguments.weights)
    for each in arguments.checkpoints:
        check_model(each)

    from nbg_lightning.commands.export_weights import parse_bytes, quiet, report
    from nbg_lightning.core.adapter_weights import checkpoint_of
    from nbg_lightning.core.hf_folder import stops, token_ids, write_hugging_face
    from nbg_lightning.core.merging import MergedWeights, MergeRule, check_one_run, merge_weights
    from nbg_lightning.core.weights import open_weights
    from nbg_lightning.data.tokenizer import checkpoint_template, checkpoint_tokenizer, load_tokenizer

    assert get_args(MergeRule) == RULES
    quiet()
    parts: list[Weights] = [open_weights(each, arguments.ema) for each in arguments.checkpoints]
    if not arguments.across_runs:
        check_one_run(parts)
    if numbers is None:  # rules go by age; numbers are in the order in which they were given
        parts.sort(key=_step)
    factors = merge_weights(arguments.weights, len(parts), arguments.decay) if numbers is None else numbers
    merged = MergedWeights(parts, factors)
    for part in parts:
        if (checkpoint := checkpoint_of(part)) is not None:
            checkpoint.check_files()
    newest = max(parts, key=_step)
    tokenizer = load_tokenizer(arguments.tokenizer or checkpoint_tokenizer(newest.where))
    tokenizer.chat_template = checkpoint_template(newest.where) or tokenizer.chat_template
    comparison = write_hugging_face(
        merged,
        arguments.out,
        token_ids(tokenizer),
        tokenizer,
        arguments.dtype,
        parse_bytes(arguments.max_shard_size),
        stops(tokenizer),
        verify=not arguments.no_verify,
    )
    for part, factor in zip(parts, merged.factors, strict=True):
        print(f"{factor:8.4f}  {part.where}")
    print(f"wrote {arguments.out}: {merged.where}, {merged.shape.num_parameters:,} parameters, {arguments.dtype}")
    if comparison is not None:
        report(comparison)
    return 0


def _step(part: Weights) -> int:
    """Steps that a checkpoint has done; a folder that does not say counts as the oldest, in the order given."""
    from nbg_lightning.core.adapter_weights import checkpoint_of

    checkpoint = checkpoint_of(part)
    return -1 if checkpoint is None else checkpoint.step


def parse_numbers(text: str) -> list[float] | None:
    """Weights from numbers with commas between; None for a rule's name.

    Example:
        >>> parse_numbers("0.5,0.25,0.25"), parse_numbers("uniform")
        ([0.5, 0.25, 0.25], None)
    """
    if text in RULES:
        return None
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--weights is invalid: {text!r}; choose {', '.join(RULES)}, or give a number for each checkpoint: 0.5,0.3,0.2"
        ) from None


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg merge",
        description="Average checkpoints of a run, a few tensors at a time, and write a Hugging Face folder that "
        "base_weights, benchmarks, transformers and vLLM can load.",
    )
    made.add_argument("checkpoints", metavar="CKPT", nargs="*", help="two or more checkpoints of one run, in any order")
    made.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder to make; it must not exist")
    made.add_argument(
        "--weights",
        default="uniform",
        help=f"{', '.join(RULES)}, or one number per checkpoint, separated by commas (default: uniform, which corresponds to "
        "a linear decay of the learning rate)",
    )
    made.add_argument("--decay", type=float, default=0.8, help="with --weights ema: decay per checkpoint (default 0.8)")
    made.add_argument(
        "--across-runs", action="store_true", help="allow checkpoints of different runs, and Hugging Face folders"
    )
    made.add_argument(
        "--ema", action="store_true", help="use the averaged weights of each checkpoint (of a run with ema_decay)"
    )
    made.add_argument("--tokenizer", metavar="FOLDER", help="tokenizer to write (default: the newest checkpoint's)")
    add_writing_options(made, "float32", "dtype of the written weights (default: float32, the exact average)")
    add_verification_option(made)
    return made
