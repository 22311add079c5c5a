import json
import math
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.pairs.builder import PairBuilder
from nbg_lightning.construction.pairs.choice import PairRule, choose_pairs
from nbg_lightning.data.question_sources import QuestionList
from nbg_lightning.engines.protocol import Completion, failed, sample_seed
from nbg_lightning.rewards.protocol import Reward, RewardResult

ROWS = [
    {"prompt": f"What is {n} + {n}?", "answer": str(2 * n), "data": {"worked": f"{n} + {n} = {2 * n}"}}
    for n in range(40)
]


class Talker:
    """An engine that takes and gives text: a sum that is right with some probability, drawn by the sample's seed."""

    interface = "chat"
    weight_version = 0

    def __init__(self, right=0.5, name="talker", pause=0.0, failing=()):
        self.right, self.pause, self.failing = right, pause, set(failing)
        self.identity = {"name": name, "right": right}
        self.asked, self.opened = 0, 0

    def __enter__(self):
        self.opened += 1
        return self

    def __exit__(self, *_):
        pass

    def generate(self, prompts, sampling, deadline=None):
        time.sleep(self.pause)
        return [self._answers(index, prompt, sampling) for index, prompt in enumerate(prompts)]

    def _answers(self, index, prompt, sampling):
        number = int(prompt.text.split()[2])
        self.asked += sampling.n
        if number in self.failing:
            return failed(index, sampling, 0, "the server is down")
        answers = []
        for sample in range(sampling.n):
            draw = random.Random(sample_seed(sampling, prompt, sample) + len(self.identity["name"]))
            text = str(2 * number + (0 if draw.random() < self.right else draw.randrange(1, 9)))
            text, reason = (f"<think>\nhm\n</think>\n\n{text}", "stop") if number % 2 else (text, "stop")
            if draw.random() < 0.15:
                text, reason = "<think>\nhm", "length"
            answers.append(Completion((), (), reason, index, sample, 0, None, text))
        return answers


class Exact(Reward):
    """1 for the gold answer. Question 7 cannot be checked, and question 9 makes the verifier fail."""

    name = "exact"

    def __init__(self, broken=True):
        self.broken, self.groups, self.opened = broken, [], 0

    def __enter__(self):
        self.opened += 1
        return self

    def check(self, question):
        return "no gold answer" if question.answer == "14" else None

    def score(self, groups):
        self.groups += groups
        return [[self._one(group.question, answer) for answer in group.answers] for group in groups]

    def _one(self, question, answer):
        if question.answer == "18" and self.broken:
            return RewardResult(None, "error", "crashed")
        return RewardResult(float(answer.final.strip().split()[-1] == question.answer))


def builder(folder, student=None, teacher=None, reward=None, rows=ROWS, **settings):
    teacher = teacher or (None if "solutions" in settings else Talker(0.9, "teacher"))
    return PairBuilder(
        out=str(folder),
        questions={"sums": QuestionList(rows)},
        reward=reward or Exact(),
        student=ChatModelConfig(student or Talker()),
        teacher=None if teacher is None else ChatModelConfig(teacher),
        **{"questions_per_call": 8, "progress": False, **settings},
    )


def pairs(folder):
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def test_pairs_of_a_question_by_hand():
    rule = PairRule(margin=0.5, min_chosen_score=0.6, pairs_per_question=3)
    chosen = [("a", 1.0), ("b", 0.6), ("c", 0.5)]  # c is below the minimum
    rejected = [("x", 0.4), ("a", 0.0), ("y", 0.1)]  # x is too good for b; a may not be beside a
    # Margins: a-y 0.9, a-x 0.6, b-a 0.6, b-y 0.5. Greedy: a-y, then b-a; nothing is left for x.
    assert choose_pairs(chosen, rejected, rule) == [(0, 2), (1, 1)]
    assert choose_pairs(chosen, rejected, PairRule(0.5, 0.6, 1)) == [(0, 2)]
    assert choose_pairs(chosen, rejected, PairRule(0.95, 0.6, 1)) == []
    assert choose_pairs([("a", 1.0)], [("a", 0.0)], PairRule()) == []
    # Equal margins: the seed decides, always in the same way.
    many = [("good", 1.0)], [(str(n), 0.0) for n in range(20)]
    assert choose_pairs(*many, PairRule(), "s") == choose_pairs(*many, PairRule(), "s")
    assert len({tuple(choose_pairs(*many, PairRule(), str(seed))) for seed in range(20)}) > 5
    for bad in (dict(margin=0.0), dict(margin=math.nan), dict(min_chosen_score=math.nan), dict(pairs_per_question=0)):
        with pytest.raises(
            ValueError, match=r"margin is invalid|min_chosen_score is invalid|pairs_per_question is invalid"
        ):
            PairRule(**bad)


