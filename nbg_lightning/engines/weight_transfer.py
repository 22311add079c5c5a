"""Transfer of weights to servers: the trainer keeps them while a server may need them, and gives them to one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from nbg_lightning.engines.pushed_server import PushedServer


class WeightTransfer(Protocol):
    """Keeps the last versions of the weights and transfers them to servers (`WeightFiles`, `NCCLTransfer`)."""

    def write(self, weights: Iterable[tuple[str, Tensor]]) -> tuple[str, str | None]:
        """Keep weights; collective over all ranks. The stream is consumed in any case.

        Returns:
            A name for the kept version, and a one-line reason why it could not be kept, or None.
        """
        ...

    def wait_for(self, source: str) -> None:
        """Wait until another rank has stored the version, if this rank does not."""
        ...

    def give(self, source: str, name: str, server: PushedServer) -> None:
        """Give a paused server the version; called in a thread of the server.

        Args:
            source: the result of `write`.
            name: name under which the server is asked to load it later.
            server: the server.

        Raises:
            httpx.HTTPError, Unwell: it failed.
        """
        ...

    def close(self) -> None:
        """Delete what is kept."""
        ...
