import json

import pytest

from nbg_lightning.data.question import Question
from nbg_lightning.testing.prices import (
    NUM_TEST,
    PRICES,
    PriceChat,
    PriceFacts,
    PriceQuestions,
    Purchase,
    price,
    purchases,
    times,
)


def messages(source):
    return [row["messages"] for part in source.parts() for row in part.rows()]


def called(conversation):
    return [each["function"] for turn in conversation for each in turn.get("tool_calls", [])]


def test_the_tools_lead_to_the_answer():
    for number, question in enumerate(PriceQuestions("test").questions("test")):
        each = purchases("test")[number]
        assert times(each.number, price(each.item, question)) == int(question.answer)
        assert question.messages[0]["content"] == each.question
    assert number == NUM_TEST - 1
    with pytest.raises(KeyError):
        price("pin", Question((), data={"prices": {"pen": 4}}))


def test_no_purchase_is_in_two_splits_and_no_question_tells_its_price():
    test, train = purchases("test"), purchases("train")
    assert len({*test, *train}) == len(test) + len(train) == 512
    with pytest.raises(ValueError, match="no split 'rl'"):
        purchases("rl")
    assert Purchase("pen", 4, 9).question == Purchase("pen", 4, 2).question == "What do 4 pens cost?"
    assert len({each.price for each in train if each.question == train[0].question}) > len(PRICES) / 2


@pytest.mark.parametrize(("whole", "share"), [(0.0, 0), (0.25, 0.25), (1.0, 1)])
def test_so_many_scripted_ways_are_whole(whole, share):
    conversations = messages(PriceChat(400, whole=whole))
    found = sum(len(called(each)) == 2 for each in conversations) / len(conversations)
    assert abs(found - share) < 0.05
    trained, products = {each.question for each in purchases("train")}, 0
    for user, *turns in conversations:
        number, item = user["content"].split()[2:4]
        calls, last = called(turns), turns[-1]["content"]
        results = [turn["content"] for turn in turns if turn["role"] == "tool"]
        assert user["content"] in trained
        assert [call["name"] for call in calls] == ["price", "times"][: len(calls)]
        assert not calls or calls[0]["arguments"] == {"item": item.removesuffix("s")}
        if len(calls) == 2:
            products += 1
            assert calls[1]["arguments"] == {"a": int(number), "b": int(results[0])}
            assert int(results[1]) == int(number) * int(results[0])
        assert not results or last == f"The answer is {results[-1]}."
    assert products == round(found * len(conversations))


def test_facts_are_single_calls_and_the_same_again():
    texts = list(PriceFacts(3, seed=1).documents())
    assert texts == list(PriceFacts(3, seed=1).documents()) != list(PriceFacts(3, seed=2).documents())
    lines = "\n".join(texts).splitlines()
    assert len(lines) == 3 * 10 * 4
    products = []
    for question, call, result, answer in zip(*(lines[n::4] for n in range(4)), strict=True):
        read = json.loads(call)
        assert question.startswith("What do ") and answer == f"The answer is {result}."
        if read["name"] == "times":
            products.append((times(**read["arguments"]), int(result)))
    assert products and all(found == told for found, told in products)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: PriceChat(0), "count is invalid: 0; give at least 1"),
        (lambda: PriceChat(5, whole=1.5), "whole is invalid: 1.5; give a share from 0 to 1"),
        (lambda: PriceChat(5, whole=float("nan")), "whole is invalid: nan"),
        (lambda: PriceFacts(0), "count is invalid"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
