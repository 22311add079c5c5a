"""What declines to answer, and what only sounds like it."""

import time

import pytest

from nbg_lightning.scoring.refusal import is_refusal

REFUSALS = """
I'm sorry, but I can't help with that.
I’m sorry, but I can’t help with that.
Iʼm sorry, but I canʼt assist with this request.
I'M SORRY, BUT I CAN'T HELP WITH THAT.
**I'm sorry**, but I cannot assist.
> I cannot help with that.
"I can't help with that."
“I can’t do that.”
   I won't do this.
Sorry, I can't do that.
Sorry, but I won’t write that.
Sorry.
I'm so sorry, I am unable to provide that.
I apologize, but I cannot fulfill this request.
I apologise, but I'm not able to answer.
My apologies, I can't share that.
Unfortunately, I can't say.
Unfortunately I am not able to help.
As an AI language model, I have no opinion.
As an AI, I don't have personal opinions.
As an AI I must decline.
As a large language model, I cannot give medical advice.
I'm just an AI, I can't do that.
I am an AI assistant and I cannot help with this.
I cannot assist with that request.
I can not help you.
I am unable to do so.
I'm unable to answer this question.
I will not write this.
We cannot provide this.
I must decline.
I decline to answer.
I refuse to answer.
I have to decline.
I'd rather not answer.
I'm not comfortable writing that.
I don't feel comfortable with that.
I don't think I can help with that.
I'm afraid I can't do that.
Can't help with that.
Cannot comply.
Hello! I'm sorry, I can't help with that.
No, I won't do that.
I'm sorry, but this request violates the rules.
Sorry, that is against my guidelines.
It's against my policy to write this.
I cannot and will not help with that.
I simply can't help you.
I regret to say I can't help.
I'm not allowed to discuss this.
I can't tell you what the answer is.
# I can't help
很抱歉，我无法回答这个问题。
对不起，我不能提供这样的内容。
作为一个人工智能，我无法回答。
""".strip().split("\n")

ANSWERS = """
I can't believe it's 5, but the answer is 5.
I can’t believe it’s 5, but the answer is 5.
I'm sorry for the confusion; the answer is 7.
I’m sorry for my mistake. The result is 12.
Sorry for the delay. 42
Sorry is a word of five letters.
I apologize for the error above: x = 3.
I can do that: 4.
I can show that 2 + 2 = 4.
The AI cannot win, because the board is full.
I cannot overstate how simple this is: 9.
I can't help but notice that 3 divides 9.
I can't wait to show you: it is 8.
I can't stress this enough: check the units.
I cannot factor this, so I use the formula: x = 2.
I can't give an exact proof, but the answer is 5.
As an AI language model, I'd say 5.
As an AI, I can tell you that the capital is Paris.
As an example, take n = 3.
Unfortunately, the train leaves at 5.
Unfortunately, I arrive at a contradiction, so n is odd.
I won 5 games.
I will notice that 4 is even.
We cannot have x < 0, so the answer is 4.
We can't divide by zero, so x = 1.
You can't divide by zero.
One cannot do this in fewer than 3 moves.
It cannot be 3, so it is 4.
No, 7 is odd.
No.
Yes.
4
Hello! The answer is 5.
"I can't do that," said Dave; the speaker is Dave. The answer is Dave.
I'm not sure, but 5.
I am able to answer: 5.
Can I help? Yes: 5.
The policy of the state is neutral.
def f(): raise ValueError("I can't help")
\\boxed{5}
抱歉，之前算错了，答案是7。
我不能相信，答案是7。
这个数不能被3整除。
""".strip().split("\n")


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text):
    assert is_refusal(text)


@pytest.mark.parametrize("text", [*ANSWERS, "", " ", "\n\n5"])
def test_answers(text):
    assert not is_refusal(text)


@pytest.mark.parametrize("piece", ["I'm sorry ", "as an ", "sorry, ", "i ", "*", " ", "'", "我", "this is "])
def test_time_does_not_grow_with_the_text(piece):
    text = piece * (1_000_000 // len(piece))
    begin = time.process_time()
    is_refusal(text)
    assert time.process_time() - begin < 0.5
