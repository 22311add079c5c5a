"""`nbg pass-rate`: how often a model solves each question of a config, before it is trained on those of medium difficulty."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.settings import instantiate, make_datamodule, read_config
from nbg_lightning.config_files import parse_yaml, read_yaml, shipped
from nbg_lightning.moved import with_recorded_arguments

if TYPE_CHECKING:
    from nbg_lightning.core.config import LanguageModelConfig
    from nbg_lightning.data.question import Question
    from nbg_lightning.datamodules.prompts import PromptDataModule
    from nbg_lightning.engines.protocol import Engine, Sampling
    from nbg_lightning.environments.environment import Environment
    from nbg_lightning.rewards.protocol import Reward
    from nbg_lightning.rl.pass_rate import PassRateLedger

SUMMARY = "Sample answers to every question of a GRPO config, and write a ledger of how many are correct."


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        FileNotFoundError, ValueError: a config, weights or reward that cannot be used.
        RuntimeError: the reward or the engine fails too often.
    """
    arguments = parser().parse_args(argv)
    name = " ".join(arguments.config)
    config = read_config(arguments.config)

    from nbg_lightning.engines.chat import ChatModel
    from nbg_lightning.rl.pass_rate import PassRateFilter, check_file, identity, measured

    model = dict((config.get("model") or {}).get("init_args") or {})
    data = prompt_datamodule(config, name)
    file = arguments.output or data.ledger_file
    if file is None:
        raise ValueError(
            f"{name} has no data.init_args.ledger; set it to the file to write, or give --output FILE.parquet"
        )
    check_file(file)
    weights = _checkpoint(arguments.weights or model.get("base_weights"))
    spec = _engine_spec(arguments.engine, model.get("engine"))
    if weights is None and _kind(spec) != "server":
        raise ValueError(f"{name} has no model.init_args.base_weights; give --weights")
    environment, environment_config = make_environment(config, name)
    rewarding = config if arguments.reward is None else read_config([arguments.reward])
    reward, reward_config = make_reward(rewarding, name, environment is not None)
    sampling = _sampling(arguments, model, name)
    part = _part(arguments.part)
    data.base_weights = weights
    questions = [question for of_source in data.load_questions().values() for question in of_source]
    about = {
        "weights": weights if weights is not None else _server(spec),
        "fingerprint": _fingerprint(weights, arguments.ema, spec),
        "engine": spec if isinstance(spec, str) else spec["class_path"],
        "reward": reward_config,
        "template": data.format.template,
        "tokenizer": data.tokenizer.fingerprint,
        **({} if environment is None else {"environment": environment_config}),
    }
    ledger = measured(Path(file), questions, identity(about, sampling, arguments.pass_score))
    if ledger is not None:
        print(f"{file} has the pass rates of these weights, questions, sampling and reward: nothing is drawn")
    else:
        with nullcontext() if reward is None else reward:
            questions, unfit = scorable(questions, reward, data.on_invalid)
            longest = max(len(data.prompt(question).ids) for question in questions)
            needed = longest + sampling.max_new_tokens if environment is None else environment.limits.max_tokens
            with open_engine(spec, weights, arguments, data, needed) as (engine, takes_ids):
                rates = PassRateFilter(
                    ChatModel(engine, data.tokenizer if takes_ids else None),  # which knows the format by now
                    reward,
                    sampling,
                    Path(file),
                    about,
                    pass_score=arguments.pass_score,
                    prompts_per_call=arguments.prompts_per_call,
                    max_errors=arguments.max_errors,
                    part=part,
                    environment=environment,
                )
                ledger = rates.run(questions, unfit)
    if ledger is not None:
        _show(ledger, data, file)
    return 0


def _checkpoint(weights: str | None) -> str | None:
    """The newest checkpoint where a run is given."""
    from nbg_lightning.core.checkpoint_folder import checkpoint_at

    return None if weights is None else checkpoint_at(weights)


def _sampling(arguments: argparse.Namespace, model: Mapping[str, Any], name: str) -> Sampling:
    """How answers are drawn: as the config's module draws them, unless an option says otherwise."""
    from nbg_lightning.engines.protocol import Sampling

    return Sampling(
        max_new_tokens=int(arguments.max_new_tokens or model.get("max_new_tokens") or _missing(name, "max_new_tokens")),
        temperature=float(model.get("temperature", 1.0) if arguments.temperature is None else arguments.temperature),
        n=arguments.n,
        seed=arguments.seed,
    )


