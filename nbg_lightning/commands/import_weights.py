"""`nbg import`: a Hugging Face model, checked and compared with transformers, as a folder to train from."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from nbg_lightning.commands.export_weights import add_verification_option
from nbg_lightning.commands.input_paths import check_model
from nbg_lightning.commands.parser import CommandParser

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def main(argv: list[str]) -> int:
    """Check a Hugging Face model, or a peft adapter on its base, and write it as a folder for `base_weights` of any training.

    OUT is a Hugging Face folder too: config, safetensors and tokenizer in one known form, without code. Before it appears,
    every tensor's name and shape was held against the config, and logits of our model were compared with those that
    transformers computes from the source, and from OUT. `base_weights` also takes the source itself; what this adds is the
    proof, and a local copy that stays as it is.
    """
    arguments = parser().parse_args(argv)
    check_model(arguments.source)

    from transformers import CONFIG_MAPPING

    from nbg_lightning.commands.export_weights import quiet, report
    from nbg_lightning.core.adapter_weights import AdaptedWeights
    from nbg_lightning.core.hf_folder import compare, stops, token_ids, write_hugging_face
    from nbg_lightning.core.peft_folder import compare_peft
    from nbg_lightning.core.weight_sources import HuggingFaceFolder, read_json
    from nbg_lightning.core.weights import open_weights
    from nbg_lightning.data.tokenizer import Tokenizer

    quiet()
    weights = open_weights(arguments.source, base=arguments.base)
    model = weights.base if isinstance(weights, AdaptedWeights) else weights
    if not isinstance(model, HuggingFaceFolder) or (isinstance(weights, AdaptedWeights) and weights.source is not None):
        raise ValueError(
            f"{arguments.source} is a checkpoint of a run; give it as base_weights as it is, or write it by nbg export"
        )
    folders = [Path(weights.where), model.folder] if isinstance(weights, AdaptedWeights) else [model.folder]
    found = [folder for folder in folders if any((folder / name).is_file() for name in _TOKENIZER_FILES)]
    tokenizer = None
    if arguments.tokenizer or found:
        tokenizer = Tokenizer(arguments.tokenizer or found[0])
    ids = {**token_ids(tokenizer), **{key: model.config[key] for key in _IDS if model.config.get(key) is not None}}
    generation = stops(tokenizer)
    if (model.folder / "generation_config.json").is_file():
        generation = read_json(model.folder / "generation_config.json")
    loadable = model.config["model_type"] in CONFIG_MAPPING  # else only the written form is, without foreign code
    if loadable and not arguments.no_verify:
        if isinstance(weights, AdaptedWeights):
            source = compare_peft(weights, Path(weights.where))
        else:
            source = compare(weights, model.folder)
        if source is not None:
            source.check(arguments.source)
    comparison = write_hugging_face(
        weights, arguments.out, ids, tokenizer, model.dtype, generation=generation, verify=not arguments.no_verify
    )
    shape = ", ".join(f"{key} {value}" for key, value in dataclasses.asdict(weights.shape).items())
    print(f"wrote {arguments.out}: {weights.shape.num_parameters:,} parameters, {model.dtype}")
    print(f"shape: {shape}")
    if comparison is not None:
        report(comparison)
    if tokenizer is None:
        print(f"{arguments.source} has no tokenizer: the folder has none either (give one with --tokenizer)")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg import",
        description="Check a Hugging Face model of the Llama family, compare its logits with transformers, and write it to a "
        "folder that base_weights, transformers and vLLM can load.",
    )
    made.add_argument(
        "source",
        metavar="FOLDER_OR_NAME",
        help="folder or hub name of a model, or of a peft adapter, which is merged into its base",
    )
    made.add_argument("out", metavar="OUT", type=Path, help="folder to make; it must not exist")
    made.add_argument("--tokenizer", metavar="FOLDER", help="tokenizer to write (default: the source's)")
    made.add_argument(
        "--base", metavar="FOLDER", help="base model of a peft adapter, if it is not where the adapter's config says"
    )
    add_verification_option(made)
    return made
