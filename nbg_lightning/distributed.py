"""What ranks say to each other about a suite: small objects, over whatever process group there is."""

from __future__ import annotations

from typing import Any


class World:
    """This process among the ranks; alone where no process group is."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist if dist.is_available() and dist.is_initialized() else None
        self.rank = self._dist.get_rank() if self._dist else 0
        self.size = self._dist.get_world_size() if self._dist else 1

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        assert self._dist is not None
        self._dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        assert self._dist is not None
        self._dist.broadcast_object_list(values, src=0)
        return values[0]
