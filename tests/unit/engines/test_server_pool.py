"""Small real servers that receive weights: they load the given files and sample with them. vLLM's own servers are in
tests/integration."""

import dataclasses
import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nbg_lightning.core.create import create_model
from nbg_lightning.core.names import hf_name
from nbg_lightning.core.weight_sources import named_parameters
from nbg_lightning.engines.capabilities import Probe, StagingEngine, takes_weights
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Prompt, Sampling
from nbg_lightning.engines.server_pool import ServerPool
from nbg_lightning.engines.weight_files import WeightFiles
from nbg_lightning.engines.weights import weight_stream
from nbg_lightning.testing.grpo import GRPO_SHAPE

GREEDY = Sampling(max_new_tokens=4, temperature=0)
PROMPTS = [Prompt((5, 6 + n)) for n in range(6)]
ROUTES = (
    "/collective_rpc",
    "/pause",
    "/resume",
    "/reset_prefix_cache",
    "/update_weight_version",
    "/weight_info",
)


class SmallServer:
    """A server with vLLM's routes and its own model."""

    def __init__(self):
        self.routes, self.mode, self.window = ROUTES, "processed_logprobs", GRPO_SHAPE.vocab_size
        self.lock, self.asked, self.dies_after, self.port = threading.Lock(), 0, None, 0
        self.is_headless = False
        self.start()

    def start(self):
        """Restart as a fresh process, with the original weights."""
        self.model, self.version, self.paused, self.dead = create_model(GRPO_SHAPE, seed=99), "default", False, False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.reply(outer.get(self.path))

            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                with outer.lock:
                    self.reply(outer.post(self.path.partition("?")[0], body))

            def reply(self, found):
                if outer.dead or found is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, content = found
                content = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except (OSError, ValueError):
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self):
        self.dead = True
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def get(self, path):
        answers = {
            "/openapi.json": {"paths": {route: {} for route in self.routes}},
            "/server_info?config_format=json": {"vllm_config": {"model_config": {"logprobs_mode": self.mode}}},
            "/weight_info": {"weight_version": self.version},
            "/v1/models": {"data": [{"id": "small"}]},
            "/health": {},
        }
        return 200, answers[path]

    def post(self, path, body):
        if path == "/v1/completions":
            return self.complete(body)
        if path == "/collective_rpc":
            assert self.paused and body["method"] == "reload_weights"
            return self.reload(Path(body["kwargs"]["weights_path"]))
        if path == "/update_weight_version":
            self.version = body["new_version"]
        elif path in ("/pause", "/resume"):
            self.paused = path == "/pause"
        return 200, {}

    def reload(self, folder):
        tensors = {name: weight for file in folder.glob("*.safetensors") for name, weight in load_file(file).items()}
        for name, parameter in named_parameters(self.model).items():
            if parameter.shape != tensors[hf_name(name)].shape:
                return 500, {"error": "Worker failed"}
            parameter.data.copy_(tensors[hf_name(name)])
        self.is_headless = False
        return 200, {"results": [None]}

    def complete(self, body):
        self.asked += 1
        if self.dies_after is not None and self.asked > self.dies_after:
            self.dead = True
            return None
        if self.is_headless:
            return 400, {"error": "Out of range float values are not JSON compliant"}
        ids = tuple(body["prompt"])
        if max(ids) >= self.window:
            return 400, {"error": f"Token id {max(ids)} is out of vocabulary"}
        native = NativeEngine(self.model)
        if "prompt_logprobs" in body:
            scores = native.score([ids])[0]
            given = [None, *({str(t): {"logprob": s, "rank": 1}} for t, s in zip(ids[1:], scores, strict=True))]
            return 200, {"choices": [{"prompt_logprobs": given}]}
        [[found]] = native.generate([Prompt(ids)], Sampling(body["max_tokens"], temperature=0))
        logprobs = {"token_logprobs": list(found.log_probs)}
        choice = {"finish_reason": found.finish_reason, "token_ids": list(found.ids), "logprobs": logprobs}
        return 200, {"choices": [choice]}


