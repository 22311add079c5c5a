"""The number of ranks that a workload can use, which its windows limit."""

from __future__ import annotations

from collections.abc import Iterator

from nbg_lightning.planning.workload import Workload, micro_batches


def spread(workload: Workload, ranks: int, in_node: int) -> tuple[Workload, int]:
    """Spread a workload over the most ranks that can share its steps, with the smallest ``parallel.context`` for that.

    The number of ranks is halved repeatedly, down to one node; `micro_batches` raises if even that fails.

    Args:
        workload: the workload.
        ranks: number of available ranks.
        in_node: ranks per node, the maximum size of a context group, since it communicates in every layer.

    Returns:
        The workload with that context size, and its number of ranks.

    Raises:
        ValueError: not even a node's ranks divide its steps.
    """
    own = workload.parallel.context
    for number in _halves(ranks, in_node):
        for context in range(own, in_node + 1):
            changed = workload if context == own else workload.with_parallel(context=context)
            if context % own == 0 and _fits(changed, number):
                return changed, number
    for phase in workload.phases:
        micro_batches(workload, phase, ranks)  # says what does not fit
    return workload, ranks


def _halves(ranks: int, in_node: int) -> Iterator[int]:
    yield ranks
    while ranks % 2 == 0 and ranks // 2 >= in_node:
        ranks //= 2
        yield ranks


def _fits(workload: Workload, ranks: int) -> bool:
    try:
        for phase in workload.phases:
            micro_batches(workload, phase, ranks)
    except ValueError:
        return False
    return True
