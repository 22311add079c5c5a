"""Asynchronous rollouts: which weights generate them, what a ledger records, replay, resuming, and failures."""

import gc
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest

from nbg_lightning import stopping
from nbg_lightning.engines.local import LocalEngine
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.modules.grpo import GRPOModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rl.ledger import FOLDER, RolloutLedger
from nbg_lightning.rl.rollout_settings import RolloutSettings, rollouts_apart
from nbg_lightning.testing.grpo import GRPO_SHAPE, EvenReward, small_tokenizer, train_small_grpo
from nbg_lightning.testing.staged import StagedNative, same_weights, versions


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture
def train(tmp_path, tokenizer):
    def run(name="run", engine=None, rollouts=None, module_options=None, **options):
        own = {"rollouts": RolloutSettings(**(rollouts or {})), **(module_options or {})}
        own |= {} if engine is None else {"engine": engine}
        return train_small_grpo(tmp_path / name, tokenizer=tokenizer, module_options=own, **options)

    return run


@pytest.fixture(scope="module")
def ahead(tmp_path_factory, tokenizer):
    """The folder and the record of a run whose engine has its own process."""
    folder = tmp_path_factory.mktemp("ahead")
    options = {"rollouts": RolloutSettings(max_staleness=1)}
    return folder, train_small_grpo(folder, tokenizer=tokenizer, steps=4, module_options=options)


# -- one step ahead ----------------------------------------------------------------------------------------------------


def test_answers_are_drawn_one_step_ahead_and_said_to_be(ahead):
    _, run = ahead
    assert versions(run) == [{0}, {0}, {1}, {2}]
    assert run.column("rollout/staleness") == [0.0, 1.0, 1.0, 1.0]
    assert run.column("rollout/dropped") == [0.0] * 4
    for step in run.metrics:
        assert {"time/trainer_idle", "time/engine_idle", "time/engine", "time/reward", "time/sync"} <= step.keys()
    assert run.metrics[0]["policy/p99_ratio"] < 1.01 < run.metrics[-1]["policy/p99_ratio"]  # other weights drew them


def test_its_ledger_has_every_answer_with_its_weights(ahead):
    folder, run = ahead
    ledger = RolloutLedger.at(folder)
    assert ledger.steps() == {0, 1, 2, 3} and ledger.about["settings"]["group_size"] == 4
    for step, rollouts in enumerate(run.rollouts):
        rows = ledger.rows(step)
        answers = [answer for rollout in rollouts for answer in rollout.answers]
        assert [tuple(row["ids"]) for row in rows] == [answer.completion.ids for answer in answers]
        assert [tuple(row["log_probs"]) for row in rows] == [answer.completion.log_probs for answer in answers]
        assert [row["score"] for row in rows] == [result.score for r in rollouts for result in r.results]
        assert all(row["weight_versions"] == [max(0, step - 1)] for row in rows)
        assert all(row["segment_tokens"] == [len(row["ids"])] for row in rows)
        assert all(row["drawn_from"] <= row["drawn_to"] <= row["scored_at"] for row in rows)
        assert {row["question"] for row in rows} == {r.question.messages[-1]["content"] for r in rollouts}
    lines = [json.loads(line) for line in (folder / FOLDER / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3] and all(line["asked"] <= line["had"] for line in lines)


def test_a_replay_trains_the_same_weights_without_an_engine(ahead, train):
    folder, run = ahead
    engine = StagedNative(dies_in={1})
    again = train(rollouts={"replay": str(folder)}, steps=4, engine=engine)
    same_weights(run, again)
    assert again.scores == run.scores and engine.calls == 0
    names = ("train/grad_norm", "policy/mismatch_kl", "rollout/staleness")
    assert all(again.column(name) == run.column(name) for name in names)


def test_no_staleness_is_the_run_in_turn_with_and_without_a_ledger(train, tmp_path):
    plain = train("plain", steps=3)
    kept = train("kept", steps=3, rollouts={"ledger": True})
    assert versions(kept) == [{0}, {1}, {2}] and not (tmp_path / "plain" / FOLDER).exists()
    same_weights(plain, kept)
    same_weights(plain, train("replayed", steps=3, rollouts={"replay": str(tmp_path / "kept" / FOLDER)}))


class Resting(NativeEngine):
    """Has no weights from `rest` to `sync`; notes both."""

    def __init__(self):
        super().__init__()
        self.calls, self.asleep = [], True

    def rest(self):
        self.calls.append("rest")
        self.asleep = True
        return True

    def sync(self, weights, version):
        self.calls.append(version)
        self.asleep = False
        super().sync(weights, version)

    def generate(self, prompts, sampling, deadline=None):
        assert not self.asleep
        return super().generate(prompts, sampling, deadline)


def test_an_engine_on_the_trainers_gpu_rests_while_the_trainer_updates(train):
    """It is woken with the new weights, and for validation with those of the step before."""
    engine = Resting()
    held_out = {"validation_fraction": 0.3, "validation_prompts": 4}
    options = {"data_options": held_out, "limit_val_batches": 1.0, "val_check_interval": 2}
    rested = train("rested", engine, steps=3, **options)
    assert engine.calls == [0, "rest", 1, "rest", 2, "rest"]
    same_weights(rested, train("awake", steps=3, data_options=held_out))


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2])
def test_a_resumed_run_is_the_straight_one(train, tmp_path, k):
    """Answers that were under way are in the ledger; the weights that drew them are gone."""
    rollouts = {"max_staleness": k}
    straight = train("straight", StagedNative(), rollouts, steps=5)
    assert versions(straight) == [{max(0, step - k)} for step in range(5)]
    train("broken", StagedNative(), rollouts, steps=5, max_steps=2)
    resumed = train("broken", StagedNative(), rollouts, steps=5, resume="last")
    assert resumed.scores == straight.scores[2:]
    same_weights(straight, resumed)
    assert RolloutLedger.at(tmp_path / "broken").steps() == set(range(5))
    same_weights(straight, train("replay", steps=5, rollouts={"replay": str(tmp_path / "broken")}))