@pytest.fixture
def servers():
    servers = [SmallServer(), SmallServer()]
    yield servers
    for server in servers:
        if not server.thread.is_alive():
            continue
        server.stop()


@pytest.fixture(scope="module")
def models():
    return [create_model(GRPO_SHAPE, seed=seed) for seed in (0, 1)]


@pytest.fixture
def pool(servers, models):
    pool = ServerPool([server.url for server in servers])
    pool.attach(models[0])
    with pool:
        yield pool
    pool.close()


def assert_drawn_by(model, version, found):
    for one, two in zip(found, NativeEngine(model).generate(PROMPTS, GREEDY), strict=True):
        assert [c.ids for c in one] == [c.ids for c in two]
        assert [(c.prompt_index, c.weight_version) for c in one] == [(c.prompt_index, version) for c in two]


def probe_of(model):
    ids = (5, 6, 7, 8)
    return Probe(ids, tuple(NativeEngine(model).score([ids])[0]))


def test_questions_go_round_servers_that_have_the_pushed_weights(servers, pool, models):
    assert isinstance(pool, StagingEngine) and takes_weights(pool)
    for version, model in enumerate((*models, models[0])):
        pool.sync(weight_stream(model), version)
        pool.check(probe_of(model))
        before = [server.asked for server in servers]
        assert_drawn_by(model, version, pool.generate(PROMPTS, GREEDY, 60))
        assert [server.asked - b for server, b in zip(servers, before, strict=True)] == [3, 3]
    with pytest.raises(RuntimeError, match="differ from the trainer's by"):
        pool.check(probe_of(models[1]))


def test_a_head_that_has_no_numbers_yet_is_asked_after_the_first_push(servers, models):
    """vLLM started in this way on a folder with a tied head has a separate head."""
    for server in servers:
        server.is_headless = True
    pool = ServerPool([server.url for server in servers])
    pool.attach(models[0])
    with pool:
        pool.sync(weight_stream(models[0]), 0)
        assert_drawn_by(models[0], 0, pool.generate(PROMPTS, GREEDY, 60))
    pool.close()


def test_staged_weights_are_pushed_when_they_are_asked_for(pool, models):
    pool.stage(weight_stream(models[0]), 0)
    pool.stage(weight_stream(models[1]), 1)
    pool.sync(iter(()), 0)
    assert_drawn_by(models[0], 0, pool.generate(PROMPTS, GREEDY, 60))
    pool.sync(iter(()), 1)
    assert_drawn_by(models[1], 1, pool.generate(PROMPTS, GREEDY, 60))
    pool.sync(weight_stream(models[0]), 2)  # they were not staged
    pool.sync(weight_stream(models[1]), 2)  # averaged weights of the same step
    assert_drawn_by(models[1], 2, pool.generate(PROMPTS, GREEDY, 60))


def test_questions_of_a_server_that_dies_are_asked_elsewhere_and_it_may_come_back(servers, pool, models, caplog):
    caplog.set_level("INFO", "nbg_lightning")
    pool.sync(weight_stream(models[0]), 4)
    pool.check(probe_of(models[0]))
    servers[1].dies_after = servers[1].asked + 1
    assert_drawn_by(models[0], 4, pool.generate(PROMPTS, GREEDY, 60))
    assert "3 questions are asked again" in caplog.text
    servers[1].stop()
    pool.sync(weight_stream(models[1]), 5)  # it misses these
    assert_drawn_by(models[1], 5, pool.generate(PROMPTS, GREEDY, 60))
    servers[1].dies_after = None
    servers[1].start()  # with its own weights
    asked = servers[1].asked
    assert_drawn_by(models[1], 5, pool.generate(PROMPTS, GREEDY, 60))
    assert servers[1].asked > asked
    assert "takes questions again" in caplog.text
    assert caplog.text.count("its questions are asked elsewhere") == 1  # said once


