"""One seed for a run's weights, order of data and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def check_seed(configs: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> None:
    """Refuse a seed of model or data that is not the run's, which would silently take its place.

    Args:
        configs: in their order, in the long form.
        options: of the command line, by their keys.

    Raises:
        ValueError: with where to write it.

    Example:
        >>> check_seed([{"model": {"init_args": {"seed": 7}}}], {})
        Traceback (most recent call last):
        ValueError: model.seed is invalid: 7; write seed: 7 at the top of the config, for weights, order and samples alike
    """
    seed = options.get("seed", next((config["seed"] for config in reversed(configs) if "seed" in config), 0))
    for part in ("model", "data"):
        own = [options[key] for key in (f"{part}.seed", f"{part}.init_args.seed") if key in options]
        own += [found for config in reversed(configs) if (found := _argument(config.get(part), "seed")) is not None]
        if own and str(own[0]) != str(seed):
            raise ValueError(
                f"{part}.seed is invalid: {own[0]}; write seed: {own[0]} at the top of the config, for weights, order and "
                "samples alike"
            )


def _argument(node: Any, name: str) -> Any:
    arguments = node.get("init_args") if isinstance(node, dict) else None
    return arguments.get(name) if isinstance(arguments, dict) else None
