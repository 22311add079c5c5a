"""A folder with text, a config and prepared data, shared by the command-line tests."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from nbg_lightning.testing import free_port

WORDS = [
    "the",
    "a",
    "model",
    "learns",
    "from",
    "text",
    "data",
    "and",
    "code",
    "with",
    "many",
    "stages",
    "of",
    "rising",
    "quality",
]


def documents(count, seed):
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(5, 60))).capitalize() + "." for _ in range(count)]


def config(folder):
    """Six steps in three stages, the last of which asks for no whole number of steps."""

    def source(name, label):
        path = str(folder / "texts" / f"{name}.jsonl")
        return {"class_path": "nbg_lightning.data.JsonLines", "init_args": {"path": path, "label": label}}

    stages = [
        {"name": "warmup", "tokens": 1024, "lr": [0, 0.01], "mixture": {"web": 1}},
        {"name": "stable", "tokens": 1024, "lr": 0.01, "mixture": {"web": 1, "qa": 1}},
        {
            "name": "decay",
            "tokens": 1100,
            "lr": [0.01, 0],
            "mixture": {"qa": 1},
            "sequence_length": 128,
            "rope_theta": 5e4,
        },
    ]
    table = {"tokens_per_step": 512, "sequence_length": 64, "stages": stages}
    return {
        "seed": 0,
        "model": {
            "class_path": "nbg_lightning.PretrainModule",
            "init_args": {"core": "nano", "parallel": {"compute_dtype": "float32"}, "micro_batch_tokens": 256},
        },
        "data": {
            "class_path": "nbg_lightning.CurriculumDataModule",
            "init_args": {
                "sources": {"web": source("web", "MQ"), "qa": source("qa", "HQ")},
                "tokenizer": {"train_vocab_size": 300, "train_bytes": "1M"},
                "data_dir": str(folder / "prepared"),
                "validation_fraction": 0.05,
                "validation_tokens": 1024,
                "num_workers": 0,
                "prepare_workers": 0,
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "val_check_interval": 2,
            "default_root_dir": str(folder / "run"),
            "callbacks": [
                {"class_path": "nbg_lightning.FGWSD", "init_args": table},
                {"class_path": "nbg_lightning.StepCheckpoint", "init_args": {"every_n_steps": 2, "keep": 9}},
                {"class_path": "nbg_lightning.callbacks.StageTable"},
            ],
        },
    }


@dataclass
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


class Workshop:
    """Runs `nbg` on the shared data, in this process or in one of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.config = config(folder)
        for seed, (name, count) in enumerate((("web", 300), ("qa", 100))):
            path = folder / "texts" / f"{name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents(count, seed)))
        self.yaml = self.write("config.yaml", self.config)

    def write(self, name, content):
        """A YAML file in the workshop."""
        path = Path(self.folder / name)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    def changed(self, name, change):
        """The config with a change made by a function."""
        changed = yaml.safe_load(Path(self.yaml).read_text())
        change(changed)
        return self.write(name, changed)

    def nbg(self, *arguments):
        """Run in this process: an import of torch is enough."""
        from nbg_lightning.cli import main

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = stop.code or 0
        return Result(code, out.getvalue(), err.getvalue())

    def fit(self, run, *arguments, config=None):
        return self.nbg("fit", "--config", config or self.yaml, "--trainer.default_root_dir", run, *arguments)

    def start(self, *arguments, **environment):
        """Run in a process of its own, as a user does."""
        # What a trainer in this process has left for its children is not for those of a test.
        left = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE", "PL_GLOBAL_SEED")
        inherited = {name: value for name, value in os.environ.items() if name not in left}
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("nbg")), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
            env={**inherited, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
        )

    def finish(self, process, timeout=120):
        out, err = process.communicate(timeout=timeout)
        return Result(process.returncode, out, err)

    @staticmethod
    def table(run):
        """What `StageTable` saved."""
        return json.loads((Path(run) / "stages.json").read_text())

    @staticmethod
    def meta(run, step=6):
        """The plain part of a checkpoint."""
        return torch.load(Path(run) / "checkpoints" / f"step-{step:08d}" / "meta.pt", weights_only=True)

    def chain(self, run, step=6):
        return next(v["chain"] for v in self.meta(run, step).values() if isinstance(v, dict) and "chain" in v)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def run(workshop):
    """The folder of a whole run of the config, in this process."""
    folder = workshop.folder / "run"
    result = workshop.fit(folder)
    assert result.code == 0, result.err
    return folder


class VLLMServer:
    """A real vLLM server of a folder on a loopback port, which may be killed and started again; some 30 s until it answers."""

    def __init__(self, folder, *arguments, **environment):
        port = free_port()
        self.root, self.log = f"http://127.0.0.1:{port}", Path(folder) / f"server-{port}.txt"
        self.environment = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        # What `vllm serve` runs; the CPU package's own command does not start: it looks up the other package.
        self.command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        self.command += [
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--dtype",
            "float32",
            "--enforce-eager",
            *arguments,
        ]
        self.start()

    @property
    def url(self):
        return f"{self.root}/v1"

    def start(self):
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                self.command, stdout=stream, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )

    def wait(self):
        """Until it answers."""
        end = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"{self.root}/health", timeout=2).close()
                return self
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-4000:]
                time.sleep(0.25)

    def kill(self):
        """As the kernel does it, with the processes that it has started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@contextlib.contextmanager
def serving(folder, *arguments):
    """The address of a `VLLMServer`, as long as the block runs."""
    server = VLLMServer(folder, *arguments)
    try:
        yield server.wait().url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def vllm_server():
    """`VLLMServer`, for tests."""
    return VLLMServer


@pytest.fixture(scope="session")
def serve():
    """`serving`, for tests."""
    return serving
