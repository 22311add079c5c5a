"""Prediction of a training run's memory, time and traffic, from the real model and a device table."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.planning.device_file import device_of as device_of
    from nbg_lightning.planning.devices import DEVICES as DEVICES
    from nbg_lightning.planning.devices import Device as Device
    from nbg_lightning.planning.memory import Memory as Memory
    from nbg_lightning.planning.memory import peak_memory as peak_memory
    from nbg_lightning.planning.of_config import workload_of as workload_of
    from nbg_lightning.planning.plan import ResourcePlan as ResourcePlan
    from nbg_lightning.planning.plan import plan_resources as plan_resources
    from nbg_lightning.planning.table import print_resources as print_resources
    from nbg_lightning.planning.time import StepTime as StepTime
    from nbg_lightning.planning.time import step_time as step_time
    from nbg_lightning.planning.workload import Cluster as Cluster
    from nbg_lightning.planning.workload import TrainingPhase as TrainingPhase
    from nbg_lightning.planning.workload import Workload as Workload
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "device_file": ["device_of"],
            "devices": ["DEVICES", "Device"],
            "memory": ["Memory", "peak_memory"],
            "of_config": ["workload_of"],
            "plan": ["ResourcePlan", "plan_resources"],
            "table": ["print_resources"],
            "time": ["StepTime", "step_time"],
            "workload": ["Cluster", "TrainingPhase", "Workload"],
        },
    )
