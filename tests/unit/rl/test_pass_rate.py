import io
import json
import logging
import math
import os
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from nbg_lightning import log
from nbg_lightning.data.folder_lock import FolderInUse
from nbg_lightning.data.question import Question
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.digests import seal
from nbg_lightning.engines.chat import ChatModel
from nbg_lightning.engines.protocol import Completion, Sampling
from nbg_lightning.environments import EpisodeLimits
from nbg_lightning.rewards.math import MathReward
from nbg_lightning.rewards.protocol import Reward, RewardResult
from nbg_lightning.rl.pass_rate import (
    Histogram,
    PassRate,
    PassRateBand,
    PassRateFilter,
    PassRateLedger,
    part_file,
)
from nbg_lightning.rl.pass_rate.parts import read_part
from nbg_lightning.testing.benchmarks import AnsweringEngine
from nbg_lightning.testing.damage import damaged
from nbg_lightning.testing.grpo import small_tokenizer
from nbg_lightning.testing.guessing import GuessingGame

QUESTIONS = [Question(({"role": "user", "content": f"{number}"},), str(number), "s") for number in range(20)]
ABOUT = {"weights": "somewhere", "fingerprint": "00ff", "reward": {"class_path": "Exact"}}


class Exact(Reward):
    """An answer is right if it is the gold answer; ``crash`` crashes the verifier, ``slow`` is too slow for it."""

    name = "exact"

    def __init__(self):
        self.seen = 0

    def score(self, groups):
        self.seen += sum(len(group.answers) for group in groups)
        return [[self._one(group.question, answer.text) for answer in group.answers] for group in groups]

    @staticmethod
    def _one(question, text):
        if text == "crash":
            return RewardResult(None, "error", "the verifier crashed")
        if text == "slow":
            return RewardResult(None, "timeout", "5 s were over")
        if text == "nan":
            return RewardResult(math.nan)
        return RewardResult(float(text == question.answer))


def counted(prompt, sample):
    """Question k is answered rightly by its first k samples of 16."""
    return prompt.text if sample < int(prompt.text) else "no"


def make(file, answer=counted, reward=None, about=ABOUT, n=16, **options):
    engine = AnsweringEngine(answer)
    rates = PassRateFilter(
        ChatModel(engine), reward or Exact(), Sampling(n=n), Path(file), about, **{"prompts_per_call": 4, **options}
    )
    return rates, engine


def passes(ledger):
    return {int(q.answer): ledger.rows[q.key].passes for q in QUESTIONS if q.key in ledger}


def asked(engine):
    return [int(prompt.text) for prompts, _ in engine.calls for prompt in prompts]


def test_the_ledger_counts_right_answers(tmp_path):
    rates, engine = make(tmp_path / "l.parquet")
    ledger = rates.run(QUESTIONS)
    assert passes(ledger) == {number: min(number, 16) for number in range(20)}
    assert asked(engine) == list(range(20))
    loaded = PassRateLedger.load(tmp_path / "l.parquet")
    assert loaded.rows == ledger.rows
    assert loaded.about["fingerprint"] == "00ff"
    assert loaded.about["sampling"]["n"] == 16
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["l.parquet"]
    kept = [int(q.answer) for q in QUESTIONS if loaded.keeps(q.key, PassRateBand())]
    assert kept == list(range(2, 15))
    row = loaded.rows[QUESTIONS[3].key]
    assert (row.n, row.errors, row.truncations, row.source, row.rate) == (16, 0, 0, "s", 3 / 16)


