"""On how many of some ranks a training can go on: its windows bound them."""

from __future__ import annotations

from collections.abc import Iterator

from nbg_lightning.planning.workload import Workload, micro_batches


def spread(workload: Workload, ranks: int, in_node: int) -> tuple[Workload, int]:
    """The training on the most ranks that can share its steps, with the least ``parallel.context`` for that.

    Halves of the ranks are tried, down to a node: what is less is refused by `micro_batches`.

    Args:
        workload: what is trained.
        ranks: that there are.
        in_node: ranks of a node, over which at most a context group is spread: it exchanges in every layer.

    Returns:
        The training, with that context, and its ranks.

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
