"""`nbg build-cache`: what a teacher and the reference say of a config's pairs, computed once and kept on disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning import log
from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.settings import add_config_option, read_config

if TYPE_CHECKING:
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.teachers.alignment import TokenizerPair
    from nbg_lightning.teachers.cache import TeacherCache
    from nbg_lightning.teachers.targets import FrozenModel, TargetSource

FOLDER = "runs/cache"


def main(argv: list[str]) -> int:
    """Build, or complete, the cache of a config's data.

    Raises:
        FileNotFoundError, ValueError: a config, weights or data that cannot be used.
        RuntimeError: a server fails.
    """
    arguments = parser().parse_args(argv)
    config = read_config(arguments.config)
    cache = build(config, " ".join(arguments.config), arguments)
    print(
        f"{cache.folder}: {cache.num_sequences:,} sequences, {cache.num_tokens:,} trained tokens, "
        f"{cache.bytes_per_token:.0f} bytes a token, {cache.bytes_per_token * cache.num_tokens / 1e6:,.1f} MB"
    )
    here = (config.get("data") or {}).get("init_args", {}).get("cache")
    if here is None or Path(here).expanduser().resolve() not in (cache.folder.resolve(), cache.folder.parent.resolve()):
        print(f"train with it: --data.init_args.cache {cache.folder}")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="nbg build-cache",
        description="Compute the k likeliest ids of every trained token by a teacher, the mass of all others, and the "
        "reference's log-probability of the token itself. Killed, it goes on where it was.",
    )
    add_config_option(parser, "YAML file of `nbg fit` with a PreferenceDataModule; of several, the last one wins")
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument(
        "--teacher", help="teacher weights: folder, hub name or checkpoint (default: model.init_args.teacher)"
    )
    teacher.add_argument("--server", metavar="URL", help="a vLLM server as teacher, such as http://127.0.0.1:8000/v1")
    parser.add_argument(
        "--server-model", metavar="NAME", help="the model's name on the server (default: the first it lists)"
    )
    parser.add_argument(
        "--server-tokenizer", metavar="NAME", help="the served model's tokenizer, if it differs from the data's"
    )
    parser.add_argument("--concurrency", type=int, default=8, help="concurrent requests to the server (default: 8)")
    reference = parser.add_mutually_exclusive_group()
    reference.add_argument(
        "--reference", help="frozen student (default: model.init_args.reference, else its base_weights)"
    )
    reference.add_argument("--no-reference", action="store_true", help="cache the teacher only")
    parser.add_argument("-k", type=int, default=64, help="most likely ids to keep per token (default: 64)")
    parser.add_argument(
        "--temperature", type=float, help="temperature of the teacher (default: model.init_args.temperature, else 1)"
    )
    parser.add_argument("--out", help=f"parent folder of caches (default: data.init_args.cache, else {FOLDER})")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="tokens per forward pass (default: 8192)")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="precision of weights and matrix products"
    )
    parser.add_argument("--device", help="such as cuda:1 (default: CUDA if available)")
    return parser


def build(config: dict[str, Any], name: str, arguments: argparse.Namespace) -> TeacherCache:
    """The cache of a config.

    Args:
        config: of `nbg fit`, as read.
        name: of the config, for messages.
        arguments: of the command line.
    """
    from nbg_lightning.commands.schedule import datamodule_of
    from nbg_lightning.datamodules.preference import PreferenceDataModule
    from nbg_lightning.teachers.build import build_cache
    from nbg_lightning.teachers.cache_format import ABOUT

    for option, value in (("-k", arguments.k), ("--batch-tokens", arguments.batch_tokens)):
        if value < 1:
            raise ValueError(f"{option} is invalid: {value}; give at least 1")
    model = dict((config.get("model") or {}).get("init_args") or {})
    data = dict((config.get("data") or {}).get("init_args") or {})
    out = arguments.out or data.pop("cache", None) or FOLDER
    data.pop("cache", None)
    if (Path(out).expanduser() / ABOUT).is_file():  # the config names one cache; ours lies beside it
        out = str(Path(out).expanduser().parent)
    teacher = _teacher(arguments, model, name)  # before the data is rendered: this fails at once
    reference = _reference(arguments, model, name)
    _vocabulary(teacher, None, arguments.k)
    datamodule = datamodule_of({**config, "data": {**(config.get("data") or {}), "init_args": data}})
    if not isinstance(datamodule, PreferenceDataModule):
        raise ValueError(
            f"{name}: data is invalid: {type(datamodule).__name__}; give a config with PreferenceDataModule"
        )
    pair = _pair(teacher, datamodule.tokenizer)
    vocab_size = _vocabulary(teacher, None if pair is not None else reference, arguments.k)
    about = {
        "config": name,
        "teacher": arguments.server or arguments.teacher or model.get("teacher"),
        "reference": None if reference is None else reference.weights,
        "sources": datamodule.domains,
    }
    return build_cache(
        datamodule.sequences,
        teacher,
        reference,
        out,
        datamodule.tokenizer.fingerprint,
        datamodule.template_identity,
        vocab_size or (datamodule.tokenizer if pair is None else pair.theirs).vocab_size,
        arguments.k,
        float(model.get("temperature", 1.0)) if arguments.temperature is None else arguments.temperature,
        arguments.batch_tokens,
        share_prefixes=model.get("share_prefixes", "auto"),
        about=about,
        pair=pair,
    )


def _pair(teacher: TargetSource, tokenizer: Tokenizer) -> TokenizerPair | None:
    """The data's tokenizer and the teacher's, where they differ; a server's is held against the server.

    Raises:
        ValueError: they cannot be aligned, or the server has neither of them.
    """
    from nbg_lightning.data.tokenizer import load_tokenizer
    from nbg_lightning.teachers.alignment import pair_with, tokenizer_of
    from nbg_lightning.teachers.server import ServerTeacher
    from nbg_lightning.teachers.targets import FrozenModel

    if isinstance(teacher, ServerTeacher):
        theirs = None if teacher.tokenizer is None else load_tokenizer(teacher.tokenizer)
        pair = pair_with(teacher.url, tokenizer, theirs)
        with teacher:
            teacher.check_tokenizer(tokenizer if pair is None else pair.theirs)
        return pair
    assert isinstance(teacher, FrozenModel)
    theirs = tokenizer_of(teacher.weights)
    if theirs is None:
        log.warn(
            f"{teacher.weights} has no tokenizer to compare with the data's: it is taken for granted that its ids are the data's"
        )
    return pair_with(teacher.weights, tokenizer, theirs)


def _teacher(arguments: argparse.Namespace, model: dict[str, Any], name: str) -> TargetSource:
    if arguments.server is not None:
        from nbg_lightning.teachers.server import ServerTeacher

        return ServerTeacher(
            arguments.server,
            arguments.server_model,
            concurrency=arguments.concurrency,
            tokenizer=arguments.server_tokenizer,
        )
    if arguments.server_tokenizer is not None:
        raise ValueError(
            "--server-tokenizer is invalid: the tokenizer of weights is found beside them; leave it out, or give --server"
        )
    weights = arguments.teacher or model.get("teacher")
    if weights is None:
        raise ValueError(f"{name} has no model.init_args.teacher; give --teacher WEIGHTS or --server URL")
    return _frozen(weights, arguments, model)


def _frozen(weights: str, arguments: argparse.Namespace, model: dict[str, Any]) -> FrozenModel:
    from nbg_lightning.teachers.targets import FrozenModel

    share = model.get("share_prefixes", "auto")
    return FrozenModel(weights, device=arguments.device, dtype=arguments.dtype, share_prefixes=share)


def _reference(arguments: argparse.Namespace, model: dict[str, Any], name: str) -> FrozenModel | None:
    if arguments.no_reference:
        return None
    weights = arguments.reference or model.get("reference") or model.get("base_weights")
    if weights is None:
        raise ValueError(
            f"{name} has neither model.init_args.reference nor base_weights; give --reference WEIGHTS, or --no-reference"
        )
    return _frozen(weights, arguments, model)


def _vocabulary(teacher: TargetSource, reference: FrozenModel | None, k: int) -> int | None:
    """Ids that teacher and student both have: what the teacher is normalised over. A server does not say how many it has."""
    from nbg_lightning.teachers.targets import FrozenModel

    sizes = [each.shape.vocab_size for each in (teacher, reference) if isinstance(each, FrozenModel)]
    shared = min(sizes, default=None)
    if isinstance(teacher, FrozenModel) and shared is not None:
        teacher.vocab_size = shared
    if shared is not None and k > shared:
        raise ValueError(
            f"-k {k} is more than the {shared} ids that teacher and student both have; give at most {shared}"
        )
    return shared
