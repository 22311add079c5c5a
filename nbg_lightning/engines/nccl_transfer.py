"""Weights from the trainer's GPU to those of vLLM servers: vLLM's own transfer over NCCL, a group for each server."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from nbg_lightning.engines.pushed_server import PUSH_SECONDS, PushedServer, Unwell
from nbg_lightning.error_line import first_line

_OPEN_SECONDS = 300.0  # for the first meeting of trainer and server


class NCCLTransfer:
    """Keeps weights in the memory of the host, and sends them to servers (vLLM's ``NCCLTrainerWeightTransferEngine``).

    A server is met in a group of its own, so that one which dies stops no other. One that was started again has forgotten its
    group, which is seen by the name of its weights: another is made. A transfer that does not end is left to its thread.

    Args:
        kept: how many versions.
    """

    ROUTES = (
        "/init_weight_transfer_engine",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/get_world_size",
    )

    def __init__(self, kept: int):
        self.kept, self._count = kept, 0
        self._weights: dict[str, dict[str, Tensor]] = {}
        self._groups: dict[str, _TransferGroup] = {}

    @staticmethod
    def check(folder: str | None) -> None:
        """Refuse what this process cannot do.

        Raises:
            ValueError: it has no GPU of NVIDIA or no vLLM, or a folder is given that would not be used.
        """
        if not torch.cuda.is_available() or torch.version.cuda is None:
            raise ValueError("transfer is invalid: 'nccl' needs a GPU of NVIDIA in the trainer; choose files")
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "transfer is invalid: 'nccl' needs vLLM beside the trainer; install it (pip install nbg-lightning[vllm])"
            )
        if folder is not None:
            raise ValueError(f"folder is invalid: {folder} with transfer 'nccl', which writes no files; leave it out")

    def write(self, weights: Iterable[tuple[str, Tensor]]) -> tuple[str, str | None]:
        """See `WeightTransfer.write`."""
        self._count += 1
        source, stream, problem = f"{self._count}", iter(weights), None
        try:
            self._weights[source] = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in stream}
        except Exception as error:  # of memory
            problem = f"weights cannot be kept in memory: {first_line(error)}"
        for _ in stream:  # the other ranks are gathering these weights too
            pass
        self._weights.pop(f"{self._count - self.kept}", None)
        return source, problem

    def wait_for(self, source: str) -> None:
        """Nothing: each rank keeps its own."""

    def give(self, source: str, name: str, server: PushedServer) -> None:
        """See `WeightTransfer.give`."""
        group = self._groups.pop(server.url, None)
        if group is not None and group.name != server.weights_name():
            group.close()
            group = None
        group = group or _within(_OPEN_SECONDS, lambda: _TransferGroup(server))
        group.source.weights = self._weights[source]
        _within(PUSH_SECONDS, group.send)
        group.name = name
        self._groups[server.url] = group

    def close(self) -> None:
        """See `WeightTransfer.close`."""
        for group in self._groups.values():
            group.close()
        self._groups, self._weights = {}, {}


class KeptWeights:
    """Weights of the host as vLLM's ``WeightSource``: each is on the GPU while it is sent."""

    def __init__(self) -> None:
        self.weights: Mapping[str, Tensor] = {}

    def metadata(self) -> list[Any]:
        """Name, dtype and shape of each."""
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in self.weights.items()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self.weights.items():
            yield name, weight.to("cuda", non_blocking=False)


class TransferClient:
    """Tells a server what vLLM's transfer wants of it (``VLLMWeightSyncClient``), with our deadlines and key.

    Args:
        server: which.
    """

    def __init__(self, server: PushedServer):
        self.server = server

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have it join the group."""
        try:
            self.server.ask("POST", "/init_weight_transfer_engine", {"init_info": init_info}, _OPEN_SECONDS)
        except Unwell as error:
            hint = 'start it with --weight-transfer-config \'{"backend": "nccl"}\''
            raise Unwell(f"{first_line(error)}; {hint}") from None

    def start_weight_update(self) -> None:
        """Have it prepare for weights."""
        self.server.ask("POST", "/start_weight_update", seconds=PUSH_SECONDS)

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Have it receive weights."""
        self.server.ask("POST", "/update_weights", {"update_info": update_info}, PUSH_SECONDS)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Have it take them; the version is told once they are compared (`PushedServer.push`)."""
        self.server.ask("POST", "/finish_weight_update", seconds=PUSH_SECONDS)


class _TransferGroup:
    """The trainer and one server."""

    def __init__(self, server: PushedServer):
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

        self.name, self.source = "", KeptWeights()
        with contextlib.suppress(Unwell):  # of a trainer before this one; a server that has none refuses
            server.ask("POST", "/shutdown_weight_transfer_engine")
        workers = int(server.ask("GET", "/get_world_size").get("world_size", 1))
        host, port = _address_seen_by(server)
        info = NCCLTrainerInitInfo(host, port, 1 + workers, rank=0)
        source: Any = self.source  # it has what is asked of a source here, and needs no vLLM to be imported
        self._engine = NCCLTrainerWeightTransferEngine.trainer_init(info, client=TransferClient(server), source=source)

    def send(self) -> None:
        """Send the weights of `source`."""
        with torch.cuda.stream(torch.cuda.Stream()):  # one that hangs must not stop the trainer's
            self._engine.send_weights()

    def close(self) -> None:
        """Leave it."""
        with contextlib.suppress(Exception):
            self._engine.shutdown()


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """What some work gives, in a thread that is left alone where it does not end.

    Raises:
        Unwell: it failed, or does not end.
    """
    result: Future[Any] = Future()
    device = torch.cuda.current_device()

    def run() -> None:
        try:
            torch.cuda.set_device(device)
            result.set_result(work())
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=run, name="nbg-nccl", daemon=True).start()
    try:
        return result.result(seconds)
    except TimeoutError:
        raise Unwell(f"the transfer over NCCL did not end in {seconds:.0f} s") from None
    except Exception as error:
        raise Unwell(f"the transfer over NCCL failed: {first_line(error)}") from None


def _address_seen_by(server: PushedServer) -> tuple[str, int]:
    """This machine's address on the way to a server, and a free port."""
    from urllib.parse import urlsplit

    parts = urlsplit(server.root)
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=_OPEN_SECONDS) as way:
        host = way.getsockname()[0]
    with socket.socket() as listener:
        listener.bind((host, 0))
        return host, listener.getsockname()[1]
