"""Settings of vLLM that are refused or chosen before it is imported."""

import pytest

from nbg_lightning.engines import VLLMEngine
from nbg_lightning.engines.vllm import _local_rank


@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"])
def test_an_engine_over_several_gpus_is_refused(name):
    with pytest.raises(ValueError, match=f"options.{name} is invalid: 2"):
        VLLMEngine(options={name: 2})
    VLLMEngine(options={name: 1})


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_of_memory(share):
    with pytest.raises(ValueError, match="gpu_memory is invalid"):
        VLLMEngine(gpu_memory=share)


def test_the_place_on_a_node_is_slurms(monkeypatch):
    """Rank 11 of two nodes with eight each is the fourth of its node: its GPU is number 3."""
    monkeypatch.setenv("SLURM_LOCALID", "3")
    assert _local_rank(11) == 3
    monkeypatch.delenv("SLURM_LOCALID")
    assert _local_rank(1) == 1
