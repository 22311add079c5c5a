"""Checkpoints of two gloo ranks: each hashes its own files, and damage to one rank's file stops all of them."""

import os
from pathlib import Path

import pytest
import torch

from nbg_lightning.core.checkpoint import CheckpointFiles
from nbg_lightning.core.weights import open_weights
from nbg_lightning.testing import run_ranks, train_small


def on_two_ranks(folder):
    folder = Path(folder)
    rank = int(os.environ["RANK"])
    whole = train_small(folder / "run", devices=2, checkpoint_every=6)
    middle = folder / "run" / "checkpoints" / "step-00000006"
    resumed = train_small(folder / "resumed", devices=2, resume=middle)
    torch.distributed.barrier()
    if rank == 0:
        file = middle / "__1_0.distcp"
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "good").write_bytes(file.read_bytes())
        file.write_bytes(data)
    torch.distributed.barrier()
    try:
        train_small(folder / "damaged", devices=2, resume=middle)
        error = None
    except ValueError as refused:
        error = str(refused)
    return whole, resumed, error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder):
    return run_ranks(on_two_ranks, 2, str(folder), folder=folder)


def test_every_rank_s_file_has_its_digest(ranks, folder):
    last = folder / "run" / "checkpoints" / "step-00000012"
    files = CheckpointFiles(last)
    files.check()
    assert sorted(files._digests) == [".metadata", "__0_0.distcp", "__1_0.distcp", "meta.pt"]


def test_a_resumed_run_ends_with_the_same_weights(ranks):
    whole, resumed, _ = ranks[0]
    for name, value in whole.weights.items():
        assert torch.equal(resumed.weights[name], value), name


def test_damage_in_one_rank_s_file_stops_all_and_is_named(ranks):
    for _, _, error in ranks:
        assert "__1_0.distcp is damaged between bytes 0 and" in error
        assert "\n" not in error


def test_one_process_reads_the_checkpoint_of_two(ranks, folder):
    """In pieces of both files, which are checked as well."""
    checkpoint = folder / "run" / "checkpoints" / "step-00000006"
    with pytest.raises(ValueError, match=r"__1_0\.distcp is damaged"):
        open_weights(checkpoint).read(["norm.weight", "tok_embeddings.weight"])
    (checkpoint / "__1_0.distcp").write_bytes((folder / "good").read_bytes())
    open_weights(checkpoint).check_files()
    resumed = train_small(folder / "one", resume=checkpoint)
    for name, value in ranks[0][0].weights.items():
        torch.testing.assert_close(resumed.weights[name], value, rtol=0, atol=1e-5)