def test_the_band_is_strict_at_both_ends():
    for n in (2, 4, 5, 8, 10, 16, 20, 30, 50, 64, 100):
        inside = [k for k in range(n + 1) if k / n in PassRateBand()]
        assert inside == [k for k in range(n + 1) if n < 10 * k < 9 * n]
    assert 0.05 not in PassRateBand(0.05, 0.95)
    for low, high in ((0.5, 0.5), (0.9, 0.1), (-0.1, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match="give low < high"):
            PassRateBand(low, high)


def test_a_verifier_that_fails_says_nothing_about_the_answer(tmp_path):
    def answer(prompt, sample):
        if prompt.text == "1":
            return "1" if sample < 6 else "crash"
        if prompt.text == "2":
            return ("slow", "crash", "nan", Completion((), (), "error", 0, 0, 0, "the engine fell over"))[sample % 4]
        return prompt.text

    rates, _ = make(tmp_path / "l.parquet", answer, n=8, max_errors=0.9)
    ledger = rates.run(QUESTIONS[:4])
    one, two = ledger.rows[QUESTIONS[1].key], ledger.rows[QUESTIONS[2].key]
    assert (one.passes, one.errors, one.rate) == (6, 2, 1.0)
    assert one.first_error == "the verifier crashed"
    assert (two.passes, two.errors, two.n) == (0, 8, 8)
    assert math.isnan(two.rate)
    assert two.mean_score is None
    assert not ledger.keeps(two.key, PassRateBand(0.0, 1.0))
    assert math.isnan(PassRateLedger.load(tmp_path / "l.parquet").rows[two.key].rate)
    assert any("10 of 32 answers could not be scored" in line for line in ledger.summary(PassRateBand()))


def test_too_many_failures_stop_it_and_keep_what_was_measured(tmp_path):
    def answer(prompt, sample):
        return "crash" if int(prompt.text) >= 4 else counted(prompt, sample)

    rates, _ = make(tmp_path / "l.parquet", answer)
    with pytest.raises(RuntimeError, match=r"64 of 128 answers have no score.*first: the verifier crashed"):
        rates.run(QUESTIONS)
    assert not (tmp_path / "l.parquet").exists()
    fixed, engine = make(tmp_path / "l.parquet")
    assert passes(fixed.run(QUESTIONS))[3] == 3
    assert asked(engine) == list(range(4, 20))  # the failing ones are asked again, the others are not


def test_truncated_answers_are_counted_and_judged(tmp_path):
    def answer(prompt, sample):
        if sample % 2:
            return Completion((1, 2, 3), (), "length", 0, sample, 0, text="cut of")
        return prompt.text

    rates, _ = make(tmp_path / "l.parquet", answer)
    row = rates.run(QUESTIONS[:1]).rows[QUESTIONS[0].key]
    assert (row.truncations, row.passes, row.errors) == (8, 8, 0)
    assert row.mean_length == 2.0  # 3 tokens and 1


def test_a_kill_loses_no_more_than_what_was_under_way(tmp_path):
    class Killed(BaseException):
        pass

    def answer(prompt, sample):
        if int(prompt.text) == 9:
            raise Killed
        return counted(prompt, sample)

    rates, _ = make(tmp_path / "l.parquet", answer)
    with pytest.raises(Killed):
        rates.run(QUESTIONS)
    torn = part_file(tmp_path / "l.parquet", 0)
    assert len(torn.read_text().splitlines()) == 1 + 8  # what it is of, and two calls of four
    with open(torn, "a") as stream:
        stream.write('{"key": "torn')
    again, engine = make(tmp_path / "l.parquet")
    ledger = again.run(QUESTIONS)
    assert asked(engine) == list(range(8, 20))
    straight, _ = make(tmp_path / "other.parquet")
    assert ledger.rows == straight.run(QUESTIONS).rows


def test_the_same_measurement_is_reused_and_another_is_not(tmp_path):
    file = tmp_path / "l.parquet"
    first = make(file)[0].run(QUESTIONS[:10])
    rates, engine = make(file, about={**ABOUT, "weights": "moved"})
    assert rates.run(QUESTIONS[:10]).rows == first.rows
    assert engine.calls == []  # the same weights at another place
    rates, engine = make(file)
    rates.run(QUESTIONS[:12])
    assert asked(engine) == [10, 11]  # more questions: only those
    changed = [Question(QUESTIONS[0].messages, "another gold", "s"), *QUESTIONS[1:12]]
    rates, engine = make(file)
    rates.run(changed)
    assert asked(engine) == [0]
    for options in (
        {"about": {**ABOUT, "fingerprint": "1"}},
        {"about": {**ABOUT, "reward": "x"}},
        {"n": 8},
        {"pass_score": 0.5},
    ):
        rates, engine = make(file, **options)
        rates.run(QUESTIONS[:3])
        assert asked(engine) == [0, 1, 2], options


def test_a_part_left_by_another_measurement_is_begun_anew(tmp_path):
    def stop(prompt, sample):
        if prompt.text == "4":
            raise KeyboardInterrupt
        return "0"

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "l.parquet", stop, about={**ABOUT, "fingerprint": "old"})[0].run(QUESTIONS)
    rates, engine = make(tmp_path / "l.parquet")
    assert passes(rates.run(QUESTIONS))[1] == 1
    assert asked(engine) == list(range(20))