def _show(ledger: PassRateLedger, data: PromptDataModule, file: str) -> None:
    from rich.console import Console

    console = Console()
    console.print(ledger.table())
    for line in ledger.summary(data.pass_rate):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"ledger: {file}", highlight=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="nbg pass-rate",
        description=SUMMARY,
        epilog="Several processes, each with its own engine, share the questions:\n"
        "  torchrun --nproc-per-node=8 -m nbg_lightning.cli pass-rate CONFIG\n"
        "After an interruption the same command resumes; finished questions are kept.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="+", help="YAML files of `nbg fit` with GRPOModule and PromptDataModule")
    parser.add_argument("--output", metavar="FILE.parquet", help="ledger to write (default: data.init_args.ledger)")
    parser.add_argument("--weights", help="model that answers (default: model.init_args.base_weights)")
    parser.add_argument("--ema", action="store_true", help="use the averaged weights of a checkpoint")
    parser.add_argument("--n", type=int, default=16, help="answers per question (default 16, as in the paper)")
    parser.add_argument("--max-new-tokens", type=int, help="(default: as the config's model)")
    parser.add_argument("--temperature", type=float, help="(default: as the config's model, else 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the answers (default 0)")
    parser.add_argument("--reward", metavar="FILE", help="YAML file with another model.init_args.reward")
    parser.add_argument("--pass-score", type=float, default=1.0, help="lowest score that counts as a pass (default 1)")
    parser.add_argument(
        "--engine",
        help="local, vllm, or YAML (a file or text) of an engine's class_path and init_args, such as a ServerEngine's "
        "(default: the config's engine if it is a VLLMEngine or ServerEngine, else local)",
    )
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="precision of the engine (default: float32 on a CPU)"
    )
    parser.add_argument(
        "--prompts-per-call", type=int, default=64, help="questions per batch; a kill loses one batch (default 64)"
    )
    parser.add_argument(
        "--max-errors", type=float, default=0.2, help="allowed share of answers without a score (default 0.2)"
    )
    parser.add_argument("--part", metavar="I/K", help="answer part I of K, counted from 0 (torchrun sets it)")
    return parser


def _missing(name: str, setting: str) -> Any:
    raise ValueError(f"{name} has no model.init_args.{setting}; give --{setting.replace('_', '-')}")


def _part(text: str | None) -> tuple[int, int]:
    if text is None:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise ValueError(f"--part is invalid: {text}; give I/K with I from 0 to K - 1, such as 0/8")
    return int(first), int(second)


# -- from the config -------------------------------------------------------------------------------------------------


def prompt_datamodule(config: Mapping[str, Any], name: str) -> PromptDataModule:
    """The datamodule of a config; nothing is read.

    Raises:
        ValueError: the config has no ``data``, or one without questions.
    """
    from nbg_lightning.datamodules.prompts import PromptDataModule

    data = make_datamodule(config, name)
    if not isinstance(data, PromptDataModule):
        raise ValueError(f"{type(data).__name__} has no questions; give a config with PromptDataModule")
    return data


def make_environment(config: Mapping[str, Any], name: str) -> tuple[Environment | None, Any]:
    """The environment of a config, and what identifies it; None without one.

    Raises:
        ValueError: it cannot be made.
    """
    from nbg_lightning.environments.environment import Environment

    given = ((config.get("model") or {}).get("init_args") or {}).get("environment")
    if given is None:
        return None, None
    found = instantiate(Environment, given, f"{name}: model.init_args.environment")
    return found, _without_secrets(with_recorded_arguments(given))


def make_reward(config: Mapping[str, Any], name: str, optional: bool = False) -> tuple[Reward | None, Any]:
    """The reward of a config, and what identifies it.

    Args:
        config: of `nbg fit`.
        name: of the config, for errors.
        optional: an environment scores too, so that there may be none.

    Raises:
        ValueError: there is none, or it cannot be made.
    """
    from nbg_lightning.rewards.protocol import Reward
    from nbg_lightning.rl.length_budget import LengthBudgetReward

    given = ((config.get("model") or {}).get("init_args") or {}).get("reward")
    if given is None and optional:
        return None, None
    if given is None:
        raise ValueError(f"{name} has no model.init_args.reward, which says which answers are right; set it")
    found = instantiate(Reward, given, f"{name}: model.init_args.reward")
    recorded = _without_secrets(with_recorded_arguments(given))
    if isinstance(found, LengthBudgetReward):  # its budgets are of the ledger that is made here
        return found.reward, recorded["init_args"]["reward"]
    return found, recorded


def _without_secrets(given: Any) -> Any:
    """The settings, as they may be written to a file that others read."""
    if isinstance(given, Mapping):
        return {name: _without_secrets(value) for name, value in given.items() if name != "api_key"}
    return [_without_secrets(value) for value in given] if isinstance(given, list) else given


def scorable(
    questions: Sequence[Question], reward: Reward | None, on_invalid: str
) -> tuple[list[Question], dict[str, str]]:
    """All questions, and of those that the reward cannot score why not, by key.

    Raises:
        ValueError: there are some, and ``on_invalid`` is ``error``.
    """
    from nbg_lightning import log
    from nbg_lightning.rl.pass_rate import unique

    questions = unique(questions)
    reasons = {question.key: None if reward is None else reward.check(question) for question in questions}
    unfit = {key: reason for key, reason in reasons.items() if reason is not None}
    if unfit:
        first = next(question for question in questions if question.key in unfit)
        text = (
            f"{len(unfit):,} of {len(questions):,} questions cannot be scored; first, of source {first.source!r}: "
            f"{unfit[first.key]} (question: {str(first.messages[-1]['content'])[:60]!r})"
        )
        if on_invalid == "error":
            raise ValueError(f"{text}; fix them, or set data.init_args.on_invalid to drop")
        log.warn(f"{text}; no answers are drawn to them")
    return questions, unfit


