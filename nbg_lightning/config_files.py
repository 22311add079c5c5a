"""YAML files: those of users, and those shipped with the package as ``configs/...``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nbg_lightning.suggestion import did_you_mean

_PREFIX = "configs/"
_MOST_CHARACTERS = 2_000_000  # of a config: ten thousand names of files are half of it
_MOST_PARTS = 100_000  # of a config as it is written: a value, a key, a begin or an end each; read in half a second
_MOST_VALUES = 1_000_000  # where aliases are written out
_DEEPEST = 200
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")  # how JSON writes an emoji
_SHOWN = 60  # characters of a line
_TOO_DEEP = "brackets or blocks are nested too deeply"
_FEWER = "name files by a folder or a pattern"


def shipped(path: str) -> str:
    """The installed file for ``configs/...`` if there is no such local file; any other path unchanged."""
    if not path.startswith(_PREFIX) or Path(path).exists():
        return path
    installed = Path(str(files("nbg_lightning.configs"))) / path.removeprefix(_PREFIX)
    return str(installed) if installed.exists() else path


def _shipped_config(path: str) -> str:
    """Like `shipped`, but also accepts ``sft/tiny``, where only a config can be meant."""
    found = shipped(path)
    if Path(found).exists() or not re.fullmatch(r"[\w./-]+", path):
        return found
    name = path.removeprefix(_PREFIX)
    installed = shipped(f"{_PREFIX}{name if name.endswith('.yaml') else f'{name}.yaml'}")
    return installed if Path(installed).exists() else found


def resolve_arguments(argv: Sequence[str]) -> list[str]:
    """Replace shipped configs in a command's options by files, and raise for a missing ``--config``.

    Raises:
        FileNotFoundError: no such file; suggests the closest one.
    """
    resolved: list[str] = []
    for argument in argv:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        if equals or not option:
            argument = option + equals + shipped(value)
        resolved.append(argument)
        named = resolved[-2] == "--config" if len(resolved) > 1 and not option else option == "--config" and equals
        if named:
            given = argument.removeprefix("--config=")
            resolved[-1] = f"{'--config=' if equals else ''}{config_file(given)}" if _is_path(given) else argument
    return resolved


def config_file(path: str | Path) -> Path:
    """An existing file, or a shipped one such as ``configs/sft/tiny.yaml`` or ``sft/tiny``.

    Raises:
        FileNotFoundError: no such file; suggests the closest one.
    """
    found = Path(_shipped_config(str(path))).expanduser()
    if found.is_dir():
        raise FileNotFoundError(f"{path} is a folder; give a YAML file in it")
    if found.is_file() or not _is_path(str(path)):
        return found
    neighbours = _neighbours(found)
    meant = did_you_mean(str(path), neighbours, 0.85) or did_you_mean(f"{_PREFIX}{path}.yaml", neighbours, 0.85)
    raise FileNotFoundError(f"there is no config {path}{meant}; check the path")


def _is_path(given: str) -> bool:
    """Whether a config is a path: jsonargparse also accepts YAML text."""
    return bool(re.search(r"[./]", given))


def _neighbours(path: Path) -> list[str]:
    """Configs to suggest: those in the same folder, and shipped ones."""
    beside = (
        [str(path.parent / each.name) for each in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
    )
    root = Path(str(files("nbg_lightning.configs")))
    return beside + [_PREFIX + str(each.relative_to(root)) for each in sorted(root.rglob("*.yaml"))]


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file.

    Raises:
        FileNotFoundError: as `config_file`.
        ValueError: it is not YAML.
    """
    file = config_file(path)
    try:
        with file.open(encoding="utf-8") as lines:
            return parse_yaml(lines.read(_MOST_CHARACTERS + 1), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not YAML: it is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def config_content(given: str) -> Any:
    """The content of a ``--config``, a file or (as jsonargparse allows) YAML text; None if it is neither.

    Parse errors are left to the parser.
    """
    with suppress(OSError, ValueError):
        return read_yaml(given) if "\n" not in given and Path(shipped(given)).is_file() else parse_yaml(given, "config")
    return None


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML text, with ``1e-4`` as a number (YAML 1.2; PyYAML's 1.1 reads it as a text).

    Args:
        text: the YAML.
        name: name of its file, for errors.

    Raises:
        ValueError: it is not YAML.
    """
    import yaml

    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"{name} is invalid: it has more than {_MOST_CHARACTERS:,} characters; {_FEWER}")
    try:
        content = _loaded(text, name)
        values = _values(content, {})
    except RecursionError:
        raise ValueError(f"{name} is not YAML: {_TOO_DEEP}; correct it there") from None
    except yaml.YAMLError as error:
        reason, fix = _reason(error, text)
        raise ValueError(f"{name} is not YAML: {reason}; {fix}") from None
    if values > _MOST_VALUES:
        raise ValueError(
            f"{name} is invalid: its aliases (*NAME) stand for {values:,.0f} values; write at most {_MOST_VALUES:,}"
        )
    return content


def _loaded(text: str, name: str) -> Any:
    """The content of YAML text, with characters that JSON escapes as surrogate pairs (YAML has no such escapes).

    Raises:
        RecursionError, ValueError, yaml.YAMLError: as `_check_parts`.
    """
    import yaml

    try:
        _check_parts(text, name)
    except yaml.YAMLError:
        joined = _PAIR.sub(lambda pair: json.loads(f'"{pair[0]}"'), text)
        if joined == text:
            raise
        text = joined
        _check_parts(text, name)
    return yaml.load(text, _loader())


def _check_parts(text: str, name: str) -> None:
    """Reject YAML with more parts than any config has, in time independent of the text's length.

    Raises:
        RecursionError: they are nested too deeply.
        ValueError: they are too many.
        yaml.YAMLError: it is not YAML.
    """
    import yaml

    depth = 0
    for count, part in enumerate(yaml.parse(text, _loader())):
        depth += isinstance(part, yaml.CollectionStartEvent) - isinstance(part, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise RecursionError
        if count > _MOST_PARTS:
            raise ValueError(f"{name} is invalid: it has more than {_MOST_PARTS:,} keys and values; {_FEWER}")


def _reason(error: Any, text: str) -> tuple[str, str]:
    """PyYAML's error with its line, and what to do about it."""
    import yaml

    reason = " ".join(
        re.sub(r'\bin "<unicode string>", (line \d+, column \d+)(:\n.*\n *\^)?', r"in \1", str(error)).split()
    )
    if "maximum nesting depth" in reason:
        return _TOO_DEEP, "correct it there"
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    lines = text.splitlines() if mark else []
    if mark is None or mark.line >= len(lines):
        return reason, "correct it there"
    line = lines[mark.line]
    fix = "indent by spaces" if line[mark.column : mark.column + 1] == "\t" else "correct it there"
    return f"{reason}: {line.strip()[:_SHOWN]}", fix


def _values(node: Any, known: dict[int, int]) -> int:
    """Number of values with every alias expanded; a self-referential document counts as nested too deeply.

    Raises:
        RecursionError: it is nested too deeply.
    """
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in known:
        inner = node.values() if isinstance(node, dict) else node
        known[id(node)] = 1 + sum(_values(each, known) for each in inner)
    return known[id(node)]


def yaml_text(content: Any) -> str:
    """Dump YAML that `parse_yaml` and jsonargparse read back identically: a text such as ``"1e-4"`` stays a text."""
    import yaml

    return yaml.dump(content, Dumper=_dumper(), sort_keys=False, allow_unicode=True)


_FLOAT = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")  # of YAML 1.2


def _with_floats(kind: Any) -> Any:
    kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    return kind


@cache
def _loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # C where PyYAML has it
        """PyYAML's, with the floats of YAML 1.2; a key that stands twice is refused, where PyYAML keeps the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {key.value} stands twice; remove one", key.start_mark
                        )
                    seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    return _with_floats(Loader)


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """PyYAML's, which quotes what would be a float of YAML 1.2, and writes everything where it stands."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return _with_floats(Dumper)
