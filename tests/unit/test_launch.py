"""Devices and nodes, from a launcher's environment."""

import pytest

from nbg_lightning.launch import ranks_of_launch

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "16"}
SRUN = {"SLURM_NTASKS": "32", "SLURM_NNODES": "6", "SLURM_STEP_NUM_NODES": "4", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "expected"),
    [
        ("auto", None, {}, ("auto", 1)),
        (2, None, {}, (2, 1)),
        (2, 3, {}, (2, 3)),
        ("auto", None, TORCHRUN, (8, 16)),
        (8, 16, TORCHRUN, (8, 16)),
        ("8", None, TORCHRUN, ("8", 16)),
        (-1, None, TORCHRUN, (8, 16)),
        ([0, 1, 2, 3, 4, 5, 6, 7], None, TORCHRUN, ([0, 1, 2, 3, 4, 5, 6, 7], 16)),
        ("auto", None, SRUN, ("auto", 4)),
        (8, 4, SRUN, (8, 4)),
        ("auto", None, {**SRUN, **TORCHRUN}, (8, 16)),  # torchrun inside of a step
        ("auto", None, {**SRUN, "SLURM_JOB_NAME": "bash"}, ("auto", 1)),  # typed in an allocation: no step was started
    ],
)
def test_what_is_not_given_is_the_launchers(devices, nodes, environment, expected):
    assert ranks_of_launch(devices, nodes, environment) == expected


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "said"),
    [
        (4, None, TORCHRUN, "trainer.devices is invalid: 4; torchrun has started 8 ranks a node"),
        ("auto", 4, TORCHRUN, "trainer.num_nodes is invalid: 4; the launcher has started this on 16 nodes"),
        ("auto", 6, SRUN, "trainer.num_nodes is invalid: 6; the launcher has started this on 4 nodes"),
    ],
)
def test_other_numbers_are_refused(devices, nodes, environment, said):
    with pytest.raises(ValueError, match=said):
        ranks_of_launch(devices, nodes, environment)
