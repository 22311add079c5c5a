"""A recipe: steps with inputs and outputs, each an `nbg` command, and the identity of their results.

Not a general workflow engine (Snakemake, DVC), which identify steps by files and times. Here a step is identified by
everything that determines its result: merged configs, inputs and the identities of earlier steps. A changed learning rate
reruns this step and those that depend on it, and nothing else.

Example::

    name: quickstart
    folder: runs/recipe
    steps:
      pretrain:
        command: fit
        config: configs/pretrain/quickstart.yaml
      sft:
        command: fit
        config: configs/sft/tiny.yaml
        set: {model.init_args.base_weights: "${pretrain.checkpoint}"}
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from nbg_lightning.config_files import config_file, read_yaml
from nbg_lightning.trainer_options import TRAINER_COMMANDS

LAUNCHED = ("fit", "validate", "test", "pass-rate")  # on as many ranks as `Recipe.launch` starts
CHANGES = "changes.yaml"
FORMAT = 1  # of keys: raised when what a key is made of changes
_REFERENCE = re.compile(r"\$\{([\w-]+)(?:\.([\w-]+))?\}")
_NAME = re.compile(r"[\w-]+")
_HASHED_WHOLE = 64 * 2**20  # bytes: larger files are known by size and time, so that terabytes are not read


@dataclass(frozen=True)
class Step:
    """One command of a recipe.

    Attributes:
        name: name of the step and of its folder.
        command: `nbg` command.
        config: YAML files, merged from left to right.
        changes: one more config, merged last; it is written into the step's folder.
        arguments: positional arguments of commands that take them (``nbg export CHECKPOINT FOLDER``).
        set: options, as on the command line, with or without leading dashes, that override all configs. Their values, like
            those of changes and arguments, may contain ``${step.output}`` (an output of an earlier step) and ``${folder}``
            (this step's own).
        outputs: name to path of files that later steps use, relative to the step's folder. Every step has ``folder``; a
            ``fit`` has ``checkpoint``, its last one.
        about: purpose of the step, for the report.
        measures: for a benchmark, the step whose weights it evaluates: a column of the report's table.
        reference: the benchmark does not belong to a stage (a teacher, a baseline): its column is separate, and not
            compared.
        nodes: number of nodes to launch it on, if other than the recipe's.
    """

    name: str
    command: str
    config: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    about: str = ""
    measures: str | None = None
    reference: bool = False
    nodes: int | None = None

    @property
    def references(self) -> list[tuple[str, str]]:
        """(step, output) of everything that it uses from other steps, in the order of its options."""
        text = json.dumps([self.arguments, self.set, self.changes])
        return [(name, output) for name, output in _REFERENCE.findall(text) if output]


@dataclass(frozen=True)
class Recipe:
    """Steps in the order in which they run.

    Attributes:
        name: name in the report.
        folder: parent folder of the steps' folders.
        steps: steps by name.
        launch: launcher of the commands that use many GPUs (`LAUNCHED`), such as
            ``torchrun --nproc-per-node 8 -m nbg_lightning.cli``; without one, this Python runs them. ``$NAME`` is taken
            from the environment.
        nodes: value of ``$NODES`` in ``launch``, unless a step sets its own.
        about: description for the report.
    """

    name: str
    folder: str
    steps: dict[str, Step]
    launch: str | None = None
    about: str = ""
    nodes: int | None = None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Load and validate a recipe.

        Raises:
            FileNotFoundError: the file, or a config of a step, does not exist.
            ValueError: it is malformed, or a step uses an output that no earlier step has.
        """
        content = read_yaml(path)
        path = Path(path)
        if not isinstance(content, dict) or not isinstance(content.get("steps"), dict) or not content["steps"]:
            raise ValueError(f"{path} is not a recipe; give it `steps`, a mapping from names to commands")
        _refuse_unknown(content, ("name", "folder", "steps", "launch", "nodes", "about"), str(path))
        steps = {str(name): _step(str(name), values, path) for name, values in content["steps"].items()}
        name = str(content.get("name", path.stem))
        recipe = cls(
            name,
            str(content.get("folder", f"runs/{name}")),
            steps,
            content.get("launch"),
            str(content.get("about", "")).strip(),
            _nodes(content, str(path)),
        )
        recipe._check()
        return recipe

    def _check(self) -> None:
        earlier: list[str] = []
        for step in self.steps.values():
            for name, output in step.references:
                if name not in earlier:
                    known = ", ".join(earlier) or "none"
                    raise ValueError(
                        f"step {step.name!r} takes ${{{name}.{output}}}, and {name!r} is not an earlier step; there are {known}"
                    )
                if output not in self.outputs(name):
                    raise ValueError(
                        f"step {step.name!r} takes ${{{name}.{output}}}; there are {', '.join(self.outputs(name))} of {name!r}"
                    )
            if step.measures is not None and step.measures not in earlier:
                raise ValueError(
                    f"step {step.name!r} measures {step.measures!r}, which is not an earlier step; check the name"
                )
            for config in step.config:
                try:
                    config_file(config)
                except FileNotFoundError as error:
                    raise FileNotFoundError(f"step {step.name!r}: {error}") from None
            earlier.append(step.name)

    def outputs(self, name: str) -> list[str]:
        """The outputs of a step that later steps may use."""
        step = self.steps[name]
        return ["folder", *(["checkpoint"] if step.command == "fit" else []), *step.outputs]

    def launcher(self, name: str, environment: Mapping[str, str]) -> list[str]:
        """The launcher's words for a step, keeping undefined variables; empty if this Python runs it."""
        step = self.steps[name]
        if not self.launch or step.command not in LAUNCHED:
            return []
        nodes = step.nodes or self.nodes
        values = {**environment, **({"NODES": str(nodes)} if nodes else {})}
        return shlex.split(Template(self.launch).safe_substitute(values))

    def check_launcher(self, name: str, environment: Mapping[str, str]) -> None:
        """Raise if a step's launcher cannot be expanded.

        Raises:
            ValueError: a variable has no value.
        """
        missing = next((word for word in self.launcher(name, environment) if "$" in word), None)
        if missing is not None:
            advice = ", or give `nodes`" if missing in ("$NODES", "${NODES}") else ""
            raise ValueError(
                f"the recipe's launch needs {missing} for step {name!r}; set it in the environment{advice}"
            )

    def step_folder(self, name: str) -> Path:
        """The output folder of a step."""
        return Path(self.folder) / name

    def find(self, name: str, output: str) -> Path:
        """The path of an output of a step, existing or not.

        The last checkpoint of a ``fit`` that has not run gets a placeholder name, for ``--dry-run``.
        """
        folder = self.step_folder(name)
        if output == "folder":
            return folder
        if output == "checkpoint":
            from nbg_lightning.core.checkpoint_folder import newest_below

            return newest_below(folder) or folder / "checkpoints" / "LAST"
        return folder / self.steps[name].outputs[output]

    def changes(self, name: str) -> str | None:
        """The step's own config as YAML, with references replaced by paths; None if it has none."""
        changes = self._resolved(self.steps[name].changes, name)
        return yaml.safe_dump(changes, sort_keys=False) if changes else None

    def arguments(self, name: str, folder: Path | None = None) -> list[str]:
        """The arguments of ``nbg``: the command, its configs and options, with references replaced by paths.

        Args:
            name: name of the step.
            folder: where its changes are written; the step's own folder by default.
        """
        step = self.steps[name]
        arguments = [step.command, *(str(self._resolved(argument, name)) for argument in step.arguments)]
        changes = [str((folder or self.step_folder(name)) / CHANGES)] if step.changes else []
        for config in [*step.config, *changes]:
            arguments += ["--config", config]
        if step.command in TRAINER_COMMANDS:
            arguments += ["--trainer.default_root_dir", str(self.step_folder(name))]
        for option, value in step.set.items():
            resolved = self._resolved(value, name)
            option = option if option.startswith("-") else f"--{option}"
            if resolved is True and step.command not in TRAINER_COMMANDS:
                arguments.append(option)  # a flag
            else:
                arguments += [option, resolved if isinstance(resolved, str) else json.dumps(resolved)]
        return arguments

    def _resolved(self, value: Any, name: str) -> Any:
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: self._replacement(match, name), value)
        if isinstance(value, Mapping):
            return {key: self._resolved(inner, name) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._resolved(inner, name) for inner in value]
        return value

    def _replacement(self, match: re.Match[str], own: str) -> str:
        name, output = match.groups()
        if output is not None:
            return str(self.find(name, output))
        if name == "folder":
            return str(self.step_folder(own))
        raise ValueError(f"step {own!r}: ${{{name}}} is invalid; write ${{folder}} or ${{step.output}}")

    # -- identity ------------------------------------------------------------------------------------------------------

    def key(self, name: str) -> str:
        """Hex digest of everything that determines a step's result: command, options, configs, files they name, earlier
        steps.

        Two recipes that share a step share its key, which does not depend on the folder. Outputs of steps are identified by
        the steps' keys, since a config may name an output that does not exist yet.
        """
        return self._key(name, {})

    def _key(self, name: str, known: dict[str, str]) -> str:
        if name in known:  # many steps take from the same one, whose configs are read once
            return known[name]
        step = self.steps[name]
        made = Path(self.folder).resolve()
        configs = [read_yaml(config) for config in step.config]
        identity = {
            "format": FORMAT,
            "command": step.command,
            "configs": configs,
            "arguments": step.arguments,
            "set": step.set,
            "changes": step.changes,
            "inputs": {f"{other}.{output}": self._key(other, known) for other, output in step.references},
            "files": {
                path: _file_identity(Path(path))
                for path in sorted(_files([*configs, step.changes, *step.arguments, step.set]))
                if not Path(path).resolve().is_relative_to(made)
            },
        }
        text = json.dumps(identity, sort_keys=True, default=str)
        known[name] = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        return known[name]


_SHAPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "config": ((str, list), "a file, or a list of files"),
    "changes": ((dict,), "a mapping from keys of the config to values"),
    "arguments": ((list,), "a list"),
    "set": ((dict,), "a mapping from options to values"),
    "outputs": ((dict,), "a mapping from names to paths"),
}


def _step(name: str, values: Any, path: Path) -> Step:
    if not _NAME.fullmatch(name) or name == "folder":
        raise ValueError(f"{path}: {name!r} cannot name a step; use letters, digits, - and _, and not `folder`")
    if not isinstance(values, dict) or not isinstance(values.get("command"), str):
        raise ValueError(f"{path}: step {name!r} has no command; give one, such as fit")
    _refuse_unknown(
        values,
        ("command", "config", "changes", "arguments", "set", "outputs", "about", "measures", "reference", "nodes"),
        f"{path}: step {name!r}",
    )
    for key, (kinds, form) in _SHAPES.items():
        value = values.get(key)
        fits = isinstance(value, kinds)
        if key == "config" and isinstance(value, list):
            fits = all(isinstance(each, str) for each in value)
        if value and not fits:
            raise ValueError(f"{path}: step {name!r}: {key} is invalid: {str(value)[:60]}; give {form}")
    config = values.get("config") or []
    return Step(
        name,
        values["command"],
        tuple([config] if isinstance(config, str) else config),
        dict(values.get("changes") or {}),
        tuple(map(str, values.get("arguments") or [])),
        {str(option): value for option, value in (values.get("set") or {}).items()},
        dict(values.get("outputs") or {}),
        str(values.get("about", "")).strip(),
        values.get("measures"),
        bool(values.get("reference", False)),
        _nodes(values, f"{path}: step {name!r}"),
    )


def _nodes(values: Mapping[str, Any], where: str) -> int | None:
    nodes = values.get("nodes")
    if nodes is not None and (isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1):
        raise ValueError(f"{where}: nodes is invalid: {nodes!r}; give a number from 1")
    return nodes


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(map(str, values)) - set(known))
    if unknown:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r}; there are {', '.join(known)}")


def _files(value: Any) -> set[str]:
    """Strings anywhere in a config that name a file on this disk: data, suites, rubrics."""
    if isinstance(value, str):
        try:
            return {value} if len(value) < 4096 and Path(value).is_file() else set()
        except (OSError, ValueError):
            return set()
    if isinstance(value, Mapping):
        return set().union(*map(_files, value.values()))
    if isinstance(value, list):
        return set().union(*map(_files, value))
    return set()


def _file_identity(path: Path) -> str:
    status = path.stat()
    if status.st_size > _HASHED_WHOLE:
        return f"{status.st_size} bytes, {status.st_mtime_ns}"
    return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
