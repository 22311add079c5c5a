import dataclasses
import json
from types import SimpleNamespace

import pytest

from nbg_lightning.callbacks import SampleTable
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, Prompt
from nbg_lightning.environments import End, Episode
from nbg_lightning.pages.rollouts import rollout_record
from nbg_lightning.rewards.protocol import RewardResult
from nbg_lightning.rl.rollouts import Rollout


def rollout(name, scores, text="an answer"):
    question = Question(({"role": "user", "content": f"what is {name}?"},), "42", "math")
    answers = tuple(
        Answer(Completion((1, 2), (), "stop", 0, i, 0), f"{text} {i}", None, f"{text} {i}") for i in range(len(scores))
    )
    results = tuple(
        RewardResult(None, "timeout", "slow") if s is None else RewardResult(s, detail="seen") for s in scores
    )
    return Rollout(question, Prompt((1,)), answers, results, tuple(s or 0.0 for s in scores), (True,) * len(scores))


@pytest.fixture
def trainer(tmp_path):
    return SimpleNamespace(global_step=0, is_global_zero=True, default_root_dir=str(tmp_path), loggers=[])


def run(table, trainer, rollouts, steps):
    module = SimpleNamespace(last_rollouts=rollouts)
    table.on_train_start(trainer, module)
    for step in steps:
        trainer.global_step = step
        table.on_train_batch_end(trainer, module, None, None, 0)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]


def test_groups_that_differ_come_first_with_their_best_and_worst(trainer, tmp_path):
    rollouts = [rollout("flat", [0.0, 0.0]), rollout("wide", [0.2, None, 1.0, 0.0, 0.5]), rollout("lost", [None, None])]
    run(SampleTable(num_groups=2, num_answers=3), trainer, rollouts, [1])
    first, second = lines(tmp_path)
    assert first["question"][0]["content"] == "what is wide?"
    assert second["question"][0]["content"] == "what is flat?"
    assert first["rewards"] == [0.2, None, 1.0, 0.0, 0.5]
    assert [answer["reward"] for answer in first["answers"]] == [1.0, 0.5, 0.0]
    assert first["answers"][0] == {
        "sample": 2, "text": "an answer 2", "reward": 1.0, "status": "ok", "detail": "seen", "advantage": 1.0,
        "trained": True, "tokens": 2, "finish_reason": "stop", "weight_version": 0,
    }  # fmt: skip
    assert first["gold"] == "42"


def test_the_first_step_and_every_so_many(trainer, tmp_path):
    run(SampleTable(every_n_steps=3), trainer, [rollout("x", [0.0, 1.0])], range(1, 8))
    assert [line["step"] for line in lines(tmp_path)] == [1, 3, 6]


def test_a_resumed_run_writes_over_what_came_after_its_checkpoint(trainer, tmp_path):
    run(SampleTable(every_n_steps=1), trainer, [rollout("x", [0.0, 1.0])], range(1, 6))
    with open(tmp_path / "rollouts.jsonl", "a") as stream:
        stream.write('{"step": 6, "torn')
    trainer.global_step = 3
    run(SampleTable(every_n_steps=1), trainer, [rollout("y", [0.0, 1.0])], [4, 5])
    found = [(line["step"], line["question"][0]["content"][8]) for line in lines(tmp_path)]
    assert found == [(1, "x"), (2, "x"), (3, "x"), (4, "y"), (5, "y")]


def test_an_answer_cannot_leave_its_cell():
    table = SampleTable(max_characters=20)
    text = table.table([table._record(rollout("x", [1.0, None], "a | b\n<script>" + "z" * 50), 1)])
    row = next(line for line in text.splitlines() if line.startswith("| 1 |"))
    assert row.replace("\\|", "").count("|") == 7
    assert "<script>" not in text
    assert "timeout" in text


def test_other_ranks_write_nothing(trainer, tmp_path):
    trainer.is_global_zero = False
    run(SampleTable(), trainer, [rollout("x", [0.0, 1.0])], [1])
    assert not (tmp_path / "rollouts.jsonl").exists()


def test_it_reaches_tensorboard(trainer, tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoardLogger(str(tmp_path), name="t", version="")
    trainer.loggers = [board]
    run(SampleTable(), trainer, [rollout("x", [0.0, 1.0])], [1])
    board.experiment.flush()
    events = EventAccumulator(str(tmp_path / "t")).Reload()
    (event,) = events.Tensors("rollouts/text_summary")
    assert b"what is x?" in event.tensor_proto.string_val[0]


def test_what_cannot_be(trainer):
    with pytest.raises(ValueError, match="num_groups is invalid: 0"):
        SampleTable(num_groups=0)
    with pytest.raises(ValueError, match="SimpleNamespace has none"):
        SampleTable().setup(trainer, SimpleNamespace(), "fit")


def test_episodes_have_their_turns_in_the_file(trainer, tmp_path):
    messages = (
        {"role": "user", "content": "Guess."},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Larger."},
        {"role": "assistant", "content": "5"},
    )
    answers = tuple(
        Episode(Completion((1, 2), (), "stop", 0, i, 0), "the whole", None, "5", End.ANSWERED, (), messages, (), (0.0, score),
                score, "", {}, ({"guesses": 1}, {"guesses": 1}))
        for i, score in enumerate((0.0, 1.0))
    )  # fmt: skip
    question = Question((messages[0],), "5", "game")
    results = (RewardResult(0.0), RewardResult(1.0))
    rollouts = [Rollout(question, Prompt((1,)), answers, results, (-1.0, 1.0), (True, True))]
    run(SampleTable(), trainer, rollouts, [1])
    best = lines(tmp_path)[0]["answers"][0]
    assert best["end"] == "answered" and best["text"] == "the whole"
    assert best["turns"] == [
        {"role": "assistant", "content": "4", "turn": 0, "score": 0.0, "counts": {"guesses": 1}},
        {"role": "user", "content": "Larger."},
        {"role": "assistant", "content": "5", "turn": 1, "score": 1.0, "counts": {"guesses": 1}},
    ]
    shown = rollout_record(lines(tmp_path)[0])  # as `nbg view` and the report read it
    turns = shown.answers[0].turns
    assert [(turn.pieces[0].text, turn.pieces[0].weight) for turn in turns] == [
        ("4", 1.0),
        ("Larger.", 0.0),
        ("5", 1.0),
    ]
    assert turns[2].role == "assistant, turn 2, score 1, guesses 1"
    assert [answer.score for answer in shown.answers] == [1.0, 0.0] and ("advantage", "+1.000") in shown.answers[
        0
    ].facts
    of_turns = [dataclasses.replace(rollouts[0], turn_advantages=((-1.0, -2.0), (0.5, 1.5)))]
    run(SampleTable(), trainer, of_turns, [1])
    turns = [turn for answer in lines(tmp_path)[-1]["answers"] for turn in answer["turns"]]
    assert [turn.get("advantage") for turn in turns] == [0.5, None, 1.5, -1.0, None, -2.0]
