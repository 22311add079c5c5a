"""`nbg plan`: predict memory and time of a training run, or of a whole recipe, on other machines."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.settings import check_config
from nbg_lightning.config_files import config_file, read_yaml, resolve_arguments


def main(argv: list[str]) -> int:
    """Plan the configs, print each plan, and answer 1 if one does not fit."""
    arguments = parser().parse_args(argv)
    if arguments.calibrate is not None:
        return _calibrate(arguments)
    if not arguments.config:
        raise ValueError("config is missing; give YAML files of nbg fit or a recipe, or --calibrate FILE")
    for config in arguments.config:  # before anything heavy is imported
        if not config_file(config).is_file():
            raise FileNotFoundError(f"config is invalid: {config}; there is no such file: give a YAML file")
    content = read_yaml(config_file(arguments.config[0]))
    if not (isinstance(content, dict) and "steps" in content):  # a recipe says itself what is wrong with it
        check_config(arguments.config)
    from nbg_lightning.planning.device_file import device_of

    device = device_of(arguments.device or "h100")
    from nbg_lightning.planning.plan import plan_resources
    from nbg_lightning.planning.spread import spread
    from nbg_lightning.planning.table import as_json, print_resources
    from nbg_lightning.planning.workload import Cluster

    plans = []
    for title, workload, nodes in _workloads(arguments):
        own_node = 1 if device.kind == "cpu" else device.in_node
        ranks = arguments.ranks or (nodes or 1) * own_node
        in_node = ranks if device.kind == "cpu" else min(ranks, device.in_node)
        if nodes is not None and arguments.ranks is not None and device.kind != "cpu":
            workload, ranks = spread(workload, ranks, in_node)  # of a recipe's steps some have few windows
        plan = plan_resources(workload, Cluster(ranks, min(ranks, in_node)), device)
        print_resources(plan, title)
        plans.append({"config": title, **as_json(plan)})
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(plans, indent=2) + "\n", "utf-8")
    return 0 if all(plan["fits"] for plan in plans) else 1


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg plan", description=__doc__)
    made.add_argument("config", nargs="*", help="configs of `nbg fit`, merged from left to right, or one recipe")
    made.add_argument(
        "--ranks",
        type=_positive,
        help="total number of GPUs; a recipe's step uses as many as its windows allow (default: one node, or the recipe's nodes)",
    )
    made.add_argument(
        "--device",
        help="a100, h100, h200, b200, cpu, or a file written by --calibrate (default: h100; with --calibrate: this machine)",
    )
    made.add_argument(
        "--core", metavar="PRESET", help="the model's shape, if the config's weights are not available here"
    )
    made.add_argument(
        "--prepared",
        action="store_true",
        help="prepare the config's data first, and predict time for the tokens that they hold instead of full windows",
    )
    made.add_argument(
        "--answer-tokens",
        metavar="N|RUN",
        help="GRPO: mean tokens of an answer, for time (default: max_new_tokens), or a run that recorded some in its ledger; "
        "memory is that of the longest",
    )
    made.add_argument("--json", type=Path, help="also write the plans to this file")
    made.add_argument("--calibrate", type=Path, metavar="FILE", help="measure this machine and write a device file")
    made.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="with --calibrate: use processor time on a shared machine (default wall)",
    )
    return made


def _calibrate(arguments: argparse.Namespace) -> int:
    """Measure this machine and write a device file."""
    if arguments.device not in (None, "cpu", "cuda"):
        raise ValueError(f"device is invalid: {arguments.device}; give cpu or cuda: --calibrate measures this machine")
    from datetime import date

    import torch

    from nbg_lightning.commands.plan_baseline import process_size
    from nbg_lightning.core.config import preset
    from nbg_lightning.planning.calibrate import calibrate
    from nbg_lightning.planning.device_file import write_device

    kind = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cpu" and arguments.clock == "processor" and torch.get_num_threads() > 1:
        raise ValueError("clock is invalid: processor with several threads, whose times add up; set OMP_NUM_THREADS=1")
    clock = {"wall": "perf_counter", "processor": "process_time"}[arguments.clock]
    shape = None if arguments.core is None else preset(arguments.core)
    device = calibrate(kind, shape, clock, process_size() if kind == "cpu" else 0.0)
    write_device(
        device, arguments.calibrate, f"measured by nbg plan --calibrate on {date.today()}, {arguments.clock} clock"
    )
    print(
        f"{device.name}: {device.products:.3g} TFLOP/s in bfloat16, {device.float32_products:.3g} in float32, "
        f"{device.bandwidth:.3g} GB/s of memory, {device.link:.3g} GB/s between ranks"
    )
    print(f"written: plan with --device {arguments.calibrate}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is invalid; give a number above 0")
    return number


def _workloads(arguments: argparse.Namespace) -> Iterator[tuple[str, Any, int | None]]:
    """Title, workload and nodes of each training."""
    from nbg_lightning.core.config import preset
    from nbg_lightning.planning.of_config import workload_of

    core = None if arguments.core is None else preset(arguments.core)
    tokens = None
    if arguments.answer_tokens is not None:
        from nbg_lightning.commands.plan_answers import answer_tokens

        tokens = answer_tokens(arguments.answer_tokens)
    first = read_yaml(resolve_arguments(["--config", arguments.config[0]])[1])
    if not (isinstance(first, dict) and "steps" in first):
        title = Path(arguments.config[-1]).stem if len(arguments.config) == 1 else Path(arguments.config[0]).stem
        parsed = _parsed(["fit", *_options(arguments.config)])
        workload = workload_of(parsed, core, tokens)
        if tokens is not None and not workload.answer:
            raise ValueError(
                f"answer_tokens is invalid with {workload.task}, which samples no answers; leave out --answer-tokens"
            )
        if arguments.prepared:
            from nbg_lightning.commands.plan_data import with_data

            workload = with_data(parsed, workload, tokens, title)
        yield title, workload, None
        return
    if arguments.prepared:
        raise ValueError(
            "config is invalid: a recipe, whose steps make their data; give --prepared the config of one step"
        )
    yield from _of_recipe(arguments.config[0], core, tokens)


def _of_recipe(path: str, core: Any, answer_tokens: float | None) -> Iterator[tuple[str, Any, int | None]]:
    """The trainings of a recipe; one that starts from another's weights has its shape."""
    from nbg_lightning.planning.of_config import workload_of
    from nbg_lightning.recipe.plan import CHANGES, Recipe

    recipe = Recipe.from_yaml(path)
    for name, step in recipe.steps.items():
        if step.command != "fit":
            continue
        with tempfile.TemporaryDirectory() as temporary:
            if changes := recipe.changes(name):
                (Path(temporary) / CHANGES).write_text(changes, "utf-8")
            workload = workload_of(_parsed(recipe.arguments(name, Path(temporary))), core, answer_tokens)
        core = workload.shape
        yield name, workload, step.nodes or recipe.nodes


def _options(configs: list[str]) -> list[str]:
    return [word for config in configs for word in ("--config", config)]


def _parsed(arguments: list[str]) -> dict[str, Any]:
    from nbg_lightning.commands.trainer import parse

    parsed: dict[str, Any] = parse(resolve_arguments(arguments)).as_dict()
    return parsed
