"""`nbg pass-rate` on a real model: measure, reuse, resume after a kill, split the work, and train on the kept questions."""

import dataclasses
import json
import os
import signal
import sys
import time

import pytest
import yaml

from nbg_lightning.rl.pass_rate import PassRateBand, PassRateLedger, part_file
from nbg_lightning.testing.json_server import json_server

REWARD = '''
"""A reward for tests: an answer is right if its first token is one of the first half of the vocabulary's ids."""

import os
import time

from nbg_lightning.rewards.protocol import Reward, RewardResult


class FirstHalf(Reward):
    name = "first_half"

    def __init__(self, border: int = 150, refuse: str = ""):
        self.border, self.refuse = border, refuse

    def check(self, question):
        asked = question.messages[-1]["content"]
        return f"cannot judge {asked!r}" if self.refuse and self.refuse in asked else None

    def score(self, groups):
        time.sleep(float(os.environ.get("SLOW_REWARD", 0)))
        return [
            [RewardResult(float(answer.completion.ids[0] < self.border)) for answer in group.answers] for group in groups
        ]
'''


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    """A module of the user's, which YAML names."""
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "own_rewards.py").write_text(REWARD)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("own_rewards", None)


@pytest.fixture
def config(workshop, run, tmp_path, rewards):
    """A GRPO stage of 24 questions."""
    checkpoint = str(run / "checkpoints" / "step-00000006")
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"what is {n} ?", "answer": n}) + "\n" for n in range(24)))
    content = {
        "seed": 0,
        "model": {
            "class_path": "nbg_lightning.modules.grpo.GRPOModule",
            "init_args": {
                "base_weights": checkpoint,
                "parallel": {"compute_dtype": "float32"},
                "reward": {"class_path": "own_rewards.FirstHalf"},
                "group_size": 4,
                "loss": {"name": "grpo", "mask_truncated": False},
                "max_new_tokens": 4,
            },
        },
        "data": {
            "class_path": "nbg_lightning.PromptDataModule",
            "init_args": {
                "tokenizer": checkpoint,
                "prompts_per_step": 4,
                "steps": 2,
                "ledger": str(tmp_path / "pass.parquet"),
                "data_dir": str(tmp_path / "data"),
                "sources": {
                    "asked": {
                        "class_path": "nbg_lightning.data.QuestionJsonLines",
                        "init_args": {"path": str(questions)},
                    }
                },
            },
        },
        "trainer": {
            "default_root_dir": str(tmp_path / "run"),
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "callbacks": [
                {"class_path": "nbg_lightning.WarmupDecay", "init_args": {"lr": 0.01}},
                {"class_path": "nbg_lightning.Sentinel"},
                {"class_path": "nbg_lightning.SampleTable"},
            ],
        },
    }

    def write(change=None, name="config.yaml"):
        if change is not None:
            change(content)
        (tmp_path / name).write_text(yaml.safe_dump(content, sort_keys=False))
        return str(tmp_path / name)

    return write