def test_processes_share_the_work_and_the_last_writes_the_ledger(tmp_path):
    file = tmp_path / "l.parquet"
    asked_by = []
    for part in range(3):
        rates, engine = make(file, part=(part, 3))
        ledger = rates.run(QUESTIONS)
        asked_by.append(asked(engine))
        assert (ledger is None) == (part < 2)
    assert sorted(number for numbers in asked_by for number in numbers) == list(range(20))
    assert asked_by[1] == list(range(1, 20, 3))
    assert passes(ledger) == {number: min(number, 16) for number in range(20)}
    assert not part_file(file, 0).exists()


def test_a_wrong_number_of_results_is_an_error(tmp_path):
    class Short(Exact):
        def score(self, groups):
            return [results[:-1] for results in super().score(groups)]

    with pytest.raises(RuntimeError, match=r"have no score.*'exact' failed: it gave 15 results for 16 answers"):
        make(tmp_path / "l.parquet", reward=Short())[0].run(QUESTIONS)


def test_a_reward_that_raises_is_no_wrong_answer(tmp_path):
    class Raising(Exact):
        def score(self, groups):
            raise KeyError("tests")

    with pytest.raises(RuntimeError, match=r"64 of 64 answers have no score.*reward 'exact' failed: 'tests'"):
        make(tmp_path / "l.parquet", reward=Raising())[0].run(QUESTIONS)


def test_the_same_question_twice_is_asked_once(tmp_path, caplog):
    rates, engine = make(tmp_path / "l.parquet")
    other = Question(QUESTIONS[0].messages, "different", "t")
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        ledger = rates.run([*QUESTIONS[:3], QUESTIONS[1], other])
    assert asked(engine) == [0, 1, 2]
    assert len(ledger) == 3
    assert "1 questions come again with another answer" in caplog.text


def test_questions_that_cannot_be_scored_are_not_asked(tmp_path):
    rates, engine = make(tmp_path / "l.parquet")
    ledger = rates.run(QUESTIONS[:3], {QUESTIONS[1].key: "no gold answer"})
    assert asked(engine) == [0, 2]
    row = ledger.rows[QUESTIONS[1].key]
    assert (row.n, row.first_error) == (0, "no gold answer")
    assert math.isnan(row.rate)


def test_histogram_and_bands():
    histogram = Histogram.of([k / 16 for k in range(17)] + [math.nan])
    assert (histogram.never, histogram.always, histogram.ungraded, histogram.total) == (1, 1, 1, 18)
    assert sum(histogram.between) == 15
    assert histogram.between[0] == 1  # 1 of 16 is in (0, 0.1]
    assert "no score: 1" in histogram.line()
    assert Histogram.of([]).line() == "pass rates of nothing"
    assert "fix the reward" in Histogram.of([math.nan] * 3 + [0.0]).advice(PassRateBand())


def test_table_and_summary_show_every_source(tmp_path):
    from rich.console import Console

    questions = [
        *QUESTIONS[:17],
        Question(({"role": "user", "content": "8"}, {"role": "user", "content": "?"}), "8", "t"),
    ]
    ledger = make(tmp_path / "l.parquet", lambda prompt, sample: prompt.text if sample < 8 else "no")[0].run(questions)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(ledger.table())
    text = console.export_text()
    assert "18 questions, 16 answers each" in text
    assert "all" in text
    lines = ledger.summary(PassRateBand(0.3, 0.6))
    assert lines[3].startswith("0.3 < pass rate < 0.6 keeps") and lines[3].endswith("of the config")
    assert any("of answers pass" in line for line in lines)


