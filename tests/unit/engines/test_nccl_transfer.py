"""Weights over NCCL: calls match the installed vLLM, and unsupported setups are refused. GPU tests are marked."""

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.engines.nccl_transfer import KeptWeights, NCCLTransfer, TransferClient
from nbg_lightning.engines.pushed_server import Unwell
from nbg_lightning.engines.server_pool import ServerPool
from nbg_lightning.engines.weights import weight_stream
from nbg_lightning.testing.grpo import GRPO_SHAPE


def source(path):
    """The syntax of a file of the installed vLLM, without importing it."""
    return ast.parse((Path(importlib.util.find_spec("vllm").origin).parent / path).read_text("utf-8"))


def definition(tree, name):
    return next(
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
    )


def fields(tree, name):
    """The fields of a data class, with whether each has a default."""
    return {
        node.target.id: node.value is not None
        for node in definition(tree, name).body
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation)
    }


@pytest.mark.vllm
def test_the_servers_routes_take_what_they_are_told():
    """Path, method and the names of the bodies, as the installed server has them."""
    routes = {}
    for node in ast.walk(source("entrypoints/rl/online/api_router.py")):
        for decorator in node.decorator_list if isinstance(node, ast.AsyncFunctionDef) else ():
            if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute) and decorator.args:
                routes[ast.literal_eval(decorator.args[0])] = decorator.func.attr, [each.arg for each in node.args.args]
    assert set(NCCLTransfer.ROUTES) <= routes.keys()
    assert routes["/init_weight_transfer_engine"] == ("post", ["raw_request", "init_info"])
    assert routes["/start_weight_update"] == ("post", ["raw_request"])
    assert routes["/update_weights"] == ("post", ["raw_request", "update_info"])
    assert routes["/finish_weight_update"] == ("post", ["raw_request", "weight_version"])
    assert routes["/shutdown_weight_transfer_engine"] == ("post", ["raw_request"])
    assert routes["/get_world_size"] == ("get", ["raw_request", "include_dp"])


@pytest.mark.vllm
def test_the_trainers_side_takes_what_it_is_given():
    engine, base = source("distributed/weight_transfer/nccl_engine.py"), source("distributed/weight_transfer/base.py")
    given = ["master_address", "master_port", "world_size"]  # in this order, without names
    assert list(fields(engine, "NCCLTrainerInitInfo"))[:3] == given
    assert all(has_default for name, has_default in fields(engine, "NCCLTrainerInitInfo").items() if name not in given)
    assert list(fields(base, "TrainerInitInfo")) == ["rank"] and list(fields(base, "ParamMeta")) == [
        "name",
        "dtype",
        "shape",
    ]
    trainer = definition(engine, "NCCLTrainerWeightTransferEngine")
    start = definition(trainer, "trainer_init")
    assert [each.arg for each in start.args.args] == ["cls", "init_info"]
    assert [each.arg for each in start.args.kwonlyargs] == ["client", "source"]
    assert [each.arg for each in definition(trainer, "send_weights").args.args] == ["self"]
    assert [each.arg for each in definition(trainer, "shutdown").args.args] == ["self"]


@pytest.mark.vllm
def test_client_and_source_have_the_methods_that_are_asked_of_them():
    base = source("distributed/weight_transfer/base.py")
    methods = [each for each in definition(base, "VLLMWeightSyncClient").body if isinstance(each, ast.FunctionDef)]
    ours = {each.name: list(inspect.signature(vars(TransferClient)[each.name]).parameters) for each in methods}
    assert ours == {each.name: [argument.arg for argument in each.args.args] for each in methods} != {}
    asked = ast.unparse(
        definition(source("distributed/weight_transfer/nccl_engine.py"), "NCCLTrainerWeightTransferEngine")
    )
    assert "source.metadata()" in asked and "for name, tensor in source" in asked
    assert {"metadata", "__iter__"} <= vars(KeptWeights).keys()


class Server:
    """Notes what it is asked."""

    def __init__(self):
        self.asked = []

    def ask(self, method, path, body=None, seconds=0.0):
        self.asked.append((method, path, body))
        if path == "/init_weight_transfer_engine":
            raise Unwell("Please set weight_transfer_config")
        return {}


def test_the_client_asks_the_server():
    server = Server()
    client = TransferClient(server)
    client.start_weight_update()
    client.update_weights({"names": ["a"]})
    client.finish_weight_update()
    assert server.asked == [
        ("POST", "/start_weight_update", None),
        ("POST", "/update_weights", {"update_info": {"names": ["a"]}}),
        ("POST", "/finish_weight_update", None),
    ]
    with pytest.raises(Unwell, match="set weight_transfer_config; start it with --weight-transfer-config"):
        client.init_weight_transfer_engine({})


def test_the_last_versions_are_kept_and_a_stream_is_read_to_its_end():
    transfer, model = NCCLTransfer(2), create_model(GRPO_SHAPE, seed=1)
    names = [transfer.write(weight_stream(model))[0] for _ in range(3)]
    assert list(transfer._weights) == names[1:]
    kept = transfer._weights[names[2]]
    assert all(torch.equal(kept[name], weight) and kept[name] is not weight for name, weight in weight_stream(model))
    read = []

    def torn():
        for name, weight in weight_stream(model):
            read.append(name)
            yield name, weight if len(read) != 2 else None

    _, problem = transfer.write(torn())
    assert problem.startswith("weights cannot be kept in memory") and len(read) == len(kept)
    transfer.close()
    assert not transfer._weights


def test_it_is_refused_without_a_gpu_and_with_a_folder(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(
            ValueError, match="transfer is invalid: 'nccl' needs a GPU of NVIDIA in the trainer; choose files"
        ):
            ServerPool(["http://127.0.0.1:1/v1"], transfer="nccl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match="folder is invalid: /x with transfer 'nccl', which writes no files"):
        ServerPool(["http://127.0.0.1:1/v1"], folder="/x", transfer="nccl")


@pytest.mark.gpu
@pytest.mark.vllm
def test_servers_on_gpus_draw_with_what_was_sent(tmp_path):
    """Needs a server on another GPU: VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}', at
    NBG_NCCL_SERVER, and its model at NBG_NCCL_MODEL."""
    import os

    from nbg_lightning.core.weights import load_base_weights, read_shape
    from nbg_lightning.engines import NativeEngine, Probe

    folder = os.environ["NBG_NCCL_MODEL"]
    model = create_model(read_shape(folder), device="cuda")
    load_base_weights(model, folder)
    pool = ServerPool([os.environ["NBG_NCCL_SERVER"]], transfer="nccl")
    pool.attach(model)
    with pool:
        for version in range(3):
            with torch.no_grad():
                next(model.parameters()).mul_(1.001)
            pool.sync(weight_stream(model), version)
            ids = tuple(range(5, 60))
            pool.check(Probe(ids, tuple(NativeEngine(model).score([ids])[0])))
    pool.close()