def test_what_is_kept_and_what_is_dropped(tmp_path):
    reward = Exact()
    report = builder(tmp_path / "p", reward=reward, pairs_per_question=2).run()
    rows = pairs(tmp_path / "p")
    assert len(rows) == report["pairs"] > 20 and json.loads((tmp_path / "p" / "report.json").read_text()) == report
    by_question = {}
    for row in rows:
        number = int(row["prompt"][0]["content"].split()[2])
        assert row["prompt"] == [{"role": "user", "content": ROWS[number]["prompt"]}] and row["source"] == "sums"
        [chosen], [rejected] = row["chosen"], row["rejected"]
        assert chosen["content"] == ROWS[number]["answer"] != rejected["content"]
        assert [("reasoning_content" in side) for side in (chosen, rejected)] == [number % 2 == 1] * 2
        assert (row["chosen_score"], row["rejected_score"]) == (1.0, 0.0)
        assert row["provenance"]["student"]["name"] == "talker" and row["provenance"]["reward"] == "exact"
        by_question.setdefault(number, []).append((chosen["content"], rejected["content"]))
    assert max(map(len, by_question.values())) <= 2 and 7 not in by_question and 9 not in by_question
    assert all(len(set(own)) == len(own) for own in by_question.values())
    # Every question is kept, or dropped for one reason that has a number and an example.
    dropped = report["dropped_questions"]
    assert report["questions_with_pairs"] == len(by_question)
    assert len(by_question) + sum(each["count"] for each in dropped.values()) == report["questions"] == 40
    assert dropped["the reward cannot score it"]["count"] == 1
    assert "error: crashed" in dropped["no chosen answer has a score"]["first"]
    assert report["answers"]["rejected"]["cut off"] > 0
    assert sum(report["answers"]["rejected"][state] for state in ("finished", "cut off")) == 160
    # The reward sees positives and negatives of a question as one group, finished ones only, each text once.
    assert len(reward.groups) == 39 and all(answer.finished for group in reward.groups for answer in group.answers)


def test_a_margin_needs_no_new_answers_and_a_reward_none_either(tmp_path):
    student, teacher = Talker(), Talker(0.9, "teacher")
    first = builder(tmp_path / "p", student, teacher).run()
    asked = student.asked, teacher.asked
    reward = Exact()
    again = builder(tmp_path / "p", student, teacher, reward).run()
    assert again == first and (student.asked, teacher.asked) == asked
    assert len(reward.groups) == 1  # what had failed is tried once more
    with pytest.raises(RuntimeError, match=r"no pair in 40 questions \(.*not clearly separated.*lower margin"):
        builder(tmp_path / "p", student, teacher, margin=1.5).run()
    fixed = builder(tmp_path / "p", student, teacher, Exact(broken=False)).run()
    assert fixed["pairs"] == first["pairs"] + 1 and (student.asked, teacher.asked) == asked
    # Other models, questions or sampling are another build.
    for change in (dict(seed=1), dict(negatives=3), dict(student=Talker(0.4)), dict(rows=ROWS[:9])):
        with pytest.raises(ValueError, match="is invalid: a build with other settings"):
            builder(tmp_path / "p", **{"teacher": teacher, **change}).run()


