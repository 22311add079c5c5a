"""Types of the standard library and numpy that are transferred as data: their parts, and their reconstruction.

Both are tables: plain arguments by type, constructors by name. A constructor gets arguments chosen by the program: it checks
their types, and calls nothing that would evaluate, import or open them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Parts = tuple[str, tuple[Any, ...]]

ARRAY_KINDS = "biufcUSmM"  # kinds of numpy data types: without pointers and structures
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")


def _zone(value: Any) -> Any:
    """The time zone of a date or time as plain data; raises TypeError for zones of custom classes."""
    zone = value.tzinfo
    if zone is None:
        return None
    if type(zone).__name__ == "timezone" and type(zone).__module__ == "datetime":
        offset = zone.utcoffset(None)
        return (offset.days, offset.seconds, offset.microseconds, zone.tzname(None))
    if type(zone).__name__ == "ZoneInfo" and type(zone).__module__ in ("zoneinfo", "_zoneinfo") and zone.key:
        return str(zone.key)
    raise TypeError("a time zone of its own")


def _day(value: Any) -> tuple[Any, ...]:
    return value.year, value.month, value.day


def _clock(value: Any) -> tuple[Any, ...]:
    return value.hour, value.minute, value.second, value.microsecond, value.fold, _zone(value)


def _array(value: Any) -> tuple[Any, ...]:
    if value.dtype.kind == "O":
        items = value.ravel().tolist()
        if not all(type(item) in (type(None), bool, int, float, str) for item in items):
            raise TypeError("an array of objects")
        return "O", tuple(value.shape), items
    if value.dtype.kind not in ARRAY_KINDS or not value.dtype.isnative:
        raise TypeError(f"an array of {value.dtype}")
    return value.dtype.str, tuple(value.shape), value.tobytes()


def _scalar(value: Any) -> tuple[Any, ...]:
    if value.dtype.kind not in ARRAY_KINDS:
        raise TypeError(f"a scalar of {value.dtype}")
    return value.dtype.str, value.tobytes()


def _view(value: Any) -> tuple[Any, ...]:
    if value.format != "B" or value.ndim != 1:
        raise TypeError("a view of numbers")
    return (value.tobytes(),)


_PARTS: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("builtins", "range"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "slice"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "ellipsis"): lambda value: (),
    ("builtins", "NotImplementedType"): lambda value: (),
    ("builtins", "memoryview"): _view,
    ("collections", "deque"): lambda value: (list(value), value.maxlen),
    ("collections", "Counter"): lambda value: (dict(value),),
    ("collections", "OrderedDict"): lambda value: (dict(value),),
    ("collections", "defaultdict"): lambda value: (dict(value),),
    ("fractions", "Fraction"): lambda value: (value.numerator, value.denominator),
    ("decimal", "Decimal"): lambda value: (str(value),),
    ("datetime", "timedelta"): lambda value: (value.days, value.seconds, value.microseconds),
    ("datetime", "timezone"): lambda value: (value.utcoffset(None), value.tzname(None)),
    ("datetime", "date"): _day,
    ("datetime", "time"): _clock,
    ("datetime", "datetime"): lambda value: _day(value) + _clock(value),
    ("uuid", "UUID"): lambda value: (value.int,),
    ("pathlib", "PosixPath"): lambda value: (str(value),),
    ("pathlib", "PurePosixPath"): lambda value: (str(value),),
    ("numpy", "ndarray"): _array,
}


def parts_of(value: Any) -> Parts | None:
    """The name of a value's type and the plain arguments to reconstruct it; None for types that are not in the table."""
    kind = type(value)
    reader = _PARTS.get((kind.__module__, kind.__name__))
    name = kind.__name__
    if reader is None and kind.__module__ == "numpy" and hasattr(kind, "dtype") and hasattr(kind, "tobytes"):
        reader, name = _scalar, "scalar"
    if reader is None:
        return None
    try:
        return name, reader(value)
    except (TypeError, AttributeError, ValueError):
        return None


def make(name: Any, parts: Any) -> Any:
    """Reconstruct a value.

    Raises:
        ValueError, TypeError: unknown names, arguments of other types, or values refused by the type.
    """
    maker = _MAKERS.get(name) if type(name) is str else None
    if maker is None or type(parts) is not tuple:
        raise ValueError(f"unknown type {name!r}")
    return maker(*parts)


def _make_range(*parts: Any) -> Any:
    return range(*parts)


def _make_slice(*parts: Any) -> Any:
    return slice(*parts)


def _checked(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"a {type(value).__name__} where a {kinds[0].__name__} belongs")
    return value


