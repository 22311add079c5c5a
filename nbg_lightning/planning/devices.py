"""Device specifications: memory, products, bandwidths; from data sheets, or measured (`calibrate`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nbg_lightning.host_memory import host_memory

DeviceKind = Literal["cuda", "cpu"]
DECODED_ROWS = 8  # answers that decode at once as `Device.decode_bandwidth` is measured


@dataclass(frozen=True)
class Rates:
    """Measured throughput of the parts of a training step on a device in one dtype, in 10^12 FLOP/s.

    Attributes:
        blocks: forward and backward of the blocks.
        heads: head of each task, counting the three products with its weight.
    """

    blocks: float
    heads: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """One accelerator: its maker's specifications, and the share of them that a training step achieves.

    Attributes:
        name: product name.
        memory: GiB available from the driver.
        products: 10^12 FLOP/s of dense bfloat16 products.
        float8_products: the same in float8; None if unsupported.
        bandwidth: memory bandwidth in 10^9 bytes/s.
        link: 10^9 bytes/s to the others of its node, each way.
        network: 10^9 bytes/s to other nodes, each way.
        float32_products: 10^12 FLOP/s of float32 products; by default half of bfloat16's (TF32).
        efficiency: share of ``products`` that a whole step achieves, attention and elementwise work included.
        reserved: GiB of context, communication buffers and fragmentation, which are not counted as tensors.
        in_node: devices per node.
        kind: ``cuda``, whose reserve stays free and whose communication overlaps with products; or ``cpu``, where a rank is
            a process, whose own size is counted.
        rates: measured rates, by dtype; without them, ``efficiency`` is used.
        decode_bandwidth: measured 10^9 bytes/s at which an engine on the live weights reads them for `DECODED_ROWS` answers;
            None: the memory's.
        measured: whether the numbers were measured on this machine.
    """

    name: str
    memory: float
    products: float
    float8_products: float | None
    bandwidth: float
    link: float
    network: float
    float32_products: float | None = None
    efficiency: float = 0.45
    reserved: float = 7.0
    in_node: int = 8
    kind: DeviceKind = "cuda"
    rates: Mapping[str, Rates] = field(default_factory=dict)
    decode_bandwidth: float | None = None
    measured: bool = False


# Data sheets of NVIDIA (dense, SXM boards) with a 400 Gbit/s adapter a GPU (A100: 200). The efficiency is a prediction: public
# runs of dense models of 1 to 8 B under FSDP2 reach 0.40 to 0.50 of the bfloat16 peak.
DEVICES = {
    "a100": Device("A100 80GB", 79.2, 312, None, 2039, 300, 25),
    "h100": Device("H100 80GB", 79.6, 989, 1979, 3350, 450, 50),
    "h200": Device("H200 141GB", 140.4, 989, 1979, 4800, 450, 50),
    "b200": Device("B200 180GB", 179.0, 2250, 4500, 8000, 900, 50),
}
NAMES = (*DEVICES, "cpu")


def this_cpu() -> Device:
    """A rough estimate for a core of this machine's processor: 16 float32 products per cycle at 3 GHz, memory shared by the
    ranks.

    `nbg plan --calibrate FILE --device cpu` measures it.
    """
    return Device(
        name="CPU (one thread a rank)",
        memory=host_memory() / 2**30,
        products=0.05,
        float8_products=None,
        bandwidth=8.0,
        link=1.0,
        network=1.0,
        float32_products=0.1,
        efficiency=0.7,
        reserved=0.6,
        in_node=max(1, os.cpu_count() or 1),
        kind="cpu",
    )
