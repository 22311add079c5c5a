"""All formats of public preference data: a row gives a prompt and answers, or a one-line error."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.chat import ConversationError
from nbg_lightning.data import PairJsonLines, PairList
from nbg_lightning.data.pairs import PreferencePair

Q, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "good"), ("assistant", "bad"))
)
S = {"role": "system", "content": "s"}
ANSWERS = {"chosen": "good", "rejected": "bad"}
PLAIN = ["q"], ["good"], ["bad"]
WITH_SYSTEM = ["s", "q"], ["good"], ["bad"]
DIALOGUE = "\n\nHuman: one\n\nAssistant: two\n\nHuman: q\n\nAssistant: "

ROWS = {
    "messages and answers": ({"messages": [{"role": "user", "content": "q"}], **ANSWERS}, PLAIN),
    "history": (
        {"instruction": "q", "history": [["one", "two"]], **ANSWERS},
        (["one", "two", "q"], ["good"], ["bad"]),
    ),
    "texts": ({"prompt": "q", **ANSWERS}, PLAIN),
    "messages": ({"prompt": [Q], "chosen": [GOOD], "rejected": [BAD]}, PLAIN),
    "single messages": ({"prompt": Q, "chosen": GOOD, "rejected": BAD}, PLAIN),
    "messages as JSON text": ({"prompt": "q", "chosen": json.dumps([Q, GOOD]), "rejected": json.dumps([Q, BAD])}, PLAIN),
    "whole conversations": ({"prompt": "q", "chosen": [Q, GOOD], "rejected": [Q, BAD]}, PLAIN),
    "whole conversations with a system turn": ({"prompt": "q", "chosen": [S, Q, GOOD], "rejected": [S, Q, BAD]}, WITH_SYSTEM),
    "implicit": ({"chosen": [Q, GOOD], "rejected": [Q, BAD]}, PLAIN),
    "implicit beside a question": ({"question": "other", "chosen": [Q, GOOD], "rejected": [Q, BAD]}, PLAIN),
    "dialogues": (
        {"chosen": f"{DIALOGUE}good", "rejected": f"{DIALOGUE}bad"},
        (["one", "two", "q"], ["good"], ["bad"]),
    ),
    "prompt as a dialogue": ({"prompt": DIALOGUE, "chosen": "good", "rejected": "bad"}, (["one", "two", "q"], ["good"], ["bad"])),
    "UltraFeedback": (
        {"prompt": "q", "prompt_id": "1", "chosen": [Q, GOOD], "rejected": [Q, BAD], "messages": [Q, GOOD],
         "score_chosen": 8.5, "score_rejected": 4},
        PLAIN,
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"},
         "rejected": {"from": "gpt", "value": "bad"}},
        PLAIN,
    ),
    "ShareGPT, implicit": (
        {"chosen": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}],
         "rejected": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "bad"}]},
        PLAIN,
    ),
    "Alpaca": ({"instruction": "q", "input": "x", **ANSWERS}, (["q\nx"], ["good"], ["bad"])),
    "Alpaca without input": ({"instruction": "q", **ANSWERS}, PLAIN),
    "question": ({"system": "s", "question": "q", **ANSWERS}, WITH_SYSTEM),
    "input": ({"input": "q", **ANSWERS}, PLAIN),
    "system column": ({"system": "s", "prompt": "q", **ANSWERS}, WITH_SYSTEM),
    "system column, implicit": ({"system": "s", "chosen": [Q, GOOD], "rejected": [Q, BAD]}, WITH_SYSTEM),
    "system column and whole conversations": (
        {"system": "s", "prompt": "q", "chosen": [Q, GOOD], "rejected": [Q, BAD]},
        WITH_SYSTEM,
    ),
    "empty system column": ({"system": "", "prompt": "q", **ANSWERS}, PLAIN),
    "texts that begin as lists": (
        {"prompt": "[1] q", "chosen": "[good]", "rejected": '[{"value": 3}]'},
        (["[1] q"], ["[good]"], ['[{"value": 3}]']),
    ),
    "null prompt": ({"prompt": None, "chosen": [Q, GOOD], "rejected": [Q, BAD]}, PLAIN),
}  # fmt: skip


def contents(messages):
    return [message.content for message in messages]


@pytest.mark.parametrize("name", ROWS)
def test_rows_become_pairs(name):
    row, expected = ROWS[name]
    pair = PreferencePair.from_dict(row)
    prompts = [side.messages[: pair.num_prompt] for side in (pair.chosen, pair.rejected)]
    assert prompts[0] == prompts[1]
    answers = [contents(side.messages[pair.num_prompt :]) for side in (pair.chosen, pair.rejected)]
    assert (contents(prompts[0]), *answers) == expected


REFUSED = {
    "two questions": ({"question": "q", "query": "p", **ANSWERS}, "'question' and 'query' say different things"),
    "two conversations": (
        {
            "conversations": [{"from": "human", "value": "q"}],
            "conversation": [{"from": "human", "value": "p"}],
            **ANSWERS,
        },
        "'conversations' and 'conversation' hold different conversations",
    ),
    "answers of other names": (
        {"prompt": "q", "chosen_response": "a", "rejected_response": "b"},
        "set chosen_field to 'chosen_response'",
    ),
    "KTO": ({"prompt": "q", "completion": "a", "label": True}, r"no 'chosen' .*KTO"),
    "rated completions": ({"instruction": "q", "completions": [{"response": "a"}]}, "make pairs of them first"),
    "a conversation": ({"messages": [Q, GOOD]}, "give it to a chat source"),
    "other prompts": ({"chosen": [{**Q, "content": "p"}, GOOD], "rejected": [Q, BAD]}, "have different prompts"),
    "other dialogues": (
        {"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": f"{DIALOGUE}b"},
        "have different prompts",
    ),
    "only one system turn": (
        {"prompt": "q", "chosen": [S, Q, GOOD], "rejected": [Q, BAD]},
        "does not begin with the prompt",
    ),
    "score as a text": (
        {"prompt": "q", **ANSWERS, "score_chosen": "8", "score_rejected": 1},
        "score_chosen is invalid",
    ),
    "endless score": (
        {"prompt": "q", **ANSWERS, "score_chosen": 10**400, "score_rejected": 1},
        "give a finite number",
    ),
    "answer as a number": (
        {"prompt": "q", "chosen": 1, "rejected": "bad"},
        "chosen must be a text or a list of messages",
    ),
    "answer as bytes": (
        {"prompt": "q", "chosen": b"a", "rejected": "bad"},
        "chosen must be a text or a list of messages",
    ),
    "half of a pair": (
        {"prompt": "q", "chosen": "\ud800", "rejected": "bad"},
        "chosen: message 0: half of a surrogate pair",
    ),
    "an image": ({"prompt": "q", **ANSWERS, "images": ["x"]}, "column 'images' has content: only text"),
    "an unknown key": ({"prompt": "q", "chosen": {**GOOD, "mood": 1}, "rejected": "bad"}, "unknown key 'mood'"),
    "no object": ([], "a pair is invalid: of type list"),
    "a given format": ({"prompt": "q", **ANSWERS}, "the row is not in the format ShareGPT pairs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_rows_are_refused_in_one_line(name):
    row, cause = REFUSED[name]
    with pytest.raises(ConversationError, match=cause) as error:
        PreferencePair.from_dict(row, "sharegpt" if name == "a given format" else "auto")
    assert str(error.value).isprintable()


def test_scores_and_notes():
    row, _ = ROWS["UltraFeedback"]
    pair = PreferencePair.from_dict(row)
    assert pair.scores == (8.5, 4.0)
    notes = ("column not used: prompt_id", "column not used: messages")
    assert pair.notes == ("read as prompt, chosen, rejected", "pairs with scores", *notes)
    swapped = PreferencePair.from_dict({**row, "score_chosen": 1})
    assert "pairs whose chosen answer has the lower score" in swapped.notes
    assert PreferencePair.from_dict(ROWS["dialogues"][0]).notes[0].startswith("read as chosen and rejected dialogues")


def test_fields_by_other_names(tmp_path):
    rows = [{"ask": "q", "good": "good", "bad": "bad", "prompt": "not this", "system": "s"}]
    (tmp_path / "pairs.jsonl").write_text(json.dumps(rows[0]) + "\n")
    names = dict(prompt_field="ask", chosen_field="good", rejected_field="bad")
    for source in (PairList(rows, **names), PairJsonLines(str(tmp_path / "pairs.jsonl"), **names)):
        (part,) = source.parts()
        (row,) = part.rows()
        assert row == {"prompt": "q", "chosen": "good", "rejected": "bad", "system": "s"}
    with pytest.raises(ValueError, match="format is invalid: 'messages'; choose one of auto, prompt, sharegpt"):
        PairList(rows, format="messages")


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda t: t.strip() and "think>" not in t)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(texts, texts, texts)
def test_all_formats_say_the_same(question, good, bad):
    turns = [{"role": "user", "content": question}]
    chosen, rejected = ({"role": "assistant", "content": text} for text in (good, f"{bad}!" if bad == good else bad))
    first = PreferencePair.from_dict({"prompt": question, "chosen": chosen["content"], "rejected": rejected["content"]})
    rows = [
        {"prompt": turns, "chosen": [chosen], "rejected": [rejected]},
        {"chosen": [*turns, chosen], "rejected": [*turns, rejected]},
        {"conversations": [{"from": "human", "value": question}],
         "chosen": {"from": "gpt", "value": good}, "rejected": {"from": "gpt", "value": rejected["content"]}},
    ]  # fmt: skip
    assert all(PreferencePair.from_dict(row) == first for row in rows)
