"""Chains of thought for given solutions: consistent ones are kept, others are sampled again, and all are counted."""

import json

import pytest

from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.solutions.reconstruction import CHAIN, ReconstructionBuilder, announced_answer
from nbg_lightning.data.chat_sources import ChatList
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines.chat import ChatModel
from nbg_lightning.rewards.protocol import Reward, RewardResult
from nbg_lightning.scoring.verdicts import extract_number, number
from nbg_lightning.testing.benchmarks import AnsweringEngine

LONG = "First I add the eggs in the basket, two and three, which I count again to be sure of it. "
GOOD = LONG + "The answer is 5."


class Numbers(Reward):
    """The last number of the text is the answer."""

    name = "numbers"

    def __init__(self):
        self.entered = 0

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *_):
        self.entered -= 1

    def check(self, question):
        return None if question.answer is not None and number(question.answer) is not None else "no number"

    def score(self, groups):
        assert self.entered == 1
        return [[self._one(group.question, answer.final) for answer in group.answers] for group in groups]

    def _one(self, question, text):
        found = extract_number(text)
        if "no verdict" in text:
            return RewardResult(None, "timeout", "too slow")
        return RewardResult(float(found == number(question.answer)), detail=f"{found} for {question.answer}")


class Told(AnsweringEngine):
    """Answers by the kind of question; chains in the order in which they are given, the last for ever."""

    interface = "chat"

    def __init__(self, chains=(GOOD,), summary="It adds two and three.", verdict="YES"):
        super().__init__(self._answer)
        self.left, self.told, self.asked = list(chains), {"summary": summary, "verdict": verdict}, []

    def _answer(self, prompt, sample):
        if prompt.text.endswith(CHAIN):
            kind, answer = "chain", self.left.pop(0) if len(self.left) > 1 else self.left[0]
        elif "YES or NO" in prompt.text:
            kind, answer = "verdict", self.told["verdict"]
        else:
            kind, answer = "summary", self.told["summary"]
        self.asked.append((kind, prompt.text))
        return answer


def conversation(question="How many eggs are two and three?", solution="There are 5 eggs.", **more):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": solution}]
    return {"messages": messages, **more}


def build(folder, engine=None, conversations=None, **settings):
    settings = {"reward": Numbers(), **settings}
    return ReconstructionBuilder(
        out=str(folder),
        models={"m": ChatModelConfig(engine or Told())},
        conversations={"given": ChatList([conversation(answer="5")] if conversations is None else conversations)},
        completer="m",
        progress=False,
        **settings,
    )


@pytest.fixture(scope="module")
def chat_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "bpe"
    train_bpe([GOOD, "There are 5 eggs. How many eggs are two and three?"], 320, folder)
    return Tokenizer(folder)


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_a_conversation_gets_its_thinking(tmp_path):
    engine = Told()
    report = build(tmp_path, engine).run()
    assert report["outcomes"] == {"kept": {"count": 1}}
    assert report["checks"] == {"gold answer: agree": 1}
    [row] = rows(tmp_path, "reasoning")
    assert row["messages"] == [
        {"role": "user", "content": "How many eggs are two and three?"},
        {"role": "assistant", "content": "There are 5 eggs.", "reasoning_content": GOOD},
    ]
    assert row["reasoning"]["summary"] == "It adds two and three."
    assert row["answer"] == "5"
    (_, summary), (_, chain) = engine.asked
    assert "Solution:\nThere are 5 eggs." in summary
    assert chain.startswith(summary)
    assert "It adds two and three." in chain


def test_the_output_is_what_a_chat_datamodule_trains_on(tmp_path, chat_tokenizer):
    from nbg_lightning.chat.conversation import Conversation
    from nbg_lightning.chat.nanbeige import NanbeigeRenderer

    build(tmp_path).run()
    [row] = rows(tmp_path, "reasoning")
    rendered = NanbeigeRenderer(chat_tokenizer.transformers).render(Conversation.from_dict(row))
    trained = [i for i, weight in zip(rendered.ids, rendered.loss_weights, strict=True) if weight]
    text = chat_tokenizer.decode(trained)
    assert "count again to be sure" in text
    assert "There are 5 eggs." in text
    assert "How many eggs" not in text


def test_a_chain_with_another_answer_is_drawn_again(tmp_path):
    engine = Told(chains=[LONG + "So 6.", LONG + "So 7.", GOOD])
    report = build(tmp_path, engine, chains=3).run()
    assert report["checks"] == {"gold answer: agree": 1, "gold answer: disagree": 2}
    [row] = rows(tmp_path, "reasoning")
    assert [check["agrees"] for check in row["reasoning"]["checks"]] == [False, False, True]
    assert report["mean_chains_needed"] == 3


def test_chains_that_never_agree_are_dropped_with_their_trace(tmp_path):
    report = build(tmp_path, Told(chains=[LONG + "So 6."]), chains=2).run()
    assert report["outcomes"]["inconsistent"] == {"count": 1, "first": "6 for 5"}
    assert rows(tmp_path, "reasoning") == []
    [trace] = rows(tmp_path, "traces")
    assert len(trace["checks"]) == 2
    assert [entry["step"] for entry in trace["trace"]] == ["summary", "chain/1", "chain/2"]


def test_a_wrong_solution_is_no_target(tmp_path):
    wrong = [conversation(solution="There are 6 eggs.", answer="5")]
    engine = Told(chains=[LONG + "So 6."])
    report = build(tmp_path, engine, wrong).run()
    assert report["outcomes"]["solution_wrong"] == {"count": 1, "first": "6 for 5"}
    assert engine.asked == []  # found before anything is asked
    report = build(tmp_path / "all", engine, wrong, check_solution=False).run()
    assert report["checks"] == {"answer of the solution: agree": 1}


