"""The number of ranks and nodes that a launcher has started."""

from __future__ import annotations

from collections.abc import Mapping

Devices = list[int] | str | int


def ranks_of_launch(devices: Devices, nodes: int | None, environment: Mapping[str, str]) -> tuple[Devices, int]:
    """Fill in missing values from the launcher's environment, and check given ones against it.

    Args:
        devices: the trainer's setting: a number, a list, or ``auto``.
        nodes: the trainer's setting; None if not given.
        environment: environment variables of this process. torchrun sets the number of ranks per node and of nodes;
            ``srun`` the latter.

    Returns:
        Devices per node, and nodes.

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
