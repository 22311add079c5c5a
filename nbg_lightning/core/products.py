"""Float32 matrix products on a CPU by the faster of the two libraries that torch has for them.

Shape suffixes: M rows, K inputs, N outputs.

torch computes float32 products by its BLAS, and those of bfloat16 by oneDNN. On some processors oneDNN's float32 is much faster
(2.3 times on an AMD EPYC with Zen 5 cores, where MKL does not use AVX-512). A short measurement decides once per process; the
environment variable `LIBRARY` decides without one. Results differ by rounding (1e-6).

Why not torch's switch ``torch.backends.mkldnn.matmul.fp32_precision = "bf16"``, which selects oneDNN too: it holds for the whole
process, rounds to bfloat16 on processors with AMX, and makes the small batched products of decoding 3.5 times slower.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LIBRARY = "NBG_FLOAT32_PRODUCTS"
"""Environment variable: ``auto`` (the default), ``blas`` or ``onednn``."""

_SMALLEST = 2**22  # multiplications below which a call of oneDNN costs more than it saves, at any number of rows
_GAIN = 1.5  # times as fast; well below the 2.1 to 2.3 of Zen 5, so that the choice is the same in every process of a machine
_LARGEST_COPY = 2**25  # bytes of a part that is computed before it is copied to where it belongs

# torch and oneDNN keep the code of the last 1,024 shapes each, some MB a shape: 4 GB for batches of many lengths. A training
# step and a decoding step have about 20 shapes, and new code costs a tenth of a product.
_CACHES = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}

_onednn: bool | None = None  # whether oneDNN is used; None until `choose_library`


def choose_library() -> None:
    """Decide once per process which library computes products; 15 ms. Called by `create_model` for models on a CPU.

    Raises:
        ValueError: `LIBRARY` has another value, or names a library that is not there.
    """
    global _onednn
    if _onednn is not None or type(torch.empty(0)) is not Tensor:  # not measured with fake tensors
        return
    given = os.environ.get(LIBRARY, "auto")
    if given not in ("auto", "blas", "onednn"):
        raise ValueError(f"{LIBRARY} is invalid: {given!r}; choose auto, blas or onednn")
    for name, shapes in _CACHES.items():  # the first product of each thread reads them
        os.environ.setdefault(name, shapes)
    usable = given != "blas" and _agrees()
    if given == "onednn" and not usable:
        raise ValueError(
            f"{LIBRARY} is invalid: {given}; choose auto: this torch has no exact float32 product by oneDNN"
        )
    _onednn = usable and (given == "onednn" or speed_up() >= _GAIN)


def _by_onednn(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    if not (w_NK.is_contiguous() or w_NK.t().is_contiguous()):  # some columns of a matrix: a thousand times as slow
        w_NK = w_NK.contiguous()
    # The operator that torch.compile calls for frozen weights.
    return torch.ops.mkldnn._linear_pointwise(x_MK, w_NK, None, "none", [], "")


def fill_caches() -> None:
    """Compute products of as many shapes as are kept, to measure what a process takes with them (0.4 MB a shape)."""
    if _onednn:
        weight = torch.zeros(256, 256)
        for rows in range(1, 1 + int(os.environ["LRU_CACHE_CAPACITY"])):
            _by_onednn(torch.zeros(rows, 256), weight)


def _agrees() -> bool:
    """Whether this build of torch has oneDNN's operator, and it is exact to float32."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(33, 70, generator=generator), torch.randn(50, 70, generator=generator)
    exact = x.double() @ w.double().t()
    try:
        found = _by_onednn(x, w), _by_onednn(x.t().contiguous().t(), w.t().contiguous().t())
    except (AttributeError, RuntimeError):  # built without oneDNN
        return False
    return all(bool((each.double() - exact).norm() <= 1e-6 * exact.norm()) for each in found)


def speed_up() -> float:
    """How many times as fast oneDNN multiplies as torch's BLAS, on this machine now."""
    x, w = torch.ones(256, 512), torch.ones(512, 512)
    sides: dict[Callable[[Tensor, Tensor], Tensor], float] = {F.linear: float("inf"), _by_onednn: float("inf")}
    for _ in range(8):  # the fastest of each: other work only slows
        for side in sides:
            begin = time.perf_counter()
            side(x, w)
            sides[side] = min(sides[side], time.perf_counter() - begin)
    return sides[F.linear] / sides[_by_onednn]


@torch.library.custom_op("nbg::product", mutates_args=())
def _product(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    return _by_onednn(x_MK, w_NK)


@_product.register_fake
def _(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    return x_MK.new_empty(x_MK.shape[0], w_NK.shape[0])


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad_MN):  # type: ignore[no-untyped-def]
    x_MK, w_NK = ctx.saved_tensors
    needs_x, needs_w = ctx.needs_input_grad
    return _product(grad_MN, w_NK.t()) if needs_x else None, _product(grad_MN.t(), x_MK.t()) if needs_w else None


_product.register_autograd(_backward, setup_context=_setup_context)


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a product ``[..., K]`` with a weight is computed by oneDNN."""
    if not _onednn or x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    return math.prod(x.shape[:-1]) * weight.numel() >= _SMALLEST


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, differentiable.

    Args:
        x: inputs ``[..., K]``.
        weight_NK: the weight.
        bias_N: added to every row.
    """
    if not uses_onednn(x, weight_NK):
        return F.linear(x, weight_NK, bias_N)
    y_MN = _product(x.flatten(0, -2), weight_NK)
    return (y_MN if bias_N is None else y_MN + bias_N).view(*x.shape[:-1], len(weight_NK))


def multiply(x_MK: Tensor, weight_KN: Tensor) -> Tensor:
    """``x @ weight`` without gradients.

    Args:
        x_MK: left-hand side.
        weight_KN: right-hand side.
    """
    return _by_onednn(x_MK, weight_KN.t()) if uses_onednn(x_MK, weight_KN) else torch.mm(x_MK, weight_KN)


def multiply_into(out_MN: Tensor, x_MK: Tensor, weight_KN: Tensor) -> Tensor:
    """Write ``x @ weight`` to ``out`` and return it; without gradients.

    Args:
        out_MN: is overwritten.
        x_MK: left-hand side.
        weight_KN: right-hand side.
    """
    if not uses_onednn(x_MK, weight_KN):
        return torch.mm(x_MK, weight_KN, out=out_MN)
    rows = max(1, _LARGEST_COPY // (4 * weight_KN.shape[1]))
    for begin in range(0, len(x_MK), rows):
        out_MN[begin : begin + rows] = _by_onednn(x_MK[begin : begin + rows], weight_KN.t())
    return out_MN


def add_product_(x_MN: Tensor, y_MK: Tensor, weight_KN: Tensor) -> Tensor:
    """Add ``y @ weight`` to ``x`` in place; without gradients.

    Args:
        x_MN: is changed.
        y_MK: left-hand side.
        weight_KN: right-hand side.
    """
    if not uses_onednn(y_MK, weight_KN):
        return x_MN.addmm_(y_MK, weight_KN)
    return x_MN.add_(_by_onednn(y_MK, weight_KN.t()))
