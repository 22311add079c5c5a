"""`nbg schedule`: what a curriculum will do, before anyone pays for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.settings import make_datamodule, read_config

if TYPE_CHECKING:
    from nbg_lightning.schedule.curriculum import Curriculum


def main(argv: list[str]) -> int:
    """Print the plan of a config, draw it, or verify a checkpoint's hash chain."""
    arguments = parser().parse_args(argv)
    if arguments.verify is not None:
        return _verify(arguments.config, arguments.verify)

    from nbg_lightning.schedule import draw_plan, make_plan, plan_to_json, print_plan

    config = read_config(arguments.config)
    plan = make_plan(_curriculum(config), _source_tokens(config, arguments.prepared))
    print_plan(plan)
    png = arguments.png or Path(Path(arguments.config[-1]).stem + ".png")
    png.parent.mkdir(parents=True, exist_ok=True)
    draw_plan(plan, png)
    print(f"picture: {png}")
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(plan_to_json(plan) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg schedule", description=__doc__)
    made.add_argument("config", nargs="+", help="configs of `nbg fit`, merged from left to right")
    made.add_argument("--png", type=Path, help="file for the plot of learning rate and mixture over tokens")
    made.add_argument("--json", type=Path, help="also write the plan to this file")
    made.add_argument("--prepared", action="store_true", help="tokenize the sources first, to use their true sizes")
    made.add_argument(
        "--verify",
        type=Path,
        metavar="CKPT",
        help="recompute the hash chain of samples in a checkpoint, or in a run's newest one",
    )
    return made


def _curriculum(config: dict[str, Any]) -> Curriculum:
    from nbg_lightning.schedule.of_config import read_curriculum

    curriculum = read_curriculum(config)
    if curriculum is None:
        if any(_class_name(each) == "WarmupDecay" for each in (config.get("trainer") or {}).get("callbacks") or []):
            raise ValueError(
                "trainer.callbacks is invalid: WarmupDecay has no stages to draw, its learning rate rises once and falls once; "
                "nbg plan says the steps of this config"
            )
        raise ValueError("trainer.callbacks is invalid: it has no FGWSD; add one, whose stages are the curriculum")
    return curriculum


def _class_name(callback: Any) -> str:
    path = callback.get("class_path", "") if isinstance(callback, dict) else callback
    return str(path).rpartition(".")[2]


def _source_tokens(config: dict[str, Any], prepared: bool) -> dict[str, Any]:
    data = (config.get("data") or {}).get("init_args") or {}
    if prepared:
        return datamodule_of(config).source_tokens
    return {name: (source.get("init_args") or {}).get("tokens") for name, source in (data.get("sources") or {}).items()}


def datamodule_of(config: dict[str, Any]) -> Any:
    """The config's datamodule, set up: its sources are tokenized if they are not yet."""
    datamodule = make_datamodule(config, "the config")
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def _verify(paths: list[str], checkpoint: Path) -> int:
    from nbg_lightning.core.checkpoint import CheckpointFiles
    from nbg_lightning.core.checkpoint_folder import newest_checkpoint
    from nbg_lightning.data.order import SampleOrder, expected_chain, order_state

    files = CheckpointFiles(newest_checkpoint(checkpoint))
    files.check()
    state = order_state(files.meta())
    if state is None:
        raise ValueError(
            f"{checkpoint} has no data order; give a checkpoint that was trained on a datamodule of this library"
        )
    config = read_config(paths)
    curriculum = _curriculum(config)
    if config.get("seed", 0) != state["seed"]:
        raise ValueError(
            f"the checkpoint's run had seed {state['seed']}, this config has {config.get('seed', 0)}; "
            "give the config.yaml that the run has saved"
        )
    datamodule = datamodule_of(config)
    changed = sorted(k for k, v in datamodule.fingerprints().items() if state["fingerprints"].get(k) != v)
    if changed:
        raise ValueError(
            f"source {', '.join(changed)} is not what the checkpoint was trained on; give the data and the config.yaml of its run"
        )
    datamodule.verify_data()
    order = SampleOrder(state["seed"], curriculum, datamodule.source_windows)
    expected = expected_chain(order, curriculum, state["step"], state.get("undone", ()))
    if expected != state["chain"]:
        raise ValueError(
            f"the samples consumed in {state['step']} steps are not those of this config "
            f"(chain {state['chain'][:16]} in the checkpoint, {expected[:16]} recomputed); "
            "give the config.yaml that the run has saved"
        )
    print(f"verified: the {state['step']} steps of {checkpoint} consumed exactly the samples of this config")
    for first, last in state.get("undone", ()):
        print(
            f"what steps {first + 1} to {last} were trained on is not in the weights: Sentinel went back to step {first}"
        )
    print(f"chain {expected}")
    return 0
