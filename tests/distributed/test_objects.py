"""Exchange of small objects between ranks."""

from nbg_lightning.distributed import broadcast_object, gather_objects, get_rank, get_world_size
from nbg_lightning.testing.ranks import run_ranks


def told():
    rank = get_rank()
    return rank, get_world_size(), gather_objects({"rank": rank}), broadcast_object(["of", rank])


def test_two_ranks_know_of_each_other(tmp_path):
    both = [{"rank": 0}, {"rank": 1}]
    assert run_ranks(told, 2, folder=tmp_path) == [(0, 2, both, ["of", 0]), (1, 2, both, ["of", 0])]


def test_a_process_alone_is_the_first_of_one():
    assert told() == (0, 1, [{"rank": 0}], ["of", 0])
