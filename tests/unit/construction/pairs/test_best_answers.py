"""`nbg build-answers`: which answers become conversations, the counts, and what another run reuses."""

import json
import random

import pytest

from nbg_lightning.chat.conversation import Conversation
from nbg_lightning.commands import view
from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.pairs.best_answers import AnswerBuilder
from nbg_lightning.construction.pairs.pairing import named
from nbg_lightning.data.question_sources import QuestionList
from nbg_lightning.engines.protocol import Completion, sample_seed
from nbg_lightning.rewards.protocol import Reward, RewardResult

ROWS = [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(12)]


class Talker:
    """An engine that takes and gives text: right half of the time, with a remark of a length drawn by the sample's seed."""

    interface = "chat"
    weight_version = 0

    def __init__(self, name="talker"):
        self.identity = {"name": name}
        self.asked = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def generate(self, prompts, sampling, deadline=None):
        return [self._answers(index, prompt, sampling) for index, prompt in enumerate(prompts)]

    def _answers(self, index, prompt, sampling):
        number = int(prompt.text.split()[2])
        self.asked += sampling.n
        found = []
        for sample in range(sampling.n):
            draw = random.Random(sample_seed(sampling, prompt, sample))
            right = number != 5 and draw.random() < 0.6
            text = f"<think>\n{'hm ' * draw.randrange(1, 20)}\n</think>\n\n{2 * number + (0 if right else 1)}"
            reason = "length" if number == 6 else "stop"
            found.append(Completion((), (), reason, index, sample, 0, None, text))
        return found


class Exact(Reward):
    """1 for the gold answer; question 7 cannot be checked, and question 4 makes the verifier fail."""

    name = "exact"

    def check(self, question):
        return "no gold answer" if question.answer == "14" else None

    def score(self, groups):
        return [[self._one(group.question, answer) for answer in group.answers] for group in groups]

    def _one(self, question, answer):
        if question.answer == "8":
            return RewardResult(None, "error", "crashed")
        return RewardResult(float(answer.final.strip() == question.answer))


def builder(folder, talker=None, **settings):
    model = ChatModelConfig(talker or Talker(), None, "nanbeige")
    return AnswerBuilder(
        out=str(folder), questions={"sums": QuestionList(ROWS)}, reward=Exact(), model=model, progress=False, **settings
    )


def rows_of(folder):
    return [json.loads(line) for line in (folder / "conversations.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("prefer", ["shortest", "longest", "random"])
def test_the_best_right_answers_become_conversations(tmp_path, prefer):
    report = builder(tmp_path, samples=8, keep=2, prefer=prefer).run()
    rows = rows_of(tmp_path)
    assert report["conversations"] == len(rows) > 10
    drawn = {
        json.loads(line)["key"]: json.loads(line)
        for line in (tmp_path / "model.jsonl").read_text().splitlines()
        if '"key"' in line
    }
    for row in rows:
        question, answer = row["messages"]
        assert answer["content"].strip() == str(2 * int(question["content"].split()[2])) and row["score"] == 1.0
        assert Conversation(row["messages"]) and answer["reasoning_content"].strip().startswith("hm")
        key, _, number = row["id"].rpartition("-")
        right = sorted(
            {
                len(a["text"])
                for a in drawn[key]["answers"]
                if a["text"].rsplit("\n", 1)[-1] == answer["content"].strip()
            },
            reverse=prefer == "longest",
        )
        if prefer != "random" and number == "0":
            assert len(drawn[key]["answers"][row["sample"]]["text"]) == right[0]
    assert {reason: found["count"] for reason, found in report["dropped_questions"].items()} == {
        "the reward cannot score it": 1,
        "no finished answer": 1,
        "no answer has a score": 1,
        "no right answer": 1,
    }
    assert report["questions_with_conversations"] + 4 == report["questions"] == 12


def test_the_report_for_people_tells_questions_of_one_template_apart(tmp_path):
    start = "Say the final result, and nothing beside it, of the problem that stands at the end of this line:"
    rows = [{"prompt": f"{start} {n} + {n}?", "answer": str(2 * n)} for n in (3, 4, 4)]
    assert named(list(QuestionList(rows).questions("sums"))[1]).endswith("end of this line: 4 + 4?'")
    made = builder(tmp_path, samples=4)
    made.questions = {"sums": QuestionList(ROWS + ROWS[:2])}
    table, *said = made.shown(made.run())
    assert table.title == "12 questions, 2 doubled ones left out"
    assert said[-1] == f"to look at them: nbg view {made.out}/conversations.jsonl"
    assert view.main([said[-1].split()[-1], "--out", str(tmp_path / "page.html")]) == 0


def test_another_rule_asks_nothing_again(tmp_path):
    builder(tmp_path, samples=4).run()
    again = Talker()
    report = builder(tmp_path, again, samples=4, keep=4, prefer="longest").run()
    assert again.asked == 0 and report["rule"]["keep"] == 4


def test_no_right_answer_is_one_line(tmp_path):
    with pytest.raises(RuntimeError, match=r"no right answer to 12 questions .*lower min_score"):
        builder(tmp_path, min_score=2.0).run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0}, "keep is invalid: 0"),
        ({"keep": 9, "samples": 8}, "keep is invalid: 9; give at most samples=8"),
        ({"prefer": "best"}, "prefer is invalid: 'best'; choose shortest, longest, random"),
        ({"temperature": 0.0}, "samples is invalid: 8 equal greedy answers"),
    ],
)
def test_settings_that_cannot_work(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        builder(tmp_path, **settings)