# -- the engine ------------------------------------------------------------------------------------------------------


def _engine_spec(text: str | None, of_config: Any) -> str | dict[str, Any]:
    """``local``, ``vllm``, or a class with its arguments; by default the config's, where that is not the live model."""
    if text is None:
        own = isinstance(of_config, dict) and _kind(of_config) in ("vllm", "server")
        return of_config if own else "local"
    if text in ("local", "vllm"):
        return text
    found = read_yaml(text) if Path(shipped(text)).is_file() else parse_yaml(text, f"--engine {text!r}")
    if not isinstance(found, dict) or "class_path" not in found:
        raise ValueError(
            f"--engine is invalid: {text}; give local, vllm, or a YAML file or text with class_path and init_args"
        )
    return found


def _kind(spec: str | dict[str, Any]) -> str:
    if isinstance(spec, str):
        return spec
    name = str(spec["class_path"]).rpartition(".")[2]
    return {"LocalEngine": "local", "VLLMEngine": "vllm", "ServerEngine": "server"}.get(name, "other")


def _server(spec: str | dict[str, Any]) -> str:
    """Where a server is, and which model is asked for there."""
    arguments = {} if isinstance(spec, str) else spec.get("init_args") or {}
    return f"{arguments.get('url')} {arguments.get('model') or ''}".strip()


def _fingerprint(weights: str | None, ema: bool, spec: str | dict[str, Any]) -> str:
    """What the weights are; of a server only where it is can be known."""
    if _kind(spec) == "server":
        return f"{_server(spec)} {weights or ''}".strip()
    from nbg_lightning.core.fingerprint import source_fingerprint
    from nbg_lightning.core.weights import open_weights

    assert weights is not None
    return source_fingerprint(open_weights(weights, ema))


@contextmanager
def open_engine(
    spec: str | dict[str, Any],
    weights: str | None,
    arguments: argparse.Namespace,
    data: PromptDataModule,
    needed: int | None,
) -> Iterator[tuple[Engine, bool]]:
    """The engine with the weights in it, and whether it takes token ids.

    Args:
        spec: which engine.
        weights: for engines without weights.
        arguments: of the command.
        data: whose tokenizer must be the model's.
        needed: positions of the longest prompt with its answer; None for all of the model's window.

    Raises:
        ValueError: an engine that cannot be had, or a tokenizer that is not its model's.
    """
    import torch

    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dtype = arguments.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    kind = _kind(spec)
    options = {} if isinstance(spec, str) else dict(spec.get("init_args") or {})
    if kind == "local":
        from nbg_lightning.engines.local import LocalEngine

        assert weights is not None
        local = LocalEngine(**{"weights": weights, "ema": arguments.ema, "dtype": dtype, **options})
        _check_model(data, local.shape, needed)
        with local as engine:
            yield engine, True
    elif kind == "vllm":
        assert weights is not None
        with _vllm(weights, arguments.ema, {"dtype": dtype, **options}, data, needed) as engine:
            yield engine, True
    else:
        from nbg_lightning.engines.capabilities import interface_of

        found: Engine = instantiate(object, spec, "--engine")
        with found as engine:
            yield engine, interface_of(engine) == "ids"


def _check_model(data: PromptDataModule, shape: LanguageModelConfig, needed: int | None) -> None:
    from nbg_lightning import log

    if data.vocab_size > shape.vocab_size:
        raise ValueError(
            f"the tokenizer has {data.vocab_size} ids, the model's vocabulary {shape.vocab_size}; use that model's tokenizer"
        )
    if needed is not None and needed > shape.max_position_embeddings:
        log.warn(
            f"the longest prompt and its answer may take {needed:,} positions, and the model's window has "
            f"{shape.max_position_embeddings:,}: answers are cut earlier"
        )


@contextmanager
def _vllm(
    weights: str, ema: bool, options: dict[str, Any], data: PromptDataModule, needed: int | None
) -> Iterator[Engine]:
    """vLLM with weights from any place that this library reads."""
    from nbg_lightning.core.create import create_model
    from nbg_lightning.core.weights import load_base_weights, read_shape
    from nbg_lightning.engines.vllm import VLLMEngine
    from nbg_lightning.engines.vllm_skeleton import write_skeleton
    from nbg_lightning.engines.weights import weight_stream

    shape = read_shape(weights)
    _check_model(data, shape, needed)
    window = min(needed or shape.max_position_embeddings, shape.max_position_embeddings)
    with tempfile.TemporaryDirectory(prefix="nbg-pass-rate-") as folder:
        skeleton = write_skeleton(shape, folder, data.tokenizer)
        with VLLMEngine(**{"window": window, **options, "folder": skeleton}) as engine:
            model = create_model(shape, device="cpu").requires_grad_(False)
            load_base_weights(model, weights, ema)
            engine.sync(weight_stream(model), 0)
            del model
            yield engine
