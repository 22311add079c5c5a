"""Transfer of weights from the trainer's GPU to vLLM servers, by vLLM's own NCCL transfer with one group per server."""

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

_OPEN_SECONDS = 300.0  # for the first connection of trainer and server


class NCCLTransfer:
    """Keeps weights in host memory, and sends them to servers (vLLM's ``NCCLTrainerWeightTransferEngine``).

    Each server has a group of its own, so that one that dies does not block the others. A restarted server has lost its group,
    which shows in the name of its weights: then a new group is created. A transfer that hangs is abandoned in its thread.

    Args:
        kept: number of versions to keep.
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
        """Check the requirements in this process.

        Raises:
            ValueError: there is no NVIDIA GPU or no vLLM, or a folder is given, which would not be used.
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
        except Exception as error:  # usually out of memory
            problem = f"weights cannot be kept in memory: {first_line(error)}"
        for _ in stream:  # the other ranks are gathering these weights too
            pass
        self._weights.pop(f"{self._count - self.kept}", None)
        return source, problem

    def wait_for(self, source: str) -> None:
        """Do nothing: each rank keeps its own copy."""

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
    """Weights in host memory as vLLM's ``WeightSource``: each tensor is on the GPU while it is sent."""

    def __init__(self) -> None:
        self.weights: Mapping[str, Tensor] = {}

    def metadata(self) -> list[Any]:
        """Name, dtype and shape of each tensor."""
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in self.weights.items()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self.weights.items():
            yield name, weight.to("cuda", non_blocking=False)


class TransferClient:
    """Sends the requests of vLLM's transfer to a server (``VLLMWeightSyncClient``), with our deadlines and key.

    Args:
        server: the server.
    """

    def __init__(self, server: PushedServer):
        self.server = server

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Tell the server to join the group."""
        try:
            self.server.ask("POST", "/init_weight_transfer_engine", {"init_info": init_info}, _OPEN_SECONDS)
        except Unwell as error:
            hint = 'start it with --weight-transfer-config \'{"backend": "nccl"}\''
            raise Unwell(f"{first_line(error)}; {hint}") from None

    def start_weight_update(self) -> None:
        """Tell the server to prepare for weights."""
        self.server.ask("POST", "/start_weight_update", seconds=PUSH_SECONDS)

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Tell the server to receive weights."""
        self.server.ask("POST", "/update_weights", {"update_info": update_info}, PUSH_SECONDS)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Tell the server to use them; the version is sent after they have been compared (`PushedServer.push`)."""
        self.server.ask("POST", "/finish_weight_update", seconds=PUSH_SECONDS)


class _TransferGroup:
    """A group of the trainer and one server."""

    def __init__(self, server: PushedServer):
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

        self.name, self.source = "", KeptWeights()
        with contextlib.suppress(Unwell):  # of an earlier trainer; a server without a group refuses
            server.ask("POST", "/shutdown_weight_transfer_engine")
        workers = int(server.ask("GET", "/get_world_size").get("world_size", 1))
        host, port = _address_seen_by(server)
        info = NCCLTrainerInitInfo(host, port, 1 + workers, rank=0)
        source: Any = self.source  # duck-typed as a vLLM source, so that vLLM need not be imported
        self._engine = NCCLTrainerWeightTransferEngine.trainer_init(info, client=TransferClient(server), source=source)

    def send(self) -> None:
        """Send the weights of `source`."""
        with torch.cuda.stream(torch.cuda.Stream()):  # one that hangs must not block the trainer's
            self._engine.send_weights()

    def close(self) -> None:
        """Leave the group."""
        with contextlib.suppress(Exception):
            self._engine.shutdown()


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """Run work in a thread, which is abandoned if it does not end in time.

    Raises:
        Unwell: it failed, or did not end.
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
    """This machine's address as seen by a server, and a free port."""
    from urllib.parse import urlsplit

    parts = urlsplit(server.root)
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=_OPEN_SECONDS) as way:
        host = way.getsockname()[0]
    with socket.socket() as listener:
        listener.bind((host, 0))
        return host, listener.getsockname()[1]
