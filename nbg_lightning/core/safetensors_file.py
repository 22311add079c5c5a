"""Writes safetensors files tensor by tensor: safetensors' own ``save_file`` takes all tensors of a file at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_safetensors(
    path: Path, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype, tensors: Iterable[tuple[str, Tensor]]
) -> int:
    """Write a file of tensors of one dtype, each as soon as it is there; returns the bytes of all tensors.

    The format is a header of JSON, preceded by its length in 8 bytes and padded with blanks to a multiple of 8, and the tensors
    one after the other (https://huggingface.co/docs/safetensors).

    Args:
        path: the file.
        shapes: the tensors' shapes by name, in the order in which they come.
        dtype: float32, bfloat16 or float16; tensors are converted.
        tensors: names and tensors.

    Raises:
        ValueError: a tensor comes out of order, is missing, or has another shape.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    expected = iter([(name, list(shape)) for name, shape in shapes.items()])
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            if (name, list(tensor.shape)) != next(expected, None):
                raise ValueError(
                    f"tensor {name} of {list(tensor.shape)} is not expected; give tensors in the order of shapes"
                )
            file.write(tensor.to("cpu", dtype).contiguous().flatten().view(torch.uint8).numpy().data)
    if (missing := next(expected, None)) is not None:
        raise ValueError(f"tensor {missing[0]} is missing; give all tensors of shapes")
    return end