def test_without_servers_every_answer_is_an_error_that_says_so(servers, pool, models):
    pool.sync(weight_stream(models[0]), 0)
    for server in servers:
        server.stop()
    found = pool.generate(PROMPTS, GREEDY, 60)
    assert {(c.finish_reason, bool(c.error)) for group in found for c in group} == {("error", True)}
    with pytest.raises(RuntimeError, match="no server takes the weights of step 1"):
        pool.sync(weight_stream(models[0]), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(routes=ROUTES[1:]),
            "has no /collective_rpc, by which it is given weights; start it by VLLM_SERVER_DEV_MODE=1",
        ),
        (dict(mode="raw_logprobs"), "gives raw_logprobs; start it with --logprobs-mode processed_logprobs"),
        (dict(window=200), "serves a model of another vocabulary"),
    ],
)
def test_servers_that_cannot_be_trained_with_are_refused(servers, models, change, message):
    vars(servers[0]).update(change)
    pool = ServerPool([servers[0].url])
    pool.attach(models[0])
    with pytest.raises(ValueError, match=message):
        pool.__enter__()
    pool.close()


def test_a_server_of_another_shape_is_refused_at_the_first_push(servers, pool, models):
    other = create_model(dataclasses.replace(GRPO_SHAPE, intermediate_size=2 * GRPO_SHAPE.intermediate_size))
    with pytest.raises(RuntimeError, match=r"HTTP 500: .*does it serve the model that is trained"):
        pool.sync(weight_stream(other), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"urls": []}, r"urls is invalid: \[\]"),
        ({"urls": ["http://a/v1", "http://a/v1/"]}, "give each server once"),
        ({"urls": ["http://a/v1"], "transfer": "smoke"}, "transfer is invalid: 'smoke'; choose files or nccl"),
        ({"urls": ["http://a/v1"], "dtype": "int8"}, "dtype is invalid: 'int8'; choose float32 or bfloat16"),
        ({"urls": ["http://a/v1"], "tolerance": -1.0}, "tolerance is invalid: -1.0; give nats above 0"),
        ({"urls": ["http://a/v1"], "tolerance": float("nan")}, "tolerance is invalid: nan"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        ServerPool(**settings)


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(servers, models, tmp_path):
    (tmp_path / "file").write_text("")
    pool = ServerPool([servers[0].url], folder=str(tmp_path / "file"))
    pool.attach(models[0])
    with pytest.raises(ValueError, match=r"folder is invalid: .*file cannot be written \(.*; give another"):
        pool.__enter__()
    assert pool._servers == []
    pool.close()


@pytest.mark.parametrize("shared", [True, False])
def test_a_folder_without_room_for_the_weights_is_refused_and_left_empty(tmp_path, monkeypatch, shared):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    huge = dataclasses.replace(GRPO_SHAPE, vocab_size=10**12)
    message = (
        r"folder is invalid: .* GB free, and 5 versions of the weights in bfloat16 take [\d,.]+; give one with room"
    )
    with pytest.raises(ValueError, match=message):
        WeightFiles(huge, str(tmp_path) if shared else None, 4, torch.bfloat16)
    assert list(tmp_path.iterdir()) == []


def test_weights_in_a_folder_are_whole_or_said_to_be_missing(tmp_path, models):
    files = WeightFiles(GRPO_SHAPE, str(tmp_path), 2)
    written = [files.write(weight_stream(models[0])) for _ in range(3)]
    assert all(problem is None for _, problem in written)
    assert [Path(folder).is_dir() for folder, _ in written] == [False, True, True]
    files.wait_for(written[2][0])
    assert {file.name for file in Path(written[2][0]).iterdir()} == {"config.json", "model-00001.safetensors"}

    def torn():
        yield from list(weight_stream(models[0]))[:2]
        raise OSError(28, "No space left on device")

    folder, problem = files.write(torn())
    assert "No space left on device" in problem and not Path(folder).exists()
    with pytest.raises(RuntimeError, match="No space left on device"):
        files.wait_for(folder)  # as another rank does
    files.close()
    assert list(tmp_path.iterdir()) == []