def test_measure_reuse_and_train_on_what_is_kept(workshop, config, tmp_path):
    file = tmp_path / "pass.parquet"
    result = workshop.nbg("pass-rate", config(), "--n", "16")
    assert result.code == 0, result.err
    assert "24 questions, 16 answers each" in result.out
    assert "0.1 < pass rate < 0.9 keeps" in result.out
    ledger = PassRateLedger.load(file)
    assert len(ledger) == 24
    assert all((row.n, row.errors) == (16, 0) for row in ledger)
    assert ledger.about["sampling"]["max_new_tokens"] == 4
    assert ledger.about["reward"] == {"class_path": "own_rewards.FirstHalf"}
    written = file.stat().st_mtime_ns
    again = workshop.nbg("pass-rate", config(), "--n", "16")
    assert "nothing is drawn" in again.out
    assert file.stat().st_mtime_ns == written
    kept = sum(row.rate in PassRateBand() for row in ledger)
    assert kept >= 4, "the untrained model's answers are of both kinds"
    fitted = workshop.nbg("fit", "--config", config())
    assert fitted.code == 0, fitted.err
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()
    (line, *_) = (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()
    assert len(json.loads(line)["answers"]) == 4
    # The next stage starts from other weights: the ledger is measured again.
    after = str(tmp_path / "run" / "checkpoints" / "step-00000002")
    result = workshop.nbg("pass-rate", config(), "--n", "16", "--weights", after, "--output", tmp_path / "pass.parquet")
    assert result.code == 0, result.err
    assert "nothing is drawn" not in result.out
    assert PassRateLedger.load(file).about["fingerprint"] != ledger.about["fingerprint"]


def test_nothing_left_is_an_error_with_the_histogram(workshop, config):
    path = config(lambda c: c["model"]["init_args"]["reward"].update(init_args={"border": 0}))
    assert workshop.nbg("pass-rate", path, "--n", "4").code == 0
    result = workshop.nbg("fit", "--config", path)
    assert result.code == 2
    assert "0 questions are left" in result.err
    assert "pass rates 0: 24" in result.err
    assert "give easier ones" in result.err


def test_a_kill_loses_little_and_changes_nothing(workshop, config, tmp_path, rewards):
    path, file = config(), tmp_path / "pass.parquet"
    options = ("--n", "4", "--prompts-per-call", "4")
    environment = {"PYTHONPATH": str(rewards)}
    process = workshop.start("pass-rate", path, *options, SLOW_REWARD="0.5", **environment)
    part = part_file(file, 0)
    end = time.monotonic() + 60
    while not (part.is_file() and len(part.read_text().splitlines()) >= 9):  # the header and two calls
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(part.read_text().splitlines()) - 1
    assert 8 <= done < 24
    with open(part, "a") as stream:
        stream.write('{"key": "to')  # as a kill in the middle of a write leaves it
    result = workshop.finish(workshop.start("pass-rate", path, *options, **environment))
    assert result.code == 0, result.err
    assert f"{done} of 24 questions were measured before" in result.err
    straight = workshop.nbg("pass-rate", path, *options, "--output", tmp_path / "straight.parquet")
    assert straight.code == 0, straight.err
    killed, whole = PassRateLedger.load(file), PassRateLedger.load(tmp_path / "straight.parquet")
    assert list(map(dataclasses.asdict, killed)) == list(map(dataclasses.asdict, whole))
    assert not part.exists()


def test_two_processes_share_the_questions(workshop, config, tmp_path, rewards):
    path = config()
    first = workshop.nbg("pass-rate", path, "--n", "4", "--part", "0/2")
    assert first.code == 0, first.err
    assert not (tmp_path / "pass.parquet").exists()
    # As torchrun starts it.
    environment = {"PYTHONPATH": str(rewards), "RANK": "1", "WORLD_SIZE": "2"}
    second = workshop.finish(workshop.start("pass-rate", path, "--n", "4", **environment))
    assert second.code == 0, second.err
    assert "24 questions, 4 answers each" in second.out
    straight = workshop.nbg("pass-rate", path, "--n", "4", "--output", tmp_path / "straight.parquet")
    assert straight.code == 0, straight.err
    shared = PassRateLedger.load(tmp_path / "pass.parquet")
    assert shared.rows == PassRateLedger.load(tmp_path / "straight.parquet").rows


def test_questions_that_the_reward_cannot_score(workshop, config, tmp_path):
    path = config(lambda c: c["model"]["init_args"]["reward"].update(init_args={"refuse": "what is 1"}))
    result = workshop.nbg("pass-rate", path, "--n", "4")
    assert result.code == 2
    assert "11 of 24 questions cannot be scored; first, of source 'asked': cannot judge 'what is 1 ?'" in result.err
    path = config(lambda c: c["data"]["init_args"].update(on_invalid="drop", pass_rate={"low": 0.0, "high": 1.0}))
    result = workshop.nbg("pass-rate", path, "--n", "16")
    assert result.code == 0, result.err
    rows = list(PassRateLedger.load(tmp_path / "pass.parquet"))
    assert sorted(row.n for row in rows) == [0] * 11 + [16] * 13
    assert "nothing is drawn" in workshop.nbg("pass-rate", path, "--n", "16").out


WRONG = {
    "no ledger": (lambda c: c["data"]["init_args"].pop("ledger"), (), "no data.init_args.ledger"),
    "no weights": (lambda c: c["model"]["init_args"].pop("base_weights"), (), "no model.init_args.base_weights"),
    "no reward": (lambda c: c["model"]["init_args"].pop("reward"), (), "no model.init_args.reward"),
    "unknown reward": (
        lambda c: c["model"]["init_args"].update(reward={"class_path": "own_rewards.Nothing"}),
        (),
        "model.init_args.reward: .*Nothing",
    ),
    "no length": (lambda c: c["model"]["init_args"].pop("max_new_tokens"), (), "give --max-new-tokens"),
    "no questions": (
        lambda c: c["data"].update(class_path="nbg_lightning.ChatDataModule"),
        (),
        "data: ",
    ),
    "no data": (lambda c: c.pop("data"), (), "no data.class_path"),
    "part": (lambda c: None, ("--part", "2/2"), "give I/K"),
    "engine": (lambda c: None, ("--engine", "fast"), "give local, vllm, or a YAML file"),
    "suffix": (lambda c: None, ("--output", "rates.json"), "ledger is invalid: rates.json"),
    "weights": (lambda c: None, ("--weights", "/nowhere/at/all"), "does not exist"),
}


@pytest.mark.parametrize(("change", "options", "problem"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_said_in_one_line(workshop, config, change, options, problem):
    import re

    result = workshop.nbg("pass-rate", config(change), *options)
    assert result.code == 2, result.out
    assert re.search(problem, result.err), result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_server_may_answer(workshop, config, tmp_path):
    """A stub of a chat endpoint: its answers are texts, and the reward reads those."""

    def answer(path, asked):
        number = asked["messages"][0]["content"].split()[2]
        text = number if asked["seed"] % 2 else "no"
        return {"choices": [{"finish_reason": "stop", "message": {"content": f"The answer is {text}."}}]}

    with json_server(answer) as url:
        engine = {
            "class_path": "nbg_lightning.engines.ServerEngine",
            "init_args": {
                "url": url,
                "model": "m",
                "interface": "chat",
                "api_key": "s3cret",
            },
        }
        math = {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"workers": 1}}
        path = config(lambda c: c["model"]["init_args"].update(reward=math))
        result = workshop.nbg("pass-rate", path, "--n", "8", "--engine", json.dumps(engine))
        assert result.code == 0, result.err
        ledger = PassRateLedger.load(tmp_path / "pass.parquet")
        assert all(row.errors == 0 for row in ledger)
        assert b"s3cret" not in (tmp_path / "pass.parquet").read_bytes()
        assert "127.0.0.1" in ledger.about["fingerprint"]
        assert 0.3 < sum(row.passes for row in ledger) / (24 * 8) < 0.7


@pytest.mark.slow
@pytest.mark.vllm
def test_vllm_gives_the_same_greedy_pass_rates(workshop, config, tmp_path, rewards):
    path = config()
    options = ("--n", "1", "--temperature", "0", "--dtype", "float32")
    ours = workshop.nbg("pass-rate", path, *options, "--output", tmp_path / "local.parquet")
    assert ours.code == 0, ours.err
    process = workshop.start(
        "pass-rate", path, *options, "--engine", "vllm", "--output", tmp_path / "vllm.parquet", PYTHONPATH=str(rewards)
    )
    result = workshop.finish(process, timeout=400)
    assert result.code == 0, result.err
    local, vllm = (PassRateLedger.load(tmp_path / f"{name}.parquet") for name in ("local", "vllm"))
    assert local.rows == vllm.rows
