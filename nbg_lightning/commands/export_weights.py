"""`nbg export`: a checkpoint of a run as a Hugging Face folder, compared with transformers before it appears."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nbg_lightning.commands.input_paths import check_model
from nbg_lightning.commands.parser import CommandParser

if TYPE_CHECKING:
    from nbg_lightning.core.adapter_weights import AdaptedWeights
    from nbg_lightning.core.hf_folder import Comparison
    from nbg_lightning.core.weight_sources import TrainingCheckpoint, Weights
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.evaluation.results import SuiteResult

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def main(argv: list[str]) -> int:
    """Write a checkpoint as a folder with config, safetensors, tokenizer and generation config."""
    arguments = parser().parse_args(argv)
    check_model(arguments.checkpoint)
    parse_bytes(arguments.max_shard_size)  # refused at once

    from nbg_lightning.chat.template import ChatTemplate
    from nbg_lightning.core.adapter_weights import AdaptedWeights
    from nbg_lightning.core.weight_sources import TrainingCheckpoint
    from nbg_lightning.core.weights import open_weights
    from nbg_lightning.data.durable import write_atomic
    from nbg_lightning.data.tokenizer import checkpoint_template, load_tokenizer
    from nbg_lightning.evaluation.results import load_result
    from nbg_lightning.recipe.card import run_results

    name = None
    if arguments.push_to_hub is not None:
        from nbg_lightning.commands.hub import check_hub

        name = check_hub(arguments.push_to_hub)  # before minutes of work
    quiet()
    weights = open_weights(arguments.checkpoint, arguments.ema, arguments.base)
    checkpoint = weights.source if isinstance(weights, AdaptedWeights) else weights
    if not isinstance(checkpoint, TrainingCheckpoint):
        raise ValueError(f"{arguments.checkpoint} is a Hugging Face model already; use it as it is, or nbg import")
    if arguments.adapter and not isinstance(weights, AdaptedWeights):
        raise ValueError(
            f"--adapter is invalid: {arguments.checkpoint} has no adapter; leave it out to write all weights"
        )
    if arguments.adapter and arguments.no_verify:
        raise ValueError("--no-verify is invalid with --adapter; leave it out: the check needs the base only")
    suites = [load_result(folder) for folder in arguments.results or ()] or run_results(checkpoint.folder)
    checkpoint.check_files()  # of what is given on, every byte is as it was written
    named = arguments.tokenizer or checkpoint.tokenizer
    if named is None:
        raise ValueError(f"{arguments.checkpoint} does not record the tokenizer of its run; give --tokenizer FOLDER")
    if arguments.tokenizer is None and not Path(named).exists():
        raise FileNotFoundError(f"the run's tokenizer {named} does not exist; give --tokenizer FOLDER")
    tokenizer = load_tokenizer(named)
    tokenizer.chat_template = checkpoint_template(arguments.checkpoint) or tokenizer.chat_template
    own = ChatTemplate.own(
        tokenizer.transformers
    )  # recognized: earlier tokenizers have another text of the paper's format
    template = tokenizer.chat_template = tokenizer.chat_template or own
    what = f"step {checkpoint.step:,}{', averaged weights' if arguments.ema else ''}"
    if arguments.adapter and isinstance(weights, AdaptedWeights):
        write_adapter(weights, arguments, tokenizer, what)
    else:
        write_whole(weights, arguments, tokenizer, what)
    described = None if template is None else template.described
    print(f"chat template: {described or 'none'}")
    card = model_card_of(arguments, checkpoint, suites, name or arguments.out.name, described)
    write_atomic(arguments.out / "README.md", card)
    if name is not None:
        from nbg_lightning.commands.hub import push_folder

        print(f"pushed: {push_folder(arguments.out, name, arguments.private)}")
    return 0


def write_whole(weights: Weights, arguments: argparse.Namespace, tokenizer: Tokenizer, what: str) -> None:
    """Write all weights, as a Hugging Face folder."""
    from nbg_lightning.core.hf_folder import stops, token_ids, write_hugging_face

    comparison = write_hugging_face(
        weights,
        arguments.out,
        token_ids(tokenizer),
        tokenizer,
        arguments.dtype,
        parse_bytes(arguments.max_shard_size),
        stops(tokenizer),
        verify=not arguments.no_verify,
    )
    print(f"wrote {arguments.out}: {what}, {weights.shape.num_parameters:,} parameters, {arguments.dtype}")
    if comparison is None:
        return
    report(comparison)
    if arguments.dtype != "float32":
        print(f"rounding to {arguments.dtype} moved logits by at most {comparison.rounding:.1e}")


def write_adapter(weights: AdaptedWeights, arguments: argparse.Namespace, tokenizer: Tokenizer, what: str) -> None:
    """Write the adapter alone, as a peft folder."""
    from nbg_lightning.core.peft_folder import save_peft

    comparison = save_peft(weights, arguments.out, arguments.base, tokenizer)
    record = weights.adapter.record
    numbers = sum(tensor.numel() for tensor in weights.adapter.tensors.values())
    print(f"wrote {arguments.out}: {what}, an adapter of rank {record.lora.rank}, {numbers:,} parameters, float32")
    print(f"its base: {arguments.base or record.base}")
    if comparison is None:
        print("peft is not installed: its logits were not compared (pip install peft)")
    else:
        report(comparison, "peft")


def model_card_of(
    arguments: argparse.Namespace,
    weights: TrainingCheckpoint,
    suites: list[SuiteResult],
    title: str,
    template: str | None,
) -> str:
    """The model card of an export."""
    from nbg_lightning.recipe.card import model_card, read_run

    shape = weights.shape
    model = [
        ("parameters", f"{shape.num_parameters:,}"),
        ("layers", str(shape.num_hidden_layers)),
        ("hidden size", f"{shape.hidden_size:,}"),
        ("vocabulary", f"{shape.vocab_size:,}"),
        ("context", f"{shape.max_position_embeddings:,}"),
        ("weights", f"{arguments.dtype}, of step {weights.step:,}{', averaged' if arguments.ema else ''}"),
    ]
    return model_card(title, model, read_run(weights.folder), suites, template)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg export",
        description="Convert a checkpoint to a Hugging Face folder. Before the folder appears, transformers loads it and its "
        "logits must match ours.",
    )
    made.add_argument(
        "checkpoint",
        metavar="CKPT",
        help="a checkpoint (RUN/checkpoints/step-XXXXXXXX), or a run folder: its newest one",
    )
    made.add_argument("out", metavar="OUT", type=Path, help="folder to make; it must not exist")
    made.add_argument("--tokenizer", metavar="FOLDER", help="tokenizer to write (default: the run's)")
    add_writing_options(made, "bfloat16", "dtype of the weights; float32 is exact (default: bfloat16)")
    made.add_argument(
        "--push-to-hub",
        metavar="NAME",
        help="push the folder to the Hugging Face hub as NAME or OWNER/NAME, in one commit",
    )
    made.add_argument("--private", action="store_true", help="create the hub repository as private")
    made.add_argument(
        "--results",
        metavar="FOLDER",
        action="append",
        help="benchmark results for the model card; may be repeated (default: the newest of the run)",
    )
    made.add_argument("--adapter", action="store_true", help="write only the LoRA adapter, as a peft folder")
    add_verification_option(made)
    made.add_argument("--base", metavar="FOLDER", help="base model of the adapter, if it has moved since training")
    made.add_argument("--ema", action="store_true", help="export the averaged weights (of a run with ema_decay)")
    return made


def add_verification_option(parser: argparse.ArgumentParser) -> None:
    """The option of commands that write a model."""
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="skip the check against transformers, which needs the whole model in memory, in float32",
    )


def add_writing_options(parser: argparse.ArgumentParser, dtype: str, explanation: str) -> None:
    """How weights are written: ``--dtype``, with its default and help, and ``--max-shard-size``."""
    parser.add_argument("--dtype", default=dtype, choices=["bfloat16", "float32", "float16"], help=explanation)
    parser.add_argument("--max-shard-size", default="5GB", help="size limit of a safetensors file (default: 5GB)")


def report(comparison: Comparison, other: str = "transformers") -> None:
    """What the comparison with transformers (or peft) found."""
    print(
        f"logits of {other} differ from ours by at most {comparison.difference:.1e} "
        f"(allowed {comparison.limit:.1e}, largest logit {comparison.largest:.1f})"
    )


def quiet() -> None:
    """Hide the progress bars of transformers, which are noise: two models are loaded within a minute."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def parse_bytes(text: str) -> int:
    """Bytes from a number with a decimal unit.

    Example:
        >>> parse_bytes("5GB"), parse_bytes("1.5 MB"), parse_bytes("4096")
        (5000000000, 1500000, 4096)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]B)?", text.strip(), re.IGNORECASE)
    size = round(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise ValueError(f"--max-shard-size is invalid: {text}; give something like 5GB or 500MB")
    return size