def test_without_gold_the_solution_s_own_answer_counts(tmp_path):
    report = build(tmp_path, conversations=[conversation(solution="The answer is 5.")]).run()
    assert report["checks"] == {"answer of the solution: agree": 1}
    report = build(tmp_path / "year", conversations=[conversation("When did she live?", "Until 1817.")]).run()
    assert report["outcomes"]["not_checkable"]["count"] == 1  # a year in a text is no announced answer


@pytest.mark.parametrize(
    ("verdict", "kept", "check", "unparsable"),
    [("YES", 1, "judge: agree", 0), ("no.", 0, "judge: disagree", 0), ("Perhaps", 0, "judge: no verdict", 1)],
)
def test_a_judge_where_nothing_can_be_compared(tmp_path, verdict, kept, check, unparsable):
    texts = [conversation("Why is the sky blue?", "Because blue light is scattered most.")]
    report = build(tmp_path, Told(verdict=verdict), texts, judge="m", chains=1).run()
    assert report["rows"]["reasoning"] == kept
    assert report["checks"] == {check: 1}
    assert report["outcomes"].get("agreement_unparsable", {"count": 0})["count"] == unparsable


def test_without_a_judge_what_cannot_be_compared_is_dropped(tmp_path):
    texts = [conversation("Why is the sky blue?", "Because blue light is scattered most.")]
    report = build(tmp_path, conversations=texts).run()
    assert report["outcomes"]["not_checkable"] == {"count": 1, "first": "the solution announces no answer"}


def test_a_reward_without_a_verdict_is_not_a_disagreement(tmp_path):
    report = build(tmp_path, Told(chains=[LONG + "no verdict"]), chains=2).run()
    assert report["outcomes"]["check_failed"] == {"count": 1, "first": "too slow"}
    assert report["checks"] == {"gold answer: no verdict": 2}


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (LONG + "The given solution is 5.", "mentions_solution"),
        (LONG + "According to the summary it is 5.", "mentions_solution"),
        ("It is 5.", "too_short"),
        (LONG + "</think> 5", None),
        ("I'm sorry, but I can't do that. " + LONG, "refused"),
    ],
)
def test_unusable_chains(tmp_path, chain, reason):
    report = build(tmp_path, Told(chains=[chain]), tries=2).run()
    if reason is None:  # what a model thinks before its answer is not the answer
        assert report["outcomes"]["chain_too_short"]["count"] == 1
    else:
        assert report["answers"]["chain"][reason]["count"] == 2
        assert report["outcomes"][f"chain_{reason}"]["count"] == 1


def test_conversations_without_a_solution(tmp_path):
    given = [
        conversation(solution=" "),
        {"messages": [{"role": "user", "content": "Only a question?"}]},
        {"messages": []},
        {"text": "a document"},
        conversation("x" * 300),
        conversation(answer="5"),
        conversation(answer="5"),
    ]
    report = build(tmp_path, conversations=given, max_characters=200).run()
    became = {kind: each["count"] for kind, each in report["outcomes"].items()}
    assert became == {"kept": 1, "invalid": 4, "too_long": 1, "duplicate": 1}


def test_old_reasoning_is_replaced(tmp_path):
    given = conversation(answer="5")
    given["messages"][1]["reasoning_content"] = "old"
    build(tmp_path, conversations=[given]).run()
    [row] = rows(tmp_path, "reasoning")
    assert row["messages"][1]["reasoning_content"] == GOOD


def test_a_restart_asks_nothing_twice(tmp_path):
    class Killed(BaseException):
        pass

    given = [conversation(f"How many are {n} and 3?", f"There are {n + 3}.", answer=str(n + 3)) for n in range(5)]

    def told(limit):
        count = [0]

        def answer(prompt, sample):
            count[0] += 1
            if count[0] > limit:
                raise Killed
            if not prompt.text.endswith(CHAIN):
                return "a summary"
            n = int(prompt.text.split("How many are ")[1].split()[0])
            return LONG + f"So {n + 3}."

        engine = AnsweringEngine(answer)
        engine.interface = "chat"
        return engine, count

    build(tmp_path / "whole", told(99)[0], given, items_per_batch=2).run()
    with pytest.raises(Killed):
        build(tmp_path / "killed", told(5)[0], given, items_per_batch=2).run()
    engine, count = told(99)
    build(tmp_path / "killed", engine, given, items_per_batch=2).run()
    assert count[0] == 10 - 4  # two whole calls had been answered
    for name in ("reasoning", "traces"):
        assert (tmp_path / "killed" / f"{name}.jsonl").read_bytes() == (
            tmp_path / "whole" / f"{name}.jsonl"
        ).read_bytes()


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="give a reward, a judge or both"):
        build(tmp_path, reward=None)
    with pytest.raises(ValueError, match="judge is invalid: 'nobody'"):
        build(tmp_path, judge="nobody")
    with pytest.raises(ValueError, match="chains is invalid: 0"):
        build(tmp_path, chains=0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("so \\boxed{7}.", "7"), ("The answer is 4.", "4"), ("6 + 6 = 12", None), ("28080", "28080"), ("Because.", None)],
)
def test_announced_answers(text, answer):
    assert announced_answer(text) == answer


def test_a_model_is_opened_as_a_chat():
    assert isinstance(ChatModelConfig(Told()).open_chat(), ChatModel)
