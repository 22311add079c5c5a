"""What devices can do: memory, products, bandwidths."""

from __future__ import annotations

from dataclasses import dataclass

from nbg_lightning.suggestion import did_you_mean


@dataclass(frozen=True)
class Device:
    """One accelerator, as its maker says, and what of that a training step reaches.

    Attributes:
        name: as sold.
        memory: GiB that the driver offers.
        products: 10^12 FLOP/s of dense bfloat16 products.
        float8_products: the same in float8; None where there is none.
        bandwidth: 10^9 bytes/s of its memory.
        link: 10^9 bytes/s to the others of its node, each way.
        network: 10^9 bytes/s to other nodes, each way.
        efficiency: share of the products that a whole step reaches, attention and elementwise work included.
        reserved: GiB of context, communication buffers and fragmentation, which no count of tensors shows.
        in_node: devices of a node.
    """

    name: str
    memory: float
    products: float
    float8_products: float | None
    bandwidth: float
    link: float
    network: float
    efficiency: float = 0.45
    reserved: float = 7.0
    in_node: int = 8


# Data sheets of NVIDIA (dense, SXM boards) with a 400 Gbit/s adapter a GPU (A100: 200). The efficiency is a prediction: public
# runs of dense models of 1 to 8 B under FSDP2 reach 0.40 to 0.50 of the bfloat16 peak.
DEVICES = {
    "a100": Device("A100 80GB", 79.2, 312, None, 2039, 300, 25),
    "h100": Device("H100 80GB", 79.6, 989, 1979, 3350, 450, 50),
    "h200": Device("H200 141GB", 140.4, 989, 1979, 4800, 450, 50),
    "b200": Device("B200 180GB", 179.0, 2250, 4500, 8000, 900, 50),
}


def device_of(name: str) -> Device:
    """A device by its name.

    Raises:
        ValueError: it is not known.
    """
    if name.lower() not in DEVICES:
        raise ValueError(
            f"device is invalid: {name}; there are {', '.join(DEVICES)}{did_you_mean(name, list(DEVICES))}"
        )
    return DEVICES[name.lower()]
