"""Writes resolved_configs.json: every config that ships as its command understands it, so that no shorthand or default changes
what an existing config means. Run it only where a change of meaning is wanted:

    python tests/golden/make_resolved_configs.py
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[2] / "configs"
FILE = Path(__file__).with_name("resolved_configs.json")
BASES = {  # what is no task by itself is merged onto one
    "model": "pretrain/quickstart.yaml",
    "trainer": "pretrain/quickstart.yaml",
    "engine": "benchmark/small.yaml",
    "wsd-baseline": "pretrain/quickstart.yaml",
    "wsm": "pretrain/quickstart.yaml",
    "token_only": "dpd/tiny.yaml",
    "dpo_only": "dpd/tiny.yaml",
}


def names() -> list[str]:
    """Every config of a training, test or builder, as ``folder/name.yaml``."""
    found = (path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob("*.yaml")))
    return [name for name in found if not name.startswith("recipe/") and name != "construction/rubric.yaml"]


def resolved(name: str) -> dict[str, Any]:
    """A config as its command understands it, flat, without what is None; nothing is built."""
    path = CONFIGS / name
    if name.startswith("construction/"):
        return dict(_flat(_of_builder(path)))
    from nbg_lightning.commands.trainer import parse

    base = BASES.get(path.stem) or BASES.get(path.parent.name)
    files = [*([str(CONFIGS / base)] if base else []), str(path)]
    config = parse(["fit", *(argument for file in files for argument in ("--config", file))]).as_dict()
    return dict(_flat({key: config[key] for key in ("seed", "model", "data", "trainer", "ckpt_path")}))


def _of_builder(path: Path) -> Any:
    from nbg_lightning.commands.builder import BuilderCommand
    from nbg_lightning.commands.table import OWN_COMMANDS

    command = next(word for word in path.read_text("utf-8").split("launch:")[1].split() if word.startswith("build-"))
    config = BuilderCommand(OWN_COMMANDS[command][0].partition(":")[2]).parser().parse_args(["--config", str(path)])
    return {key: value for key, value in config.as_dict().items() if key != "config"}


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)) and value:
        for index, each in enumerate(value):
            yield from _flat(each, f"{place}.{index}")
    elif isinstance(value, (bool, int, float, str, dict, list, tuple)):
        yield place, value
    elif value is not None:
        yield place, str(value)


def main() -> None:
    os.chdir(CONFIGS.parent)
    FILE.write_text(json.dumps({name: resolved(name) for name in names()}, indent=0, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
