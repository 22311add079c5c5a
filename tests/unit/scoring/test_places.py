"""Location of the answer in a text: marked, announced in any language, negated, or last."""

import pytest

from nbg_lightning.rewards.math import extract_from
from nbg_lightning.scoring.mathematics.compare import compare
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.verdicts import score_math, score_number

NUMBERS = r"""
18 | The answer is 18. | #### 18 | ####18 | #### $18 | #### 18. | **Final Answer**: 18 | **Final Answer:** $18$
18 | ## Final Answer↵↵18 | ### Answer↵**18** | Final Answer↵18 dollars
18 | The final answer is $\boxed{18}$. I hope it is correct.
18 | Final Answer: The final answer is $18$. I hope it is correct. | Answer = 18 | ANSWER: 18 | answer:18
18 | The answer: 18 eggs | So the answer would be 18. | the correct answer is: 18 | The answer is: **18**
18 | The answer is therefore 18. | The answer is thus $18. | The answer is simply 18 | The answer is equal to 18.
18 | The answer is x = 18. | Result: 18 | La respuesta es 18. | Die Antwort ist 18. | La réponse est 18. | 答案是18。
18 | 答案：18 | 答案是 $\boxed{18}$。 | Ответ: 18 | 所以，答案为18元。 | Đáp án: 18 | 答えは18です。 | A resposta é 18
18 | She makes 9 * 2 = $18 every day. | so 9*2 = <<9*2=18>>18 dollars. #### 18
18 | The answer is 18, because 9 times 2 is 18 and 3 are left. | The answer is 9 x 2 = 18. | The answer is 9 + 9 = 18
18 | The answer is (18). | The answer is \(18\). | The answer is \[18\] | The answer is $$18$$
18 | Let me think. Step 1: 5. Step 2: 18. | 18 | 18. | = 18 | \boxed{18} | \boxed{17} wait, no: \boxed{18} | \boxed{18
18 | \boxed 18 | \boxed{ 18 } | $\boxed{18}$ dollars | \boxed{\$18} | \fbox{18} | \boxed{\text{Answer: }18}
18 | \boxed{Answer: 18} | \boxed{18\text{ eggs per day}} | \boxed{\mathbf{18}} | \boxed{9 \times 2 = 18}
18 | <answer>18</answer> | <answer>↵18↵</answer> | <answer>$18$</answer> | <answer>The answer is 18</answer>
18 | <answer>\boxed{18}</answer> | <ANSWER>18</ANSWER> | <answer>17</answer> <answer>18</answer>
18 | <final_answer>18</final_answer> | I get 18, not 17. | It is 18 and isn't 17
not 18 | Therefore 18↵#### 18↵↵Question: what is 5+5? #### 10 | It is not 18. | \boxed{18}\boxed{17}
not 18 | \boxed{18}↵↵\boxed{} | \boxed{17 \text{ or } 18} | <answer>17</answer>↵Hmm, 18.
1200 | The answer is 1,200. | The answer is 1 200 m | The answer is $1,200.00 | The answer is 1.2 thousand
not 1200 | The answer is 1.200 | The answer is 1,200,000. | the answer is 1,↵200
-5 | The answer is -5. | The answer is minus 5 | The answer is negative 5 | The answer is −5 | \boxed{-5}
not -5 | The answer is 5
not 5 | The answer is - 5
5 | Answer – 5 | Answer - 5
0.5 | The answer is 1/2 | The answer is .5 | The answer is 50% | The answer is \frac{1}{2}
0.5 | The answer is \frac{1}{2}. | The answer is ½. | The answer is 0.5.
not 0.5 | The answer is 5.
not 3 | The answer is between 2 and 3. | The answer is 2 or 3 | The answer is not 3. | The answer isn't 3, it's 4.
not 3 | Is the answer 3? No, it is 4. The answer is 4. | The answer is 3? No.↵The answer is 4
3 | The answer is not 4, it's 3. | The answer is 3.↵↵Let me double check: 3 + 4 = 7.
3 | I think the answer is 3 but I am not sure; 7 is possible as well | My answer is 3 | Answers: 3
3 | Hence the answer, 3. | Answer↵3 | Answer:↵↵3 | Answer:↵$$3$$ | Answer:↵\[↵3↵\] | Answer:↵```↵3↵```
7 | The three answers are 7.
not 7 | 2 + 5 = 7.↵↵Q: How many apples?↵A: 12
16 | The answer is 4^2 = 16 | The answer is $4^2$ | The answer is 2^4.
1024 | The answer is $2^{10}$.
"""
EXPRESSIONS = r"""
\frac{1}{2} | The answer is $\frac12$.
x+1 | The answer is $x+1$. | Thus $y = x+1$.
(1,2) | The answer is (1, 2). | The answer is $(1, 2)$. | The solution is $(1,2)$
\sqrt{2} | The answer is √2. | Answer: sqrt(2)
2\pi | the answer is 2π.
\text{Monday} | The answer is Monday. | \boxed{\text{Monday}}
1,2 | The answers are 1 and 2. | The answer is 1 and 2 | The answers are $x=1$ and $x=2$. | The answer is $1$ or $2$.
1,2 | The answers are $1, 2$.
x=3 | so \[ x = 3 \]
3 | so \[ \boxed{x = 3} \] | $\boxed{3}$ ↵↵(Note: $x \ne 4$) | \boxed{3}^{\circ} | The answer is $\text{3}$
\frac{3}{4} | \boxed{\frac{3}{4}↵} | \[\boxed{↵\frac{3}{4}↵}\]
90^\circ | \boxed{90^\circ}
"""


def cases(table):
    """Gold, text and whether it is right; ``not`` before a gold: its texts are wrong; ``↵`` is the end of a line."""
    for line in table.strip().split("\n"):
        gold, *texts = line.split(" | ")
        for text in texts:
            yield gold.removeprefix("not "), text.replace("↵", "\n"), not gold.startswith("not ")


@pytest.mark.parametrize(("gold", "text", "right"), cases(NUMBERS))
def test_numbers(gold, text, right):
    assert score_number(text, gold).score == float(right)
    found = extract_from(text, "number")  # as the reward of mathematics reads it
    assert (found is not None and compare(read(gold), read(found)) is True) is right


@pytest.mark.parametrize(("gold", "text", "right"), cases(EXPRESSIONS))
def test_expressions(gold, text, right):
    assert score_math(text, gold).score == float(right)
