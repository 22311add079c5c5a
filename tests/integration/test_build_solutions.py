"""The builders of solutions, reasoning, problems and chains by command and YAML file, also when killed."""

import http.server
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from nbg_lightning.commands.table import own_command

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = CONFIGS / "construction"


class ScriptedServer:
    """An OpenAI-compatible server that answers builders' questions, and remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.delay = 0.0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self._send({"data": [{"id": "scripted"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][0]["content"]
                time.sleep(owner.delay)
                owner.asked.append((text, body["seed"]))
                answer = {"finish_reason": "stop", "message": {"content": answer_to(text, body["seed"])}}
                self._send({"choices": [answer]})

            def _send(self, content):
                data = json.dumps(content).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # who asked was killed

            def log_message(self, *_):
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def answer_to(text, seed):
    """Drafts are 3 + a digit of the seed; evaluators give what the draft says."""
    if text.startswith("Write a checklist"):
        return "- [correctness] It is right.\n- [completeness] It is all.\n- [safety] It is harmless."
    if text.startswith("Judge the answer"):
        points = min(9, int(re.search(r"Answer:\nThe answer is (\d+)", text)[1]))
        return f"1: {points}\n2: {points}\n3: {points}\nCritique: {'?' * (seed % 3)} more"
    if text.startswith("Rewrite the answer"):
        return f"The answer is {int(re.search(r'The answer is ([0-9]+)', text)[1]) + 1}."
    if text.endswith("Do not mention the solution or the summary."):
        number = re.search(r"Solution:\nThe answer is (\d+)", text)[1]
        return (
            f"Let me think about this question for a while, with all the care that it deserves. The answer is {number}."
        )
    if text.startswith("Here are a question and its solution"):
        return "It thinks and answers."
    return f"The answer is {3 + seed % 4}."


@pytest.fixture(scope="module")
def server():
    found = ScriptedServer()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def refinement(server, workshop, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(24)))
    engine = {"class_path": "nbg_lightning.engines.ServerEngine", "init_args": {"url": server.url, "interface": "chat"}}
    settings = {
        "out": str(tmp_path / "refined"),
        "models": {"scripted": {"engine": engine}},
        "questions": {
            "file": {"class_path": "nbg_lightning.data.QuestionJsonLines", "init_args": {"path": str(questions)}}
        },
        "drafters": ["scripted"],
        "evaluators": ["scripted"],
        "reviser": "scripted",
        "items_per_batch": 4,
        "rounds": 5,
        "threshold": 8,
    }
    server.asked.clear()
    server.delay = 0.0
    return workshop.write("refinement.yaml", settings)


def read(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_refined_then_reasoned(workshop, server, refinement, tmp_path):
    result = workshop.nbg("build-refinements", "--config", refinement)
    assert result.code == 0, result.err
    assert "kept" in result.out
    refined = read(tmp_path / "refined" / "refined.jsonl")
    assert len(refined) == 24
    assert {row["refinement"]["stop"] for row in refined} == {"threshold"}
    engine = {"class_path": "nbg_lightning.engines.ServerEngine", "init_args": {"url": server.url, "interface": "chat"}}
    source = {
        "class_path": "nbg_lightning.data.ChatJsonLines",
        "init_args": {"path": str(tmp_path / "refined" / "refined.jsonl")},
    }
    settings = {
        "out": str(tmp_path / "reasoning"),
        "models": {"scripted": {"engine": engine}},
        "conversations": {"refined": source},
        "completer": "scripted",
        "reward": {"class_path": "nbg_lightning.rewards.MathReward"},
        "minimum_words": 10,
    }
    result = workshop.nbg("build-reasoning", "--config", workshop.write("reasoning.yaml", settings))
    assert result.code == 0, result.err
    rows = read(tmp_path / "reasoning" / "reasoning.jsonl")
    assert len(rows) == 24
    assert all(row["messages"][-1]["reasoning_content"].startswith("Let me think") for row in rows)
    manifest = json.loads((tmp_path / "reasoning" / "manifest.json").read_text())
    assert manifest["settings"]["reward"]["class"] == "nbg_lightning.rewards.math.MathReward"


def test_killed_again_and_again(workshop, server, refinement, tmp_path):
    """Nothing that was kept is asked again, and the output is that of a build that was never killed."""
    result = workshop.nbg("build-refinements", "--config", refinement, "--out", str(tmp_path / "whole"))
    assert result.code == 0, result.err
    whole = len(server.asked)
    server.asked.clear()
    server.delay = 0.03
    out = tmp_path / "killed"
    for _ in range(3):
        process = workshop.start("build-refinements", "--config", refinement, "--out", out)
        before = len(server.asked)
        end = time.monotonic() + 60
        while len(server.asked) < before + 25 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    time.sleep(0.2)
    server.delay = 0.0
    # Half a line is what a machine that goes down may leave.
    with (out / "answers.jsonl").open("a") as lines:
        lines.write('{"key": "half')
    kept = {row["key"] for row in map(json.loads, (out / "answers.jsonl").read_text().splitlines()[:-1])}
    before = len(server.asked)
    result = workshop.finish(workshop.start("build-refinements", "--config", refinement, "--out", out))
    assert result.code == 0, result.err
    assert len(server.asked) - before == whole - len(kept)
    assert 0 < len(kept) < whole
    for name in ("refined", "traces"):
        assert (out / f"{name}.jsonl").read_bytes() == (tmp_path / "whole" / f"{name}.jsonl").read_bytes()
    keys = [row["key"] for row in read(out / "answers.jsonl")]
    assert len(keys) == len(set(keys)) == whole


def test_problems_from_a_module(workshop, tmp_path):
    code = {
        "class_path": "nbg_lightning.construction.ModuleFunctions",
        "init_args": {"modules": ["statistics"], "maximum_program_lines": 15},
    }
    config = workshop.write("problems.yaml", {"code": {"statistics": code}})
    options = ["--out", tmp_path / "out", "--mutants", 6, "--minimum_mutation_score", 0.3, "--limit", 2]
    tiny = TINY / "problems-tiny.yaml"
    result = workshop.nbg("build-problems", "--config", tiny, "--config", config, *options)
    assert result.code == 0, result.err
    assert "mutation scores" in result.out
    assert {row["data"]["origin"] for row in read(tmp_path / "out" / "problems.jsonl")} <= {
        "statistics.median",
        "statistics.median_low",
    }


def test_chains_are_trained_on(workshop, run, tmp_path):
    """`nbg build-chains`, and two steps of the config that trains on what it made."""
    chains = tmp_path / "chains"
    source = {
        "class_path": "nbg_lightning.data.ReasoningGymChat",
        "init_args": {"tasks": ["gsm_symbolic"], "count": 60},
    }
    result = workshop.nbg(
        "build-chains",
        "--config",
        TINY / "chains-tiny.yaml",
        "--out",
        chains,
        "--conversations",
        json.dumps({"w": source}),
    )
    assert result.code == 0, result.err
    checkpoint = str(run / "checkpoints" / "step-00000006")
    data = {
        "tokenizer": checkpoint,
        "sources": {
            "chains": {
                "class_path": "nbg_lightning.data.ChatJsonLines",
                "init_args": {"path": str(chains / "chains.jsonl")},
            }
        },
        "sequence_length": 4096,
        "data_dir": str(tmp_path / "data"),
        "validation_fraction": 0.2,
        "prepare_workers": 0,
        "num_workers": 0,
    }
    override = workshop.write(
        "small-chains.yaml",
        {
            "model": {"init_args": {"base_weights": checkpoint}},
            "data": {"init_args": data},
            "trainer": {"default_root_dir": str(tmp_path / "sft"), "max_steps": 2, "limit_val_batches": 1},
        },
    )
    result = workshop.nbg("fit", "--config", CONFIGS / "sft" / "chain_completion-tiny.yaml", "--config", override)
    assert result.code == 0, result.err
    assert (tmp_path / "sft" / "checkpoints" / "step-00000002").is_dir()


@pytest.mark.parametrize("size", ["", "-tiny"])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("refinement", "build-refinements"),
        ("reasoning", "build-reasoning"),
        ("problems", "build-problems"),
        ("chains", "build-chains"),
    ],
)
def test_every_config_parses(name, command, size):
    """Settings are known and of their type; nothing is made of them."""
    parser = own_command(command).parser()
    path = TINY / f"{name}{size}.yaml"
    assert f"nbg {command} --config configs/construction/{path.name}" in path.read_text()
    config = parser.parse_args(["--config", str(path)])
    assert config.out == yaml.safe_load(path.read_text())["out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --config FILE"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config", "REFINEMENT", "--thresold", "8"], "thresold"),
        (["--config", "REFINEMENT", "--threshold", "90"], "threshold is invalid: 90"),
        (["--config", "REFINEMENT", "--reviser", "nobody"], "reviser is invalid: 'nobody'"),
        (["--config", "REFINEMENT", "--questions.file.init_args.path", "/no/where.jsonl"], "/no/where.jsonl"),
    ],
)
def test_errors_are_one_line(workshop, refinement, options, message):
    options = [refinement if option == "REFINEMENT" else option for option in options]
    result = workshop.nbg("build-refinements", *options)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1, result.err
