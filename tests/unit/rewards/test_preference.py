"""A judge compares answers of a group; its position bias, nonsense and failures do not become scores."""

import itertools

import pytest
from answers import UNENDING, asked, group, scores, written

from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards import PairwisePreferenceReward
from nbg_lightning.rewards.preference import bradley_terry, pairs_of, win_rates
from nbg_lightning.testing.benchmarks import AnsweringEngine


def shown(prompt):
    """The two answers that a judge is shown."""
    first, second = prompt.text.split("<|answer A|>\n")[1].split("\n\n<|answer B|>\n")
    return first, second


def longer(prompt, sample):
    first, second = map(len, shown(prompt))
    return "tie" if first == second else "A" if first > second else "B"


def judged(judge, *texts, **settings):
    engine = AnsweringEngine(judge)
    with PairwisePreferenceReward(engine, **settings) as reward:
        results = reward.score([group(asked(), *texts)])
    return results[0], [prompt for prompts, _ in engine.calls for prompt in prompts]


def test_win_rate():
    results, prompts = judged(longer, "aa", "a", "aaa", opponents=2)
    assert [result.score for result in results] == [0.5, 0.0, 1.0]
    assert len(prompts) == 6  # 3 pairs, in both places
    assert "user: What is it?" in prompts[0].text
    assert {shown(prompt) for prompt in prompts} == set(itertools.permutations(["aa", "a", "aaa"], 2))


def test_a_judge_that_always_takes_the_first_finds_all_even():
    results, _ = judged(lambda prompt, sample: "A", "x", "yy", "zzz")
    assert [result.score for result in results] == [0.5] * 3


@pytest.mark.parametrize("even", ["tie", "A and B are equal.", "A tie"])
def test_a_verdict_in_one_order_only_is_no_half_win(even):
    results, _ = judged(lambda prompt, sample: "A" if shown(prompt)[0] == "x" else even, "x", "y")
    assert [result.score for result in results] == [0.5, 0.5]


def test_bradley_terry_of_a_chain():
    results, _ = judged(longer, "a", "aa", "aaa", "aaaa", scale="bradley_terry", opponents=3)
    found = [result.score for result in results]
    assert found == sorted(found) and 0 < found[0] < 0.5 < found[-1] < 1
    assert found[0] + found[3] == pytest.approx(1.0) and found[1] + found[2] == pytest.approx(1.0)


def test_comparisons_are_bounded():
    _, prompts = judged(longer, *("a" * (i + 1) for i in range(16)), opponents=4)
    assert len(prompts) <= 16 * 4


def test_judgements_that_cannot_be_read_are_errors():
    results, _ = judged(lambda prompt, sample: "I like both, in their way.", "a", "bb")
    assert [(result.score, result.status) for result in results] == [(None, "error")] * 2
    assert "cannot be read" in results[0].detail

    def sometimes(prompt, sample):
        return "?" if "ccc" in shown(prompt) else longer(prompt, sample)

    results, _ = judged(sometimes, "a", "bb", "ccc")
    assert [result.score for result in results] == [0.0, 1.0, None]
    assert results[2].status == "error"


@pytest.mark.parametrize("answer", ["A", " a.", "**A**", "Answer: A", "A is better"])
def test_ways_to_say_it(answer):
    swapped = answer.replace("A", "B") if "A" in answer.replace("Answer", "") else answer.replace("a", "b")
    swapped = swapped.replace("Bnswer", "Answer")
    results, _ = judged(lambda prompt, sample: answer if shown(prompt)[0] == "x" else swapped, "x", "y")
    assert [result.score for result in results] == [1.0, 0.0]


def test_an_engine_that_fails_is_an_error():
    def dies(prompt, sample):
        raise RuntimeError("connection lost")

    results, _ = judged(dies, "a", "b")
    assert {result.status for result in results} == {"error"} and "connection lost" in results[0].detail
    late = Completion((), (), "deadline", 0, 0, 0)
    results, _ = judged(lambda prompt, sample: late, "a", "b")
    assert "did not finish (deadline)" in results[0].detail
    results, _ = judged(lambda prompt, sample: "<think>let me see", "a", "b")
    assert "judge_tokens" in results[0].detail


def test_what_needs_no_judge():
    def never(prompt, sample):
        raise AssertionError("asked")

    results, prompts = judged(never, "same", "same", UNENDING, " ")
    assert prompts == []
    assert [result.score for result in results] == [(0.5 + 1 + 1) / 3, (0.5 + 1 + 1) / 3, 0.0, 0.0]
    assert [result.parsed for result in results] == [True, True, False, False]
    results, _ = judged(never, "alone")
    assert (results[0].status, results[0].detail) == ("error", "there is no other answer to compare with")


def test_several_groups():
    with PairwisePreferenceReward(AnsweringEngine(longer)) as reward:
        results = reward.score([group(asked(), "a", "bb"), group(asked()), group(asked(), "ddd", written("c"))])
    assert scores(results) == [[0.0, 1.0], [], [1.0, 0.0]]


@pytest.mark.parametrize(("count", "opponents"), [(2, 1), (3, 1), (5, 1), (6, 2), (7, 3), (8, 4), (16, 4), (4, 9)])
def test_pairs(count, opponents):
    pairs = pairs_of(count, opponents)
    assert len(set(pairs)) == len(pairs) and all(one < two for one, two in pairs)
    met = [sum(place in pair for pair in pairs) for place in range(count)]
    assert min(met) >= 1
    assert max(met) <= max(2 if opponents == 1 and count % 2 else 1, opponents)
    assert pairs_of(1, 4) == pairs_of(0, 4) == []


def test_bradley_terry_by_hand():
    """One win of the first: its strength solves s / (s + 1) + s^2 / (s^2 + 1) = 3 / 2, and the other has 1 / s."""
    first, second = bradley_terry(2, [(0, 1, 1.0)])
    strength = first / (1 - first)
    assert strength / (strength + 1) + strength**2 / (strength**2 + 1) == pytest.approx(1.5, abs=1e-8)
    assert first + second == pytest.approx(1.0)
    assert bradley_terry(3, [(0, 1, 0.5)]) == [0.5, 0.5, None]


def test_bradley_terry_knows_whom_one_beat():
    """Of two with one win and one loss, the one that beat the stronger is stronger; win rates are equal."""
    comparisons = [(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0), (3, 0, 1.0), (2, 3, 1.0)]
    assert win_rates(4, comparisons)[1] == win_rates(4, comparisons)[3] == 0.5
    chances = bradley_terry(4, comparisons)
    assert chances[3] > chances[1]


@pytest.mark.parametrize("settings", [{"opponents": 0}, {"judge_tokens": 0}, {"scale": "elo"}])
def test_settings(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} is invalid: "):
        PairwisePreferenceReward(AnsweringEngine(longer), **settings)