def test_failed_answers_are_counted_and_asked_again(tmp_path):
    straight = builder(tmp_path / "straight").run()
    student = Talker(failing=range(8, 13))
    report = builder(tmp_path / "p", student).run()
    assert report["dropped_questions"]["no finished rejected answer"]["count"] == 5
    assert "the server is down" in report["dropped_questions"]["no finished rejected answer"]["first"]
    assert report["answers"]["rejected"]["error"] == 20
    student.failing, student.asked = set(), 0
    fixed = builder(tmp_path / "p", student).run()
    assert student.asked == 20 and fixed["pairs_hash"] == straight["pairs_hash"]


def test_given_solutions(tmp_path):
    report = builder(tmp_path / "p", solutions="worked").run()
    for row in pairs(tmp_path / "p"):
        number = int(row["prompt"][0]["content"].split()[2])
        assert row["chosen"][0]["content"] == ROWS[number]["data"]["worked"]
        assert row["provenance"]["teacher"] == {"solutions": "worked"}
    assert report["mean_score"]["chosen"] == 1.0
    assert {row["chosen"][0]["content"] for row in pairs(tmp_path / "p")} > {"2 + 2 = 4"}
    thinking = [{**row, "data": {"worked": {"content": row["answer"], "reasoning_content": "easy"}}} for row in ROWS]
    builder(tmp_path / "q", rows=thinking, solutions="worked").run()
    assert pairs(tmp_path / "q")[0]["chosen"][0]["reasoning_content"] == "easy"
    builder(tmp_path / "r", solutions="answer").run()
    assert all(set(row["chosen"][0]) == {"role", "content"} for row in pairs(tmp_path / "r"))
    assert {row["chosen"][0]["content"] for row in pairs(tmp_path / "r")} <= {row["answer"] for row in ROWS}
    with pytest.raises(RuntimeError, match="39 no finished chosen answer"):
        builder(tmp_path / "s", solutions="nothing").run()


def test_bad_settings(tmp_path):
    with pytest.raises(ValueError, match="teacher is invalid: None, and solutions too"):
        PairBuilder(
            out=str(tmp_path), questions={"a": QuestionList(ROWS)}, reward=Exact(), student=ChatModelConfig(Talker())
        )
    with pytest.raises(ValueError, match="teacher is invalid: given beside solutions"):
        builder(tmp_path, teacher=Talker(), solutions="worked")
    with pytest.raises(ValueError, match="negatives is invalid: 4 equal greedy answers"):
        builder(tmp_path, temperature=0.0)
    with pytest.raises(ValueError, match="questions is invalid: empty"):
        PairBuilder(out=str(tmp_path), questions={}, reward=Exact(), student=ChatModelConfig(Talker()), solutions="x")
    with pytest.raises(ValueError, match="questions is invalid: no question in sums"):
        builder(tmp_path, rows=[]).run()
    nameless = Talker()
    del nameless.identity
    with pytest.raises(ValueError, match="nobody can say which weights Talker has"):
        builder(tmp_path, student=nameless).run()


def test_kill_9_ends_in_the_same_pairs(tmp_path):
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_builder import Talker, builder
        from pathlib import Path
        builder(Path(sys.argv[1]), Talker(pause=0.03), Talker(0.9, "teacher", pause=0.03), questions_per_call=4).run()
    """)
    straight = builder(tmp_path / "straight", Talker(), Talker(0.9, "teacher"), questions_per_call=4).run()
    for name, lines in (("student", 9), ("student", 25), ("teacher", 13)):  # killed when so many answers are there
        process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "killed"])
        file = tmp_path / "killed" / f"{name}.jsonl"
        while process.poll() is None and (not file.is_file() or file.read_bytes().count(b"\n") < lines):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() != 0 and not (tmp_path / "killed" / "pairs.jsonl").exists()
    with (tmp_path / "killed" / "teacher.jsonl").open("a") as torn:
        torn.write('{"key": "torn by a ki')
    subprocess.run([sys.executable, "-c", script, tmp_path / "killed"], check=True)
    assert json.loads((tmp_path / "killed" / "report.json").read_text())["pairs_hash"] == straight["pairs_hash"]
    for name in ("student.jsonl", "teacher.jsonl", "pairs.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
