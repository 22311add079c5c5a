"""Judge output and its value: a verdict, a score, or unreadable."""

import contextlib
import time

import pytest

from nbg_lightning.scoring.judgements import agreed, read_pairwise, read_score, read_yes_or_no

A = """
A | a | A. | a. | **A** | "A" | (A) | [[A]] | [[A>>B]] | Answer: A | Answer: **A** | answer a | Ａ | Option A | Answer A
The better answer is A | The better answer is (A). | The best response is A | A is better than B | A is better
A is much better. | Response A is clearly better | B is worse than A | B is worse | I prefer answer A | I prefer A.
I choose A over B | A wins | A > B | B < A | Verdict: A | Final verdict: A | My choice is A. | The winner is A
A's answer is better | \\boxed{A} | <answer>A</answer> | A, because it is correct | A because it is correct.
{"winner": "A"} | {"reason": "B is better in style", "verdict": "A"} | Assistant A is better.
Although B is longer, A is better. | While A and B are equally long, A is better.
B is better in style, but overall A is better. | I'd go with A | I'd say A | The stronger answer is A.
Both are fine, but A is better. | The worse answer is B. | A\\n\\nIt is correct.
B is better at first sight.\\nFinal answer: A | Ａｎｓｗｅｒ： Ａ | A outperforms B | Hence, A is preferable
A is the better answer | A is the winner
A better than B | A edges out B. | A slightly better | I lean towards A | The first answer is better | The former is better
Answer 1 is better | Response 1 | A is more accurate than B | B is not as good as A | B is less helpful than A | A does better
A did better than B | A performs better | A provides a better answer | A gives the more accurate answer | Overall: A
I think A is better | Essay A is better | So A wins | In my view A is better | To me A is better. | Honestly A wins
A (B is too short) | Answer: A (B has an error). | A [B is off-topic] | On the other hand A is superior | I am sure A is better
A easily wins | Final verdict: A (although B is better written)
Going with A | 答案A更好 | A更好 | 我选择A | A 比 B 好 | 更好的答案是A | <verdict>A</verdict> | A is superior. | (a) is better
"""
B = """
B | b. | **B** | Option B | The better answer is B | Answer: B | B is better than A | A is worse than B
I prefer answer B | Ｂ | A closer look shows that B is better | A closer look shows that B is better.
A careful reading suggests B is better. | A fair judge would say: B | [[B]] | A is good, but B is better.
A is clearer, B is better. | Better: B | A better answer is B | As a judge, I prefer B. | B wins.
B (A is too short) | B (A is wrong; it lacks a proof) | Option B (A is off-topic) | **B** (clearer) | (B) (A ends in the middle)
Summary B is better | I find B better | Translation B wins | I believe B is superior | Poem B is much better.
The better essay is B | The second answer is better | The latter is better | Response 2 wins
A is not as good as B | B 更好 | A loses | Not A. B.
"""
TIE = """
tie | Tie. | A tie | a tie | It's a tie | It’s a tie. | It's a draw | A draw. | Draw | A and B are equal
A and B are equally good | Both are equally good | Both answers are equally good. | Neither | Neither.
Neither is better | Neither answer is better. | They are equal | [[A=B]] | [[C]] | [[tie]] | Answer: tie
Verdict: a tie | {"winner": "tie"} | Both are the same | There is no clear winner. | The answers are identical | A = B
They tie | A and B tie | A == B | A ≈ B | The same | Answers A and B are of equal quality | It's a wash | 平局 | 一样好
I'd say it's a tie | It is a tie between A and B. | Ｔｉｅ | The verdict is: tie
"""
UNREADABLE = """
I like both, in their way. | A or B | A and B | A, B, or tie | A/B | A vs. B | Answer: A or B
Answer with A, B, or tie. | Which is better, A or B? | A proton | Answer: A proton | A better answer would be longer.
A closer look is needed. | A is not better. | I don't think A is better. | A is longer. | Banana | ?
If A is better, it is not clear. | Answer A and answer B | A is better. B is better. | It's not a tie. | {"winner": 1}
{"winner": "A or B"} | I prefer a short reply. | The best answer is a short one. | A is clearer and B is more complete.
Both | to break the tie
Vitamin B is better | Vitamin B is better. | Plan B is better | Hepatitis B is worse | Group A wins | Cardi B wins
Team A beats team B | Grade A is preferable | B vitamin wins | Type A is stronger | Appendix A is better | Influenza B is worse.
the vitamin A is better | I think plan B is better
With hepatitis B worse, nothing is said. | A (B is better) | (A is better; B is better)
"""


def cases(table):
    return [each.strip().replace("\\n", "\n") for line in table.strip().split("\n") for each in line.split(" | ")]


@pytest.mark.parametrize("text", cases(A))
def test_the_first_is_better(text):
    assert read_pairwise(text) in ((0.75, 1.0) if "[[" in text else (1.0,))