def test_files_that_are_no_ledger(tmp_path):
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(ValueError, match=r"name a \.parquet file"):
        make(tmp_path / "l.json")
    (tmp_path / "l.parquet").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as a pass-rate ledger"):
        PassRateLedger.load(tmp_path / "l.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "l.parquet")
    with pytest.raises(ValueError, match="is not a pass-rate ledger of this library"):
        PassRateLedger.load(tmp_path / "l.parquet")


def test_a_ledger_without_any_score_is_read_again(tmp_path):
    rows = [PassRate("k", "s", 2, 0, 2, None, 0.0, 0, "", "crashed")]
    PassRateLedger(rows, {"sampling": {"n": 2}}).save(tmp_path / "l.parquet")
    assert list(PassRateLedger.load(tmp_path / "l.parquet")) == rows


def test_rows_on_disk_are_json_lines(tmp_path):
    contents = {}

    class Watching(Exact):
        def score(self, groups):
            part = part_file(tmp_path / "l.parquet", 0)
            contents[self.seen] = part.read_text().splitlines() if part.exists() else []
            return super().score(groups)

    make(tmp_path / "l.parquet", reward=Watching())[0].run(QUESTIONS[:8])
    assert json.loads(contents[64][0])["fingerprint"] == "00ff"
    assert json.loads(contents[64][-1])["key"] == QUESTIONS[3].key


# -- damage ------------------------------------------------------------------------------------------------------------


def some_rows(count):
    return [PassRate(f"key{i}", "s", 16, i % 17, 0, i / 16, 10.0 + i, 0, f"content{i}") for i in range(count)]


def test_every_damage_of_a_ledger_is_found(tmp_path):
    file = tmp_path / "l.parquet"
    PassRateLedger(some_rows(40), {"sampling": {"n": 16}}).save(file)
    assert list(PassRateLedger.load(file)) == some_rows(40)
    good = file.read_bytes()
    draw = random.Random(0)
    for _ in range(150):
        file.write_bytes(damaged(good, draw))
        with pytest.raises(ValueError, match=r"l\.parquet (is damaged|cannot be read)") as caught:
            PassRateLedger.load(file)
        assert "\n" not in str(caught.value)


def test_a_ledger_of_an_older_version_is_read(tmp_path):
    import pyarrow.parquet

    file = tmp_path / "l.parquet"
    PassRateLedger(some_rows(3), {"sampling": {"n": 16}}).save(file)
    about = json.dumps({"format": "nbg_lightning pass rates 1", "sampling": {"n": 16}})
    table = pyarrow.parquet.read_table(file).replace_schema_metadata({"nbg_lightning": about})
    pyarrow.parquet.write_table(table, file)
    assert list(PassRateLedger.load(file)) == some_rows(3)


def test_a_ledger_whose_digest_is_gone_is_damaged(tmp_path):
    import pyarrow.parquet

    file = tmp_path / "l.parquet"
    PassRateLedger(some_rows(3), {"sampling": {"n": 16}}).save(file)
    table = pyarrow.parquet.read_table(file)
    metadata = {name: value for name, value in table.schema.metadata.items() if b"digest" not in name}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(ValueError, match="its digest is gone"):
        PassRateLedger.load(file)


def test_damaged_lines_of_a_part_are_drawn_again_and_never_other_rows(tmp_path, monkeypatch):
    file, wanted, rows = tmp_path / "l.part-0000.jsonl", {"reward": "r"}, some_rows(5)
    good = (seal(wanted, indent=None) + "".join(seal(asdict(row), indent=None) for row in rows)).encode()
    first = good.index(b"\n") + 1
    said = []
    monkeypatch.setattr(log, "warn", said.append)
    draw = random.Random(0)
    for _ in range(100):
        place = draw.randrange(first, len(good) - 1)
        file.write_bytes(good[:place] + bytes([good[place] ^ 1 << draw.randrange(8)]) + good[place + 1 :])
        said.clear()
        found = read_part(file, wanted)
        assert len(found) in (3, 4)
        assert set(found) < set(rows)
        assert said
        assert all("l.part-0000.jsonl, line " in line for line in said)
    for place in range(first - 1):
        file.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(ValueError, match="line 1 is damaged"):
            read_part(file, wanted)
    file.write_bytes(good[:-7])  # a kill
    assert read_part(file, wanted) == rows[:4]
    file.write_bytes(good[:20])
    assert read_part(file, wanted) is None
    file.write_text(json.dumps(wanted) + "\n" + "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    assert read_part(file, wanted) == rows


def test_answers_that_cannot_be_evaluated_in_time_count(tmp_path):
    texts = (r"\boxed{4}", r"\boxed{9^{9^{9^9}}}", r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n}}", r"\boxed{4}")
    question = Question(({"role": "user", "content": "2 + 2"},), "4", "s")
    with MathReward(workers=2, deadline=1.0) as reward:
        rates, _ = make(tmp_path / "rates.parquet", lambda prompt, sample: texts[sample], reward, n=4)
        (row,) = rates.run([question])
    assert (row.n, row.passes, row.errors, row.rate) == (4, 2, 0, 0.5)


def test_another_process_at_the_same_part_is_refused(tmp_path, monkeypatch):
    """Two parts, or two ledgers of one folder, are no obstacle to each other."""
    monkeypatch.setattr("nbg_lightning.data.folder_lock.DYING_SECONDS", 0.1)
    file, refusals = tmp_path / "l.parquet", []

    def answer(prompt, sample):
        if not refusals:
            refusals.append("none")
            make(tmp_path / "other.parquet")[0].run(QUESTIONS)
            make(file, part=(1, 2))[0].run(QUESTIONS)
            with pytest.raises(FolderInUse, match=f"measures these pass rates in {tmp_path} since") as caught:
                make(file, part=(0, 2))[0].run(QUESTIONS)
            refusals[0] = str(caught.value)
        return counted(prompt, sample)

    make(file, answer, part=(0, 2))[0].run(QUESTIONS)
    assert refusals[0].startswith(f"process {os.getpid()} on ") and "\n" not in refusals[0]
    assert file.is_file()


def test_episodes_in_an_environment_are_measured_as_answers_are(tmp_path):
    """Question k is guessed in k turns: rightly within three, with and without a kill."""
    tokenizer = Tokenizer(small_tokenizer(tmp_path / "tokenizer"))
    stop = tokenizer.transformers.convert_tokens_to_ids("<|im_end|>")

    def turn(prompt, sample):
        text = tokenizer.decode(prompt.ids)
        ids = (*tokenizer.encode(str(1 + text.count("Larger."))), stop)
        return Completion(ids, (-1.0,) * len(ids), "stop", 0, 0, 0)

    engine = AnsweringEngine(turn)
    environment = GuessingGame(EpisodeLimits(max_turns=3, isolated=False))
    questions = [Question(({"role": "user", "content": f"Guess {k}."},), str(k), "s") for k in (1, 3, 4)]
    questions.append(Question(({"role": "user", "content": "Guess."},), "nothing", "s"))
    rates = PassRateFilter(
        ChatModel(engine, tokenizer, "nanbeige"),
        None,
        Sampling(n=2),
        tmp_path / "l.parquet",
        ABOUT,
        environment=environment,
        max_errors=0.5,
    )
    ledger = rates.run(questions)
    rows = [ledger.rows[question.key] for question in questions]
    assert [(row.n, row.passes, row.errors) for row in rows] == [(2, 2, 0), (2, 2, 0), (2, 0, 0), (2, 0, 2)]
    assert "invalid literal" in rows[3].first_error
    with pytest.raises(ValueError, match="or an environment that gives scores"):
        PassRateFilter(ChatModel(engine), None, Sampling(), tmp_path / "m.parquet", ABOUT)
