"""Training conversations for a chain-completion model."""

import json

import pytest

from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.solutions.chains import ChainCompletionBuilder, spread_sentences
from nbg_lightning.construction.solutions.reconstruction import CHAIN, ReconstructionBuilder, summary_turn
from nbg_lightning.data.chat_sources import ChatList, ReasoningGymChat
from nbg_lightning.testing.benchmarks import AnsweringEngine

THOUGHT = "Two and three are to be added. I count from two: three, four, five. That were three steps. So it is 5."


def conversation(question="Two and three?", thought=THOUGHT, answer="5"):
    last = {"role": "assistant", "content": answer, "reasoning_content": thought}
    return {"messages": [{"role": "user", "content": question}, last]}


def build(folder, conversations, **settings):
    source = conversations if not isinstance(conversations, list) else ChatList(conversations)
    return ChainCompletionBuilder(out=str(folder), conversations={"given": source}, progress=False, **settings)


def rows(folder):
    return [json.loads(line) for line in (folder / "chains.jsonl").read_text().splitlines()]


def test_a_conversation_is_turned_around(tmp_path):
    build(tmp_path, [conversation()], summary_sentences=2, minimum_words=5).run()
    [row] = rows(tmp_path)
    question, summary, more, chain = row["messages"]
    assert [each["role"] for each in row["messages"]] == ["user", "assistant", "user", "assistant"]
    assert "Question:\nTwo and three?" in question["content"]
    assert question["content"].endswith("Solution:\n5")
    assert summary["content"] == "Two and three are to be added. So it is 5."
    assert more["content"] == CHAIN
    assert chain["content"] == THOUGHT


def test_what_is_trained_is_what_is_asked(tmp_path):
    """The two builders share their questions: the model is asked as it was trained."""
    build(tmp_path, [conversation()], minimum_words=5).run()
    [row] = rows(tmp_path)
    assert ChainCompletionBuilder.summary_prompt == ReconstructionBuilder.summary_prompt
    assert ChainCompletionBuilder.chain_prompt == ReconstructionBuilder.chain_prompt
    asked = summary_turn(ReconstructionBuilder.summary_prompt, [{"role": "user", "content": "Two and three?"}], "5")
    assert row["messages"][:1] == list(asked)


def test_turns_after_the_last_question(tmp_path):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One and one?"},
        {"role": "assistant", "content": "2", "reasoning_content": THOUGHT},
        {"role": "user", "content": "And three?"},
        {"role": "assistant", "content": "5", "reasoning_content": THOUGHT},
    ]
    build(tmp_path, [{"messages": messages}], minimum_words=5).run()
    [row] = rows(tmp_path)
    text = row["messages"][0]["content"]
    assert "System: Be brief.\n\nUser: One and one?\n\nAssistant: 2\n\nUser: And three?" in text
    assert "I count" not in text


def test_a_summarizer(tmp_path):
    answers = iter(["I'm sorry, but I can't.", "word " * 200, "He counts.", "unused"])
    engine = AnsweringEngine(lambda prompt, sample: next(answers))
    engine.interface = "chat"
    report = build(
        tmp_path, [conversation()], models={"m": ChatModelConfig(engine)}, summarizer="m", minimum_words=5
    ).run()
    assert rows(tmp_path)[0]["messages"][1]["content"] == "He counts."
    assert {kind: each["count"] for kind, each in report["answers"]["summary"].items()} == {
        "ok": 1,
        "refused": 1,
        "too_long": 1,
    }


def test_what_gives_no_chain(tmp_path):
    plain = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}
    given = [
        plain,
        conversation(thought="short"),
        conversation(thought="long " * 200),
        {"x": 1},
        conversation(),
        conversation(),
    ]
    report = build(tmp_path, given, max_characters=300, minimum_words=5).run()
    assert {kind: each["count"] for kind, each in report["outcomes"].items()} == {
        "kept": 1,
        "no_thinking": 1,
        "too_short": 1,
        "too_long": 1,
        "invalid": 1,
        "duplicate": 1,
    }


def test_the_same_input_gives_the_same_output(tmp_path):
    for name in ("a", "b"):
        build(tmp_path / name, ReasoningGymChat(tasks=["gsm_symbolic"], count=20)).run()
    assert (tmp_path / "a" / "chains.jsonl").read_bytes() == (tmp_path / "b" / "chains.jsonl").read_bytes()
    assert len(rows(tmp_path / "a")) > 10


def test_sentences():
    assert spread_sentences("", 3) == ""
    assert spread_sentences("Only one", 3) == "Only one"
    assert spread_sentences("A is 2.5. B! C? D", 2) == "A is 2.5. D"
    assert spread_sentences("A. B. C.", 1) == "C."


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="at least one source"):
        ChainCompletionBuilder(out=str(tmp_path), conversations={})
    with pytest.raises(ValueError, match="maximum_ratio is invalid: 2"):
        build(tmp_path, [conversation()], maximum_ratio=2)