@pytest.mark.parametrize("text", cases(B))
def test_the_second_is_better(text):
    assert read_pairwise(text) == 0.0


@pytest.mark.parametrize("text", cases(TIE))
def test_they_are_even(text):
    assert read_pairwise(text) == 0.5


@pytest.mark.parametrize("text", [*cases(UNREADABLE), "", " \n"])
def test_no_verdict_is_guessed(text):
    with pytest.raises(ValueError, match=r"verdict|neither A, B nor tie"):
        read_pairwise(text)


@pytest.mark.parametrize(
    ("first", "swapped", "worth"),
    [
        (1, 0, 1),
        (0, 1, 0),
        (1, 1, 0.5),
        (0, 0, 0.5),
        (0.5, 0.5, 0.5),
        (1, 0.5, 0.5),
        (0.5, 0, 0.5),
        (0.5, 1, 0.5),
        (0.75, 0, 0.875),
    ],
)
def test_both_orders_must_agree(first, swapped, worth):
    assert agreed(first, swapped) == worth
    assert agreed(swapped, first) == 1 - worth  # seen from the other answer


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 8}', 8),
        ('{"score": "8"}', 8),
        ('{"score": "8/10"}', 8),
        ('{"score": "8 out of 10"}', 8),
        ('{"score": 7.5}', 7.5),
        ('{"reason": "a { in it", "score": 8}', 8),
        ('{"parts": {"score": 2}, "score": 8}', 8),
        ('{"score": 3}\nNo, wait:\n{"score": 8}', 8),
        ('{"score": 8} {"score": 9', 8),
        ('```json\n{"score": 8}\n```', 8),
        ('Set {x, y}: {"score": 8}', 8),
        ("Score: 8", 8),
        ("**Score:** 8/10", 8),
        ("The score is 8.", 8),
        ("I give it 8/10.", 8),
        ("8", 8),
        ("8/10", 8),
        ("８／１０", 8),
        ("10", 10),
        ("Score - 8", 8),
        ("Rating: 8", 8),
        ("Rating: [[8]]", 8),
        ("[[8]]", 8),
        ("Score (1-10): 8", 8),
        ("Score (out of 10): 8", 8),
        ("\\boxed{8}", 8),
        ("<score> 8 </score>", 8),
        ("评分：8分", 8),
    ],
)
def test_marks(text, score):
    assert read_score(text, 1, 10) == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fine",
        '{"score": 11}',
        '{"score": 0}',
        '{"score": -3}',
        '{"score": true}',
        '{"score": null}',
        '{"score": [8]}',
        '{"score": {"value": 8}}',
        '{"score": NaN}',
        '{"score": Infinity}',
        '{"score": 1e999}',
        '{"score": "1e999"}',
        '{"score": "nan"}',
        '{"score": 8, "score": 2}',
        '{"score": "8/5"}',
        '{"score": "80/100"}',
        '{"score": ' + "9" * 5000 + "}",
        '{"score": 8',
        "Score: 8e5",
        "Score: 80%",
        "Score: 8/9",
        "Score: 7-8",
        "Score: 7 or 8",
        "Score: -8",
        "Score: 1e999",
        "clarity 3/10, tone 8/10",
        "8/100",
        "the 8 ways",
        "0.8.1",
    ],
)
def test_no_mark_is_guessed(text):
    with pytest.raises(ValueError, match=r"score|several"):
        read_score(text, 1, 10)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes", True),
        ("**Yes**, they agree. No step is missing.", True),
        ("No doubt, yes", True),
        ("No question about it: yes.", True),
        ("Answer: Yes", True),
        ("<answer>yes</answer>", True),
        ("Yes it does", True),
        ("No, it ends with 7.", False),
        ("No. Yes would be wrong", False),
        ("No problem with style, but no", False),
        ("Yes and no", None),
        ("No doubt it agrees", None),
        ("Yesterday", None),
        ("", None),
    ],
)
def test_yes_or_no(text, verdict):
    if verdict is None:
        with pytest.raises(ValueError, match="neither yes nor no"):
            read_yes_or_no(text)
    else:
        assert read_yes_or_no(text) is verdict


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "}",
        '{"score": ',
        '{"a": {',
        "[[A>",
        "A is ",
        "A, ",
        "score ",
        "8/",
        "*",
        "\n",
        "not ",
        "tie ",
        "the answer ",
        "a",
        "9",
        "(",
        "is a ",
    ],
)
def test_time_is_linear_in_the_length(piece):
    text = piece * (1_000_000 // len(piece))
    begin = time.process_time()
    for read in (read_pairwise, read_yes_or_no, lambda said: read_score(said, 1, 10)):
        with contextlib.suppress(ValueError):
            read(text)
    assert time.process_time() - begin < 3