def _make_collection(name: str) -> Callable[..., Any]:
    def made(items: Any, *rest: Any) -> Any:
        import collections

        kind = getattr(collections, name)
        if name == "deque":
            return kind(_checked(items, list), *rest)
        return kind(*([None] if name == "defaultdict" else []), _checked(items, dict))

    return made


def _make_fraction(numerator: Any, denominator: Any) -> Any:
    from fractions import Fraction

    return Fraction(_checked(numerator, int), _checked(denominator, int))


def _make_decimal(text: Any) -> Any:
    from decimal import Decimal

    return Decimal(_checked(text, str))


def _make_zone(zone: Any) -> Any:
    if zone is None:
        return None
    import datetime

    if type(zone) is str:
        import zoneinfo

        return zoneinfo.ZoneInfo(zone)  # it refuses anything outside of the zones' folder
    days, seconds, microseconds, name = zone
    return datetime.timezone(datetime.timedelta(days, seconds, microseconds), _checked(name, str))


def _make_date(name: str) -> Callable[..., Any]:
    def made(*parts: Any) -> Any:
        import datetime

        if name == "timezone":
            return datetime.timezone(parts[0], _checked(parts[1], str))
        if name in ("time", "datetime"):
            *numbers, fold, zone = parts
            kind: Any = getattr(datetime, name)
            return kind(*[_checked(number, int) for number in numbers], tzinfo=_make_zone(zone), fold=fold)
        return getattr(datetime, name)(*[_checked(part, int) for part in parts])

    return made


def _make_uuid(number: Any) -> Any:
    import uuid

    return uuid.UUID(int=_checked(number, int))


def _make_path(name: str) -> Callable[..., Any]:
    def made(text: Any) -> Any:
        import pathlib

        return getattr(pathlib, name)(_checked(text, str))

    return made


def _data_type(text: Any) -> Any:
    """The numpy data type for a name such as ``<f8``, ``<U3``, ``<M8[ns]``; nothing else is accepted."""
    import numpy

    order, kind, size = _checked(text, str)[:1], text[1:2], text[2:]
    if size.endswith("]"):
        size, _, unit = size[:-1].partition("[")
        known = unit.lstrip("0123456789") in _UNITS and kind in "mM" and len(unit) < 12
    else:
        known = True
    if not known or order not in "<|=" or not kind or kind not in ARRAY_KINDS or not (size.isdigit() and len(size) < 9):
        raise ValueError(f"an array of {text[:20]!r}")
    return numpy.dtype(text)


def _from_bytes(dtype: Any, shape: tuple[int, ...], data: bytes) -> Any:
    import numpy

    count = 1
    for length in shape:
        if _checked(length, int) < 0:
            raise ValueError("a shape with a negative length")
        count *= length
    if len(shape) > 32 or count * dtype.itemsize != len(_checked(data, bytes)):
        raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
    if dtype.itemsize == 0:
        return numpy.zeros(shape, dtype)
    if dtype.kind == "b":  # bytes other than 0 and 1 would be true yet equal neither
        return (numpy.frombuffer(data, numpy.uint8) != 0).reshape(shape)
    if dtype.kind == "U" and data and numpy.frombuffer(data, numpy.uint32).max() > 0x10FFFF:
        raise ValueError("a text of characters that do not exist")
    return numpy.frombuffer(data, dtype).reshape(shape).copy()


def _make_array(dtype: Any, shape: Any, data: Any) -> Any:
    if dtype == "O":
        import numpy

        array = numpy.empty(len(_checked(data, list)), object)
        for index, item in enumerate(data):
            array[index] = _checked(item, type(None), bool, int, float, str)
        return array.reshape([_checked(length, int) for length in _checked(shape, tuple)])
    return _from_bytes(_data_type(dtype), _checked(shape, tuple), data)


def _make_scalar(dtype: Any, data: Any) -> Any:
    return _from_bytes(_data_type(dtype), (), data)[()]


_MAKERS: dict[str, Callable[..., Any]] = {
    "range": _make_range,
    "slice": _make_slice,
    "ellipsis": lambda: ...,
    "NotImplementedType": lambda: NotImplemented,
    "memoryview": lambda data: memoryview(_checked(data, bytes)),
    **{name: _make_collection(name) for name in ("deque", "Counter", "OrderedDict", "defaultdict")},
    "Fraction": _make_fraction,
    "Decimal": _make_decimal,
    **{name: _make_date(name) for name in ("timedelta", "timezone", "date", "time", "datetime")},
    "UUID": _make_uuid,
    **{name: _make_path(name) for name in ("PosixPath", "PurePosixPath")},
    "ndarray": _make_array,
    "scalar": _make_scalar,
}
