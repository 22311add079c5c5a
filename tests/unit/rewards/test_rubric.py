"""RubricReward: criterion scores become a score, checklists are generated once, and every failure is masked."""

import pytest
from answers import UNENDING, asked, group

from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards import RubricReward


class Judge:
    """An engine that takes and gives text, by a function of the prompt."""

    weight_version = 0

    def __init__(self, says):
        self.says, self.prompts, self.open = says, [], 0

    def __enter__(self):
        self.open += 1
        return self

    def __exit__(self, *_):
        self.open -= 1

    def generate(self, prompts, sampling, deadline=None):
        found = []
        for index, prompt in enumerate(prompts):
            self.prompts.append(prompt.text)
            said = self.says(prompt.text)
            whole = said if isinstance(said, Completion) else Completion((), (), "stop", index, 0, 0, text=said)
            found.append([whole])
        return found


def by_words(prompt):
    """Marks by what stands in the answer."""
    answer = prompt.split("<|answer|>\n")[1].split("\n\n<|criteria|>")[0]
    return f"1: {9 if 'right' in answer else 3}\n2: {9 if 'short' in answer else 0}"


CRITERIA = ["It is right.", "It is short."]


def judged(says, *texts, criteria=CRITERIA, **options):
    judge = Judge(says)
    with RubricReward(judge, criteria, **options) as reward:
        results = reward.score([group(asked(), *texts)])[0]
    assert judge.open == 0
    return results, judge.prompts


def test_the_score_is_the_mean_of_the_marks():
    results, prompts = judged(by_words, "right", "short and right", "neither")
    assert [result.score for result in results] == pytest.approx([0.5, 1.0, 1.5 / 9])
    assert results[0].detail == "9 0"
    assert "1: It is right.\n2: It is short." in prompts[0] and "user: What is it?" in prompts[0]


def test_an_answer_without_text_is_worth_0_without_asking():
    results, prompts = judged(by_words, UNENDING, " ")
    assert [(result.score, result.parsed) for result in results] == [(0.0, False)] * 2
    assert not prompts


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("I like it.", "no mark for criterion 1"),
        ("1: 5\n2: 11", "off the scale"),
        ("<think>let me see", "judge_tokens"),
        (Completion((), (), "deadline", 0, 0, 0), "did not finish (deadline"),
    ],
)
def test_failures_of_the_judge_are_masked(says, message):
    [result], _ = judged(lambda prompt: says, "right")
    assert (result.score, result.status) == (None, "error")
    assert message in result.detail


def test_an_engine_that_fails_is_an_error():
    def dies(prompt):
        raise RuntimeError("connection lost")

    [result], _ = judged(dies, "right")
    assert result.status == "error" and "connection lost" in result.detail


def test_a_checklist_is_made_once_for_each_question():
    def says(prompt):
        return by_words(prompt) if "<|criteria|>" in prompt else "Sure:\n- It is right.\n- It is short.\n- It rhymes."

    judge = Judge(says)
    with RubricReward(judge, most_criteria=2) as reward:
        groups = [group(asked(), "right", "short"), group(asked(), "neither")]
        first = reward.score(groups)
        again = reward.score(groups[:1])
    made = [prompt for prompt in judge.prompts if "<|criteria|>" not in prompt]
    assert len(made) == 1 and "at most 2" in made[0]
    assert [[result.score for result in row] for row in first][:1] == [
        [result.score for result in row] for row in again
    ]


def test_without_a_checklist_there_is_no_score():
    [result], prompts = judged(lambda prompt: "I would rather not.", "right", criteria=None)
    assert result.status == "error" and "no checklist could be made" in result.detail
    assert len(prompts) == 1


def test_a_question_may_have_its_own_criteria():
    judge = Judge(lambda prompt: "1: 9")
    with RubricReward(judge, CRITERIA) as reward:
        question = asked(criteria=["It rhymes."])
        assert reward.check(question) is None and reward.check(asked()) is None
        assert "data.criteria is invalid" in reward.check(asked(criteria="all"))
        assert reward.score([group(question, "yes")])[0][0].score == 1.0
    assert "1: It rhymes." in judge.prompts[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criteria": []}, "criteria is invalid"),
        ({"criteria": [" "]}, "criteria is invalid"),
        ({"most_criteria": 0}, "most_criteria is invalid: 0"),
        ({"judge_tokens": 0}, "judge_tokens is invalid: 0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RubricReward(Judge(by_words), **options)
    with pytest.raises(RuntimeError, match="is not open"):
        RubricReward(Judge(by_words), CRITERIA).score([])
