"""Refusals, and texts that only sound like one."""

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
I'm sorry, but I can't assist with that.
I’m really sorry, but I can’t help you with that.
I am sorry, I cannot do that.
Sorry — I can't help.
I'm sorry. I can't do this.
Oh, I'm sorry, but I can't.
I apologize, but I'm unable to help with this request.
I do apologize, but I cannot comply.
Apologies, but I can't do that.
Regretfully, I cannot help.
Regrettably I can't do this.
I must respectfully decline.
I respectfully decline to answer.
I'd prefer not to answer that.
I will have to decline.
I'll have to decline this request.
I'm going to have to decline.
I won't be able to help with that.
I will not be able to assist.
I'm not able to help with that.
I am not able to assist you with this.
I can't provide that information.
I can't provide instructions for that.
I cannot in good conscience help.
I cannot generate that content.
I can't create content like that.
I can't fulfill this request.
I cannot fulfil your request.
I can't engage with this.
I can't participate in this.
I can't support that.
I cannot condone violence.
I can't continue with this.
I'm unable to provide legal advice.
I am unable to browse the internet.
I don't have the ability to do that.
I do not have access to real-time data.
I don't have personal opinions.
As an AI developed by OpenAI, I can't do that.
As an artificial intelligence, I cannot feel.
As a language model I cannot do so.
As an AI language model, I'm not able to do that.
As an AI, I'm unable to help.
As an AI assistant, I can't help with that.
As your assistant, I can't do this.
I'm just a language model and can't help with that.
I'm an AI and I don't have feelings.
This request violates my guidelines.
That would be illegal, so I can't help.
That goes against my guidelines.
It would be unethical for me to help.
It is not appropriate for me to answer.
It's not something I can help with.
This is not something I can help with.
That's not something I can do.
That's something I can't help with.
Your request goes against our policy.
Due to safety concerns, I can't help.
For safety reasons, I cannot help.
For ethical reasons I won't do that.
While I understand your curiosity, I can't help with that.
I understand that you are upset, but I can't help with that.
I appreciate your question, but I can't answer it.
Thank you for your question, but I cannot answer it.
Thanks for reaching out, but I can't help.
Unfortunately, I'm not able to do that.
Unfortunately, as an AI, I can't.
Unfortunately this is beyond my abilities.
My guidelines do not allow me to do that.
My programming does not allow that.
My policies prohibit that.
I’m not comfortable with that.
I do not feel comfortable answering.
I don’t feel comfortable doing that.
I am not comfortable discussing this.
I cannot, and will not, do that.
I refuse.
I refuse to do this.
I decline.
No, I can't help with that.
No. I won't help with that.
Nope, I can't do that.
I couldn't help with that.
I shouldn't help with that.
I must refuse.
I have to refuse.
Request denied.
I'm afraid that I cannot help.
I'm afraid I'm unable to do that.
I regret that I can't help.
I regret to inform you that I can't help.
Please understand that I can't help.
Please note that I cannot help with that.
*I'm sorry*, I can't
"I'm sorry, but I can't help with that."
I can’t help with that request.
I can‘t help with that.
I cant help with that.
i cant do that
I canʼt do that
I can`t do that
I can′t do that
I CAN'T DO THAT
对不起，我不能帮助你。
抱歉，我不能协助这个请求。
很抱歉，我不能满足您的要求。
对不起，这个问题我无法回答。
非常抱歉，但我无法提供相关信息。
我不能帮助您完成这个任务。
我无法协助。
作为AI语言模型，我不能提供医疗建议。
作为一个AI助手，我没有个人观点。
抱歉，作为人工智能，我无法...
不好意思，我做不到。
Lo siento, pero no puedo ayudar con eso.
Je suis désolé, mais je ne peux pas vous aider.
Es tut mir leid, aber ich kann dabei nicht helfen.
Mi dispiace, ma non posso aiutarti.
Desculpe, mas não posso ajudar com isso.
Извините, но я не могу помочь с этим.
申し訳ありませんが、お手伝いできません。
죄송하지만 도와드릴 수 없습니다.
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
I can't see any reason why not: 5.
I can't think of a better example than Paris.
I can't imagine a simpler proof: x = 2.
I cannot stress enough that x = 2.
I cannot be more than 5, so i = 4.
I can't help but smile: 7.
I'm sorry you are ill. Drink water.
I'm sorry to hear that! Here are some tips: rest.
Sorry to hear that. Try restarting.
I'm sorry for your loss. Here is a letter: Dear Sir,
Sorry about the confusion. x = 4.
Sorry, I made a mistake. x = 4.
I apologize for the confusion. The capital is Paris.
My apologies for the mistake. It is 7.
Unfortunately, the integral diverges.
Unfortunately, it rained. So 3.
Unfortunately not.
I don't have to compute it: 5.
I do not need a calculator: 5.
I don't know.
I am not sure, but it is 4.
I'm not certain.
I cannot find x, since it's underdetermined. 
No, it cannot.
No one can help with it but him.
Can you help? Yes.
You can't do that in Python.
It can't be negative, so x = 3.
We can't conclude that n is even, so the claim is false.
We cannot have a cycle, so the graph is a tree.
We can't use the formula, so we integrate: 5.
We cannot simplify further, so 3/7.
I won the race.
I will not use induction; instead I compute directly: 5.
I will not go into details: 5.
I can't recommend this book enough.
I can't say enough good things.
As a model, consider the ideal gas.
As an AI researcher, I would say yes.
As a language teacher, I recommend practice.
As an AI, I'd be happy to help! 5.
As an AI language model, I can help: 5.
As an AI I think 5.
The assistant can't help.
I refuse to believe it, but it is 5.
I decline Latin nouns as follows: rosa, rosae.
This violates the triangle inequality, so no.
This request violates HTTP rules; use POST.
This would be harmful to plants.
That is against the law of cosines.
It is unethical to lie, said Kant.
The policy violates the constitution.
My guidelines: 1. be brief
I'm afraid of spiders.
I'm afraid it is 5.
I'm unable to find an error; it's correct.
Dear Sir, I am unable to attend. Yours, X
'I can't go,' she said.
"Sorry, I can't come," he wrote.
Sorry is the hardest word.
Sorry! by Hasbro is a board game.
print("I can't help")
I could not agree more.
I couldn't agree more: 5
I wouldn't worry: 5
I won't lie, it's 5.
I shouldn't have to say: 5
I must say it is 5.
I have to say it's 5
I'd rather use induction.
I prefer to answer 5
Please note that x > 0.
Hello! How can I help?
Thanks for asking! 5
对不起，我刚才算错了，应该是7。
我不知道。
我不会忘记那一天。
我不能同意更多。
作为一个人工智能，我认为是5。
抱歉让你久等了，结果是7。
无法整除，所以不是。
Lo siento por el error: 5.
Désolé pour l'erreur : 5
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