def test_a_run_that_goes_back_forgets_what_later_weights_drew(train, tmp_path):
    rollouts = {"max_staleness": 1}
    straight = train("straight", StagedNative(), rollouts, steps=4, checkpoint_every=1)
    for file in (tmp_path / "straight" / FOLDER).glob("step-00000003-*"):
        file.write_bytes(b"torn")  # it would be read, if it were not drawn again
    first = tmp_path / "straight" / "checkpoints" / "step-00000001"
    resumed = train("straight", StagedNative(), rollouts, steps=4, resume=first)
    same_weights(straight, resumed)


def test_without_its_ledger_nothing_is_lost_or_trained_twice(train, tmp_path, caplog):
    rollouts = {"max_staleness": 1}
    straight = train("straight", StagedNative(), rollouts, steps=4)
    train("broken", StagedNative(), rollouts, steps=4, max_steps=2)
    shutil.rmtree(tmp_path / "broken" / FOLDER)
    resumed = train("broken", StagedNative(), rollouts, steps=4, resume="last")
    assert "what was under way is drawn again" in caplog.text
    assert versions(resumed) == [{2}, {2}]
    asked = [sorted(step) for step in straight.scores]
    assert [sorted(step) for step in resumed.scores] == asked[2:]


def test_a_fresh_run_moves_the_ledger_of_another_aside(train, tmp_path):
    for _ in range(2):
        train(steps=1, rollouts={"ledger": True})
    first, second = (RolloutLedger(tmp_path / "run" / name) for name in (FOLDER, f"{FOLDER}-1"))
    assert first.run != second.run and first.rows(0) != [] != second.rows(0)


# -- what fails --------------------------------------------------------------------------------------------------------


def test_an_engine_that_dies_ahead_is_started_again_and_changes_nothing(train, caplog):
    rollouts = {"max_staleness": 1}
    straight = train("straight", StagedNative(), rollouts, steps=3)
    engine = StagedNative(dies_in={2})
    same_weights(straight, train("dying", engine, rollouts, steps=3))
    assert "the engine died while it drew the answers of step 1 (the engine's process is gone)" in caplog.text
    assert engine.entered == engine.left == 2 and engine.calls == 4


def test_an_engine_that_dies_twice_ends_the_run_with_the_state_saved(train, tmp_path):
    threads = threading.active_count()
    reason = "died twice while it drew the answers of step 2: the engine's process is gone; the state before"
    with pytest.raises(RuntimeError, match=reason):
        train(engine=StagedNative(dies_in={3, 4}), rollouts={"max_staleness": 1}, steps=4)
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()
    assert threading.active_count() == threads


