"""How weights get to servers: kept by the trainer for as long as a server may need them, and given to one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from nbg_lightning.engines.pushed_server import PushedServer


class WeightTransfer(Protocol):
    """Keeps the last versions of the weights and gives them to servers (`WeightFiles`, `NCCLTransfer`)."""

    def write(self, weights: Iterable[tuple[str, Tensor]]) -> tuple[str, str | None]:
        """Keep weights; all ranks together. The stream is read to its end in any case.

        Returns:
            A name for what is kept, and in one line why it could not be, or None.
        """
        ...

    def wait_for(self, source: str) -> None:
        """Wait until what is kept is there, where another rank does that."""
        ...

    def give(self, source: str, name: str, server: PushedServer) -> None:
        """Have a server that is paused take what is kept; called in a thread of the server.

        Args:
            source: of `write`.
            name: that the server is told later.
            server: which.

        Raises:
            httpx.HTTPError, Unwell: it does not.
        """
        ...

    def close(self) -> None:
        """Give up what is kept."""
        ...
