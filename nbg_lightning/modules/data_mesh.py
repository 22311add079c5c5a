"""The ranks that a module's model is sharded over."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh


def data_mesh(module: str, mesh: DeviceMesh | None) -> DeviceMesh:
    """The data-parallel dimension of a strategy's mesh.

    Args:
        module: name of the module's class.
        mesh: device mesh of Lightning's ``ModelParallelStrategy``; None under another strategy.

    Raises:
        ValueError: another strategy, or tensor parallelism.
    """
    if mesh is None:
        raise ValueError(
            f"{module} needs Trainer(strategy=ModelParallelStrategy()), also on one device; set it: "
            "checkpoints and precision come from FSDP2 (see configs/trainer/)"
        )
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError("tensor parallelism is not supported; set strategy.init_args.tensor_parallel_size to 1")
    return mesh["data_parallel"]