def test_validation_takes_turns_with_the_answers_ahead(train):
    """Held-out answers are sampled with the weights of their step, and do not affect training."""
    held_out = {"validation_fraction": 0.3, "validation_prompts": 4}
    options = {"steps": 3, "data_options": held_out, "limit_val_batches": 1.0, "val_check_interval": 1}
    rollouts = {"max_staleness": 1}
    validated = train("validated", StagedNative(), rollouts, **options)
    plain = train("plain", StagedNative(), rollouts, steps=3, data_options=held_out)
    same_weights(validated, plain)
    assert all("val/reward/mean" in step for step in validated.metrics[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module_options": {"group_size": 2}}, "is of a run with group_size=4, and this one has 2; set it so"),
        ({"module_options": {"seed": 1}}, "is of a run with seed=0, and this one has 1"),
        ({"steps": 6}, "has no answers of step 4, and this run trains 6 steps from 0 on"),
        ({"data_options": {"seed": 7}}, "step 0 of .* has other questions or answers than this run"),
    ],
)
def test_the_ledger_of_another_run_is_refused(ahead, train, changes, message):
    folder, _ = ahead
    with pytest.raises(ValueError, match=message):
        train(**{"rollouts": {"replay": str(folder)}, "steps": 4, "callbacks": [NoStep()], **changes})


class NoStep(pl.Callback):
    def on_train_batch_end(self, *_):
        raise AssertionError("a step was trained")


