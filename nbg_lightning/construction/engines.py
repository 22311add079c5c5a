"""The identity of an engine: everything that determines its answers, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbg_lightning.engines.capabilities import FolderEngine, IdentifiedEngine, ServedEngine
from nbg_lightning.engines.protocol import Engine


def engine_identity(engine: Engine) -> dict[str, Any]:
    """Identify an engine independently of the location of its files: by a fingerprint of the weights, or a server's URL.

    Raises:
        ValueError: the engine does not tell which weights it has.
    """
    kind = type(engine).__name__
    if isinstance(engine, IdentifiedEngine) and isinstance(engine.identity, Mapping):
        return {"engine": kind, **engine.identity}
    from nbg_lightning.engines.server import ServerEngine

    if isinstance(engine, ServerEngine):
        return {"engine": kind, "url": engine.url, "model": engine.model, "interface": engine.interface}
    from nbg_lightning.core.fingerprint import source_fingerprint, weights_fingerprint
    from nbg_lightning.core.weights import open_weights
    from nbg_lightning.engines.local import LocalEngine
    from nbg_lightning.engines.native import NativeEngine

    if isinstance(engine, LocalEngine):
        weights = source_fingerprint(open_weights(engine.weights, engine.ema))
        return {"engine": kind, "weights": weights, "dtype": engine.dtype}
    if isinstance(engine, NativeEngine):
        return {"engine": kind, "weights": weights_fingerprint(engine.model)}
    raise ValueError(
        f"nobody can say which weights {kind} has; use LocalEngine or ServerEngine, or give your engine an attribute "
        "`identity`, a dict of what decides its answers"
    )


def engine_place(engine: Engine) -> str:
    """The location of an engine's weights, for display."""
    if isinstance(engine, FolderEngine):
        return engine.weights
    return engine.url if isinstance(engine, ServedEngine) else type(engine).__name__
