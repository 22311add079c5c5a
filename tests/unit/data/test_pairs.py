import hashlib

import numpy as np
import pytest
import torch

from nbg_lightning.chat import ConversationError
from nbg_lightning.core.batch import IGNORE
from nbg_lightning.data.pair_batch import Targets, pair_row, stack_pairs
from nbg_lightning.data.pairs import PreferencePair, RenderedPair, sequence_key


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def contents(conversation):
    return [(message.role, message.content, message.weight) for message in conversation.messages]


class TestForms:
    def test_texts(self):
        pair = PreferencePair.from_dict({"prompt": "q", "chosen": "a", "rejected": "b", "score": 3})
        assert contents(pair.chosen) == [("user", "q", None), ("assistant", "a", None)]
        assert contents(pair.rejected)[1] == ("assistant", "b", None)
        assert pair.num_prompt == 1

    def test_messages_with_reasoning_and_history(self):
        prompt = [{"role": "system", "content": "s"}, user("q"), assistant("old"), user("more")]
        row = {"prompt": prompt, "chosen": [assistant("a", reasoning_content="because")], "rejected": assistant("b")}
        pair = PreferencePair.from_dict(row)
        assert pair.num_prompt == 4
        assert contents(pair.chosen)[2] == ("assistant", "old", 0.0)  # not an answer of this pair: never trained
        assert pair.chosen.messages[-1].reasoning == "because"

    def test_whole_conversations_without_a_prompt(self):
        row = {
            "chosen": [user("q"), assistant("a")],
            "rejected": [user("q"), assistant("b"), user("and"), assistant("c")],
        }
        pair = PreferencePair.from_dict(row)
        assert pair.num_prompt == 1 and len(pair.rejected.messages) == 4

    def test_whole_conversations_beside_a_prompt(self):
        row = {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
        assert contents(PreferencePair.from_dict(row).chosen) == [("user", "q", None), ("assistant", "a", None)]

    def test_tools(self):
        tool = {"name": "add", "parameters": {"type": "object"}}
        calls = assistant("", tool_calls=[{"name": "add", "arguments": {}}])
        row = {"prompt": "q", "chosen": [calls, {"role": "tool", "content": "2"}, assistant("2")], "rejected": "3"}
        assert PreferencePair.from_dict({**row, "tools": [tool]}).chosen.tools

    def test_pairs_of_one_prompt_have_one_key(self):
        rows = [{"prompt": q, "chosen": c, "rejected": "x"} for q, c in (("q", "a"), ("q", "b"), ("r", "a"))]
        keys = [PreferencePair.from_dict(row).prompt_key for row in rows]
        assert keys[0] == keys[1] != keys[2]


BAD = {
    "no rejected": ({"prompt": "q", "chosen": "a"}, r"no 'rejected' \(keys: chosen, prompt\)"),
    "equal texts": ({"prompt": "q", "chosen": "a", "rejected": "a"}, "the chosen and the rejected answer are the same"),
    "equal conversations": (
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("a")]},
        "are the same",
    ),
    "empty": ({"prompt": "q", "chosen": "a", "rejected": " "}, "the rejected answer is empty"),
    "empty message": ({"prompt": "q", "chosen": [assistant("")], "rejected": "b"}, "the chosen answer is empty"),
    "no message": ({"prompt": "q", "chosen": [], "rejected": "b"}, "the chosen answer is empty"),
    "empty prompt": ({"prompt": "", "chosen": "a", "rejected": "b"}, "the prompt is empty"),
    "other prompts": (
        {"chosen": [user("q"), assistant("a")], "rejected": [user("r"), assistant("a")]},
        "different prompts: they differ in message 0",
    ),
    "not the prompt": (
        {"prompt": "q", "chosen": [user("r"), assistant("a")], "rejected": "b"},
        "the chosen conversation does not begin with the prompt",
    ),
    "only an answer": (
        {"chosen": "a", "rejected": "b"},
        "no 'prompt', and the chosen conversation begins with an assistant",
    ),
    "answer missing": ({"chosen": [user("q")], "rejected": [user("q"), assistant("a")]}, "the chosen answer is empty"),
    "ends with a question": (
        {"chosen": [user("q"), assistant("a"), user("b")], "rejected": [user("q"), assistant("a")]},
        "differ in message 2",
    ),
    "weights": (
        {"prompt": "q", "chosen": [assistant("a", weight=0.5)], "rejected": "b"},
        "give 0 or 1",
    ),
    "role": (
        {"prompt": "q", "chosen": [{"role": "bot", "content": "a"}], "rejected": "b"},
        "chosen: message 0: unknown role",
    ),
    "type": ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt must be a text or a list of messages, not int"),
    "tool call": (
        {
            "prompt": "q",
            "chosen": "a",
            "rejected": [assistant("", tool_calls=[{"name": "sub", "arguments": {}}])],
            "tools": [{"name": "add"}],
        },
        "rejected: message 1: calls tool 'sub'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pairs_are_named(name):
    row, message = BAD[name]
    with pytest.raises(ConversationError, match=message) as caught:
        PreferencePair.from_dict(row)
    assert "\n" not in str(caught.value)


def test_sequence_key():
    ids, trained = np.array([3, 70_000, 2]), np.array([False, True, True])
    expected = hashlib.blake2b(b"\3\0\0\0\x70\x11\1\0\2\0\0\0" + b"\0\1\1", digest_size=16).digest()
    assert sequence_key(ids, trained) == expected
    assert sequence_key(ids.astype(np.int32), trained) == expected
    assert sequence_key(ids, ~trained) != expected


def rendered(chosen, rejected, prompt=2):
    arrays = []
    for length, first in ((chosen, 10), (rejected, 20)):
        ids = np.arange(length) + first
        arrays += [ids, np.arange(length) >= prompt]
    return RenderedPair(*arrays)


class TestBatch:
    def test_row_by_hand(self):
        row = pair_row([rendered(4, 3)], 8)
        assert row.tokens.tolist() == [10, 11, 12, 20, 21, 0, 0, 0]
        assert row.labels.tolist() == [IGNORE, 12, 13, IGNORE, 22, IGNORE, IGNORE, IGNORE]
        assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
        assert row.sequence.tolist() == [0, 0, 0, 1, 1, -1, -1, -1]
        assert row.reference is None and row.teacher is None

    def test_targets_come_to_trained_positions(self):
        references = [np.array([-1.0, -2.0]), np.array([-3.0])]
        targets = [
            Targets(np.array([[1, 2], [3, 4]]), -np.array([[1.0, 2.0], [3.0, 4.0]]), -np.array([5.0, 6.0])),
            Targets(np.array([[7, 8]]), -np.array([[7.0, 8.0]]), -np.array([9.0])),
        ]
        row = pair_row([rendered(4, 3)], 8, references, targets, 2)
        assert row.reference.tolist() == [0, -1, -2, 0, -3, 0, 0, 0]
        assert row.teacher.ids[[1, 2, 4]].tolist() == [[1, 2], [3, 4], [7, 8]]
        assert row.teacher.tail.tolist() == [0, -5, -6, 0, -9, 0, 0, 0]
        assert row.teacher.ids.dtype == np.int32

    def test_split_never_parts_a_pair_and_numbers_anew(self):
        rows = [pair_row([rendered(4, 3), rendered(3, 3)], 16), pair_row([], 16), pair_row([rendered(5, 4)], 16)]
        batch = stack_pairs(rows, np.array([0, 1, 1]), np.zeros(3))
        assert batch.num_pairs == 3
        assert batch.sequence.max(dim=1).values.tolist() == [3, -1, 5]
        first, second, third = batch.split(16)
        assert [part.num_pairs for part in (first, second, third)] == [2, 0, 1]
        assert third.sequence.unique().tolist() == [-1, 0, 1]
        assert torch.equal(third.sequence[0, :8], torch.tensor([0, 0, 0, 0, 1, 1, 1, -1]))
        assert third.offsets.tolist() == [0, 4, 7, 16]
        assert [part.num_pairs for part in batch.split(32)] == [2, 1]
        assert batch.to(torch.device("cpu")).num_pairs == 3
