"""A judge server killed during GRPO: its judgements count, the rest is counted as failed, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from typing_extensions import override

from nbg_lightning.engines.server import ServerEngine
from nbg_lightning.rewards import CombinedReward, PairwisePreferenceReward
from nbg_lightning.testing.grpo import EvenReward, SmallGRPORun, small_tokenizer, train_small_grpo

SERVER = """
import itertools, json, os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

limit, served = int(sys.argv[1]), itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"data": [{"id": "judge"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        if next(served) > limit:
            os.kill(os.getpid(), signal.SIGKILL)
        first, second = asked.split("<|answer A|>")[1].split("<|answer B|>")
        verdict = "A" if first.strip() > second.strip() else "B"
        self.answer({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": verdict}}]})


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
STEP = 4 * 4 * 2  # requests: of 4 questions the 4 pairs of neighbours, each in both places


@contextmanager
def judge_server(limit: int, port: int = 0) -> Iterator[int]:
    """A server that prefers the later text, and is gone, like one whose machine is, at a request beyond the limit."""
    line = [sys.executable, "-c", SERVER, str(limit), str(port)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tokenizer(tmp_path_factory.mktemp("small"))


def train(folder: Path, tokenizer: Path, port: int, combined: bool, **options: Any) -> SmallGRPORun:
    judge = ServerEngine(f"http://127.0.0.1:{port}/v1", "judge", "chat", retries=1, pause=0.01, concurrency=1)
    preference = PairwisePreferenceReward(judge, opponents=2)
    reward = CombinedReward([EvenReward(), preference]) if combined else preference
    return train_small_grpo(folder, tokenizer=tokenizer, reward=reward, steps=4, **options)


class Errors(pl.Callback):
    """The share of answers without a score, of each finished step."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.shares.append(float(trainer.callback_metrics["rollout/errors"]))


@pytest.mark.parametrize("combined", [False, True], ids=["alone", "in a sum"])
def test_a_run_whose_judge_dies_saves_and_says_so_and_goes_on(tmp_path: Path, tokenizer: Path, combined: bool) -> None:
    errors = Errors()
    why = r"no answer of step 2 has a score, the first because: error: .*the judge did not finish .*\(tried 2 times\)"
    with judge_server(STEP + STEP // 2) as port, pytest.raises(RuntimeError, match=why) as caught:
        train(tmp_path, tokenizer, port, combined, callbacks=[errors])
    assert "\n" not in str(caught.value) and "fix the reward and resume" in str(caught.value)
    whole, torn = errors.shares  # it died in the second step, which trained what was judged
    assert whole == 0 and 0 < torn < 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    with judge_server(10**6) as port:
        resumed = train(tmp_path, tokenizer, port, combined, resume="last")
    assert resumed.column("rollout/errors") == [0.0, 0.0]
