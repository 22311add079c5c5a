"""How many ranks can share a step: by its windows, and by context groups."""

import pytest

from nbg_lightning.core.config import ParallelConfig, preset
from nbg_lightning.planning import TrainingPhase, Workload
from nbg_lightning.planning.spread import spread

SHAPE = preset("nanbeige4-3b")  # 20 heads: groups of 1, 2, 4 or 5 ranks in a node


def workload(window, windows, context=1):
    phase = TrainingPhase("all", window, window * windows, 1, window)
    return Workload("pretraining", SHAPE, ParallelConfig(context=context), window, (phase,))


@pytest.mark.parametrize(
    ("windows", "context", "expected"),
    [
        (512, 1, (1, 512)),
        (128, 1, (4, 512)),
        (64, 1, (4, 256)),
        (32, 2, (4, 128)),
        (3 * 128, 1, (4, 512)),
        (8, 4, (4, 32)),
    ],
)
def test_most_ranks_with_least_context(windows, context, expected):
    changed, ranks = spread(workload(65_536, windows, context), 512, 8)
    assert (changed.parallel.context, ranks) == expected


def test_what_not_even_a_node_divides_is_refused():
    with pytest.raises(ValueError, match="8 ranks do not divide the 1 windows of a step"):
        spread(workload(65_535, 1), 8, 8)
