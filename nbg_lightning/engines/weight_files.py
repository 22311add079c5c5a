"""A model's weights in a folder that servers read, written atomically."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.hf_config import make_hf_config
from nbg_lightning.core.parameter_shapes import parameter_shapes
from nbg_lightning.core.weight_sources import write_json
from nbg_lightning.distributed import broadcast_object, get_rank
from nbg_lightning.engines.pushed_server import PUSH_SECONDS, PushedServer, Unwell
from nbg_lightning.error_line import first_line

_FILE_BYTES = 1 << 30  # size of a file: no more than this is held in memory besides the model
_WAIT_SECONDS = 1800.0  # of a rank for the files of the first rank
_LOOK_SECONDS = 0.05


class WeightFiles:
    """Writes weights as safetensors; constructing and `write` are collective.

    With a folder shared by all ranks, the first rank writes; without one, each rank writes its own files in the machine's
    temporary folder. They are removed with this object.

    Args:
        shape: the model's shape.
        folder: read by the servers under the same path.
        kept: number of versions kept on disk.
        dtype: dtype of written weights.

    Raises:
        ValueError: the folder is not writable, or has no room for these versions and the one being written; for a shared folder,
            on all ranks.
    """

    ROUTES = ("/collective_rpc",)

    def __init__(self, shape: LanguageModelConfig, folder: str | None, kept: int, dtype: torch.dtype = torch.float32):
        self.shape, self.kept, self._count = shape, kept, 0
        problem = None
        if folder is None:
            self.folder, self._writes = Path(tempfile.mkdtemp(prefix="nbg-weights-")), True
            problem = self._lack_of_room(dtype)
        else:  # a name unique to this run, so that weights of an earlier one are never used
            name = broadcast_object(f"weights-{uuid.uuid4().hex[:12]}")
            self.folder, self._writes = Path(folder).absolute() / name, get_rank() == 0
            if self._writes:
                try:
                    self.folder.mkdir(parents=True)
                    problem = self._lack_of_room(dtype)
                except OSError as error:
                    problem = f"folder is invalid: {folder} cannot be written ({first_line(error)}); give another"
            problem = broadcast_object(problem)
        self.close = weakref.finalize(self, shutil.rmtree, self.folder, True) if self._writes else lambda: None
        if problem is not None:
            self.close()
            raise ValueError(problem)

    def _lack_of_room(self, dtype: torch.dtype) -> str | None:
        """The reason why the folder is too small, in one line."""
        untied = replace(self.shape, tie_word_embeddings=False)
        needed = (self.kept + 1) * sum(map(prod, parameter_shapes(untied).values())) * dtype.itemsize
        free = shutil.disk_usage(self.folder).free
        if needed <= free:
            return None
        return (
            f"folder is invalid: {self.folder.parent} has {free / 1e9:,.1f} GB free, and {self.kept + 1} versions of the weights "
            f"in {str(dtype).removeprefix('torch.')} take {needed / 1e9:,.1f}; give one with room for them"
        )

    def write(self, weights: Iterable[tuple[str, Tensor]]) -> tuple[str, str | None]:
        """Write weights; the stream is consumed in any case.

        Returns:
            The folder that contains them (on other ranks than the first: that will, see `wait_for`), and a one-line reason why
            they could not be written, or None.
        """
        self._count += 1
        target, problem, stream = self.folder / f"{self._count:08d}", None, iter(weights)
        if self._writes:
            partial = target.with_suffix(".partial")
            try:
                partial.mkdir(parents=True)
                self._write(stream, partial)
                partial.rename(target)
            except Exception as error:
                problem = f"weights cannot be written to {self.folder} ({first_line(error)}); give a folder with room for them"
                shutil.rmtree(partial, ignore_errors=True)
                with contextlib.suppress(OSError):
                    target.with_suffix(".failed").write_text(problem, "utf-8")
            shutil.rmtree(self.folder / f"{self._count - self.kept:08d}", ignore_errors=True)
        for _ in stream:  # the other ranks are gathering these weights too
            pass
        return str(target), problem

    def _write(self, stream: Iterable[tuple[str, Tensor]], folder: Path) -> None:
        from safetensors.torch import save_file

        write_json(folder / "config.json", make_hf_config(self.shape))
        part: dict[str, Tensor] = {}
        number = 0
        for name, weight in stream:
            # A copy: training may change the tensor before it is written.
            part[name] = weight.detach().to("cpu", copy=True).contiguous()
            if sum(each.nbytes for each in part.values()) >= _FILE_BYTES:
                number += 1
                save_file(part, folder / f"model-{number:05d}.safetensors", metadata={"format": "pt"})
                part = {}
        save_file(part, folder / f"model-{number + 1:05d}.safetensors", metadata={"format": "pt"})

    def wait_for(self, source: str) -> None:
        """Wait until the first rank has written a folder of weights.

        Raises:
            RuntimeError: it could not, or did not.
        """
        folder, end = Path(source), time.monotonic() + _WAIT_SECONDS
        while not folder.is_dir():
            with contextlib.suppress(OSError):
                raise RuntimeError(folder.with_suffix(".failed").read_text("utf-8"))
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{folder} is not there after {_WAIT_SECONDS:.0f} s; give a folder that all ranks share"
                )
            time.sleep(_LOOK_SECONDS)

    def give(self, source: str, name: str, server: PushedServer) -> None:
        """Tell a server to load a folder of weights.

        Raises:
            httpx.HTTPError, Unwell: it failed.
        """
        body = {"method": "reload_weights", "kwargs": {"weights_path": source}}
        try:
            server.ask("POST", "/collective_rpc", body, PUSH_SECONDS)
        except Unwell as error:
            raise Unwell(f"{first_line(error)}; does it serve the model that is trained?") from None


def in_dtype(weights: Iterable[tuple[str, Tensor]], dtype: str | None) -> Iterable[tuple[str, Tensor]]:
    """The weights converted to a dtype, by its name in torch; None leaves them unchanged."""
    kind = None if dtype is None else getattr(torch, dtype)
    for name, weight in weights:
        yield name, weight if kind is None else weight.to(kind)