def test_a_ledger_of_other_weights_or_with_damage_is_refused(ahead, train, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(ahead[0] / FOLDER, folder)
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**about, "weights": "0" * 16}))
    with pytest.raises(ValueError, match=r"began with other weights \(0000000000000000, and here .*base_weights"):
        train(rollouts={"replay": str(folder)}, steps=4)
    (folder / "run.json").write_text(json.dumps(about))
    file = next(folder.glob("step-00000003-*"))
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 255
    for damaged in (bytes(flipped), content[: len(content) // 2], b""):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"step-00000003-00000.parquet is damaged"):
            train(rollouts={"replay": str(folder)}, steps=4, callbacks=[NoStep()])
    for text in ("{}", "[", '{"format": "x"}'):
        (folder / "run.json").write_text(text)
        with pytest.raises(ValueError, match="is no ledger of rollouts"):
            GRPOModule(EvenReward(), GRPO_SHAPE, rollouts=RolloutSettings(replay=str(folder)))
    with pytest.raises(FileNotFoundError, match="there is no ledger of rollouts in"):
        GRPOModule(EvenReward(), GRPO_SHAPE, rollouts=RolloutSettings(replay=str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_staleness": -1}, "max_staleness is invalid: -1; give a number of steps"),
        ({"max_staleness": 0.5}, "max_staleness is invalid: 0.5"),
        ({"max_staleness": True}, "max_staleness is invalid: True"),
        ({"deadline": float("inf")}, r"rollouts\.deadline is invalid: inf"),
        ({"validation_samples": 0}, "validation_samples is invalid: 0; give at least 1"),
        ({"replay": "x", "ledger": True}, r"rollouts\.ledger is invalid with replay"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        RolloutSettings(**settings)


def test_settings_beside_rollouts_are_read_and_not_twice(caplog):
    module = GRPOModule(EvenReward(), GRPO_SHAPE, rollout_deadline=5.0, validation_samples=2)
    assert (module.longest_wait, module.validation_samples) == (5.0, 2)
    with pytest.raises(ValueError, match="rollout_deadline is given twice"):
        rollouts_apart(RolloutSettings(deadline=3.0), {"rollout_deadline": 5.0})


def test_engines_that_take_no_weights_cannot_draw_ahead():
    with pytest.raises(ValueError, match="max_staleness is invalid with LocalEngine"):
        GRPOModule(
            EvenReward(), GRPO_SHAPE, engine=object.__new__(LocalEngine), rollouts=RolloutSettings(max_staleness=1)
        )


# -- long runs, and their end ------------------------------------------------------------------------------------------


class Memory(pl.Callback):
    """Resident bytes of this process, threads and open files, eight times in a run."""

    def __init__(self, every):
        self.every, self.steps = every, []

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step % self.every:
            return
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(list(Path("/proc/self/fd").iterdir()))
        self.steps.append((pages * os.sysconf("SC_PAGE_SIZE"), threading.active_count(), files))


def assert_no_growth(steps):
    """From the first half of the steps to the second: less than 8 MB, and neither threads nor files.

    A file may be open at one step, while a thread writes it; what leaks is open at every later one.
    """
    half = len(steps) // 2
    (memory, threads, files), later = zip(*steps[1:half], strict=True), list(zip(*steps[half:], strict=True))
    assert max(later[0]) - max(memory) < 8_000_000 and min(later[1]) <= max(threads) and min(later[2]) <= max(files)


@pytest.mark.parametrize(
    ("steps", "engine"), [(24, StagedNative), pytest.param(200, None, marks=pytest.mark.slow, id="200-process")]
)
def test_memory_does_not_grow(train, steps, engine):
    memory = Memory(steps // 8)
    options = {
        "optimizer": AdamWConfig(lr=1e-6)
    }  # so little that it never learns all there is, which would end the run
    rollouts = {"max_staleness": 1}
    train(engine=engine and engine(), rollouts=rollouts, steps=steps, callbacks=[memory], module_options=options)
    assert len(memory.steps) == 8
    assert_no_growth(memory.steps)


class SignalAfterTwo(pl.Callback):
    """SIGTERM comes at the end of the second step."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGTERM)


class CutByStop(StagedNative):
    """Draws the fourth step until a signal comes, and then leaves its answers as they are."""

    def generate(self, prompts, sampling, deadline=None):
        if self.calls < 3:
            return super().generate(prompts, sampling, deadline)
        end = time.monotonic() + 60
        while stopping.current().received is None and time.monotonic() < end:
            time.sleep(0.01)
        return super().generate(prompts, sampling, 0.0)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(train, tmp_path):
    rollouts = {"max_staleness": 1}
    straight = train("straight", StagedNative(), rollouts, steps=5)
    engine = StagedNative()
    stopped = train("stopped", engine, rollouts, steps=5, callbacks=[SignalAfterTwo()])
    assert engine.left == 1 and len(stopped.metrics) == 2
    resumed = train("stopped", StagedNative(), rollouts, steps=5, resume="last")
    assert stopped.scores + resumed.scores == straight.scores
    same_weights(straight, resumed)
    assert RolloutLedger.at(tmp_path / "stopped").steps() == set(range(5))


def test_answers_that_a_stop_has_cut_are_drawn_again(train, tmp_path):
    """The ledger has none of them, so that a resumed run asks each question once."""
    rollouts = {"max_staleness": 1}
    straight = train("straight", StagedNative(), rollouts, steps=5)
    engine = CutByStop()
    signalled = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))

    class Start(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                signalled.start()

    stopped = train("stopped", engine, rollouts, steps=5, callbacks=[Start()])
    signalled.join()
    assert engine.left == 1 and len(stopped.metrics) == 3
    assert RolloutLedger.at(tmp_path / "stopped").steps() == {0, 1, 2}
    resumed = train("stopped", StagedNative(), rollouts, steps=5, resume="last")
    assert versions(resumed) == [{3}, {3}]
    assert [sorted(step) for step in (*stopped.scores, *resumed.scores)] == [sorted(step) for step in straight.scores]
    assert all(score is not None for step in resumed.scores for scores in step.values() for score in scores)


# -- what it is for ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2])
def test_it_learns_from_answers_of_older_weights(train, k):
    options = {"optimizer": AdamWConfig(lr=1e-2, weight_decay=0.0)}
    run = train(engine=StagedNative(), rollouts={"max_staleness": k, "ledger": False}, steps=25, module_options=options)
    means = run.column("reward/mean")
    assert sum(means[-5:]) / 5 > sum(means[:5]) / 5 + 0.2


def test_the_trainer_works_while_answers_are_drawn(train):
    """Step 1 is trained to its end before the answers of step 2 may be drawn."""
    engine = StagedNative()
    done = threading.Event()

    class Reward(EvenReward):
        def begin_step(self, step):
            if (
                step == 1
            ):  # the answers of steps 0 and 1 are there: those of step 2 wait for the end of the first update
                engine.wait = done

    class Release(pl.Callback):
        def on_train_batch_end(self, *_):
            done.set()

    run = train(engine=engine, rollouts={"max_staleness": 2}, reward=Reward(), callbacks=[Release()], steps=3)
    assert versions(run) == [{0}, {0}, {0}]
