"""Device tables as files: YAML (or JSON) with the fields of `Device`, written by hand or by `nbg plan --calibrate`."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbg_lightning.config_files import parse_yaml
from nbg_lightning.planning.devices import DEVICES, NAMES, Device, Rates, this_cpu
from nbg_lightning.suggestion import did_you_mean

_FIELDS = {each.name: each for each in dataclasses.fields(Device)}
_REQUIRED = ("name", "memory", "products", "bandwidth")
_DTYPES = ("bfloat16", "float32")
_LARGEST_FILE = 2**20


def device_of(name: str) -> Device:
    """A device by name, or from a file (`read_device`).

    Raises:
        ValueError: it is unknown, or the file is invalid.
    """
    if name.lower() in DEVICES:
        return DEVICES[name.lower()]
    if name.lower() == "cpu":
        return this_cpu()
    if Path(name).suffix in (".yaml", ".yml", ".json") or os.sep in name:
        return read_device(Path(name))
    raise ValueError(
        f"device is invalid: {name}; there are {', '.join(NAMES)}, or a file of nbg plan --calibrate"
        f"{did_you_mean(name, list(NAMES))}"
    )


def read_device(path: Path) -> Device:
    """Read a device from a file.

    ``link`` and ``network`` default to the memory's bandwidth (a single device needs neither), other fields to `Device`'s
    defaults.

    Raises:
        ValueError: the file does not exist, or is not a valid device; the key is named.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it has more than {_LARGEST_FILE:,} bytes")
        found = parse_yaml(path.read_text("utf-8"), "it")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].removesuffix("; correct it there")
        raise ValueError(
            f"device is invalid: {path} cannot be read ({reason}); write one by nbg plan --calibrate"
        ) from None
    if not isinstance(found, Mapping):
        raise ValueError(f"device is invalid: {path} holds no keys; write one by nbg plan --calibrate")
    return _checked(dict(found), path)


def _checked(found: dict[Any, Any], path: Path) -> Device:
    for key in found:
        if key not in _FIELDS:
            near = did_you_mean(str(key), list(_FIELDS))
            raise ValueError(f"device is invalid: {path} has an unknown key {str(key)[:60]!r}{near}; remove it")
    if missing := [key for key in _REQUIRED if key not in found]:
        raise ValueError(f"device is invalid: {path} lacks {', '.join(missing)}; add what it lacks")
    values: dict[str, Any] = {"float8_products": None, "link": found["bandwidth"], "network": found["bandwidth"]}
    values |= found
    values["name"] = str(values["name"])
    if values.get("kind", "cuda") not in ("cuda", "cpu"):
        raise ValueError(f"device is invalid: kind of {path} is {values['kind']!r:.40}; give cuda or cpu")
    if not isinstance(values.get("measured", False), bool):
        raise ValueError(f"device is invalid: measured of {path} is {values['measured']!r:.40}; give true or false")
    values["rates"] = _rates(values.get("rates") or {}, path)
    for key, field in _FIELDS.items():
        if key in values and key not in ("name", "kind", "measured", "rates"):
            optional = "None" in str(field.type)
            values[key] = None if optional and values[key] is None else _number(values[key], key, path)
    if values.get("in_node", 1) != int(values.get("in_node", 1)):
        raise ValueError(f"device is invalid: in_node of {path} is {values['in_node']}; give a whole number")
    if "in_node" in values:
        values["in_node"] = int(values["in_node"])
    if not values.get("efficiency", 0.5) <= 1:
        raise ValueError(f"device is invalid: efficiency of {path} is {values['efficiency']}; give a share, at most 1")
    return Device(**values)


def _number(value: Any, key: str, path: Path) -> float:
    zero = key == "reserved"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"device is invalid: {key} of {path} is {value!r:.40}; give a number")
    if value < 0 or (value == 0 and not zero) or not math.isfinite(value) or value > 1e12:
        raise ValueError(f"device is invalid: {key} of {path} is {value!r:.40}; give a finite number above 0")
    return value


def _rates(found: Any, path: Path) -> dict[str, Rates]:
    if not isinstance(found, Mapping) or not set(found) <= set(_DTYPES):
        raise ValueError(f"device is invalid: rates of {path}; give the keys {' and '.join(_DTYPES)}")
    rates = {}
    for dtype, own in found.items():
        if not isinstance(own, Mapping) or not set(own) <= {"blocks", "heads"} or "blocks" not in own:
            raise ValueError(f"device is invalid: rates.{dtype} of {path}; give the keys blocks and heads")
        heads = own.get("heads") or {}
        if not isinstance(heads, Mapping):
            raise ValueError(
                f"device is invalid: rates.{dtype}.heads of {path} is {heads!r:.40}; give a rate for each task"
            )
        checked = {str(task): _number(rate, f"rates.{dtype}.heads.{task}", path) for task, rate in heads.items()}
        rates[dtype] = Rates(_number(own["blocks"], f"rates.{dtype}.blocks", path), checked)
    return rates


def write_device(device: Device, path: Path, comment: str) -> None:
    """Write a device so that `read_device` restores it.

    Args:
        device: the device.
        path: path of the file; folders are created.
        comment: comment in the first line.
    """
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(_plain(dataclasses.asdict(device)), sort_keys=False)
    path.write_text(f"# {comment}\n{text}", "utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
