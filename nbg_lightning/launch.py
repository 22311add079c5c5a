"""Ranks that a launcher has started: how many on this node, on how many nodes."""

from __future__ import annotations

from collections.abc import Mapping

Devices = list[int] | str | int


def ranks_of_launch(devices: Devices, nodes: int | None, environment: Mapping[str, str]) -> tuple[Devices, int]:
    """Fill in what is not given from the launcher's environment, and compare what is.

    Args:
        devices: of the trainer: a number, a list, or ``auto``.
        nodes: of the trainer; None where it is not given.
        environment: of this process. torchrun says how many ranks are on a node and on how many nodes; ``srun`` the latter.

    Returns:
        Devices a node, and nodes.

    Raises:
        ValueError: the launcher has started other numbers.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        local = int(environment.get("LOCAL_WORLD_SIZE", 1))
        found = int(environment.get("GROUP_WORLD_SIZE", 1))
        asked = len(devices) if isinstance(devices, list) else devices
        if asked in ("auto", -1, "-1"):
            devices = local
        elif str(asked) != str(local):
            raise ValueError(
                f"trainer.devices is invalid: {devices}; torchrun has started {local} ranks a node: leave it out, or give "
                f"--nproc-per-node {asked}"
            )
    elif "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        found = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", 1)))
    else:
        return devices, nodes or 1
    if nodes is not None and nodes != found:
        raise ValueError(
            f"trainer.num_nodes is invalid: {nodes}; the launcher has started this on {found} nodes: leave trainer.num_nodes out"
        )
    return devices, found
