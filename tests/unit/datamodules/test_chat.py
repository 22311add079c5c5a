import json
import logging
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset

from nbg_lightning.core.batch import IGNORE, conversation_row
from nbg_lightning.data import (
    ChatHuggingFace,
    ChatJsonLines,
    ChatList,
    ChatParquet,
    ReasoningGymChat,
    Tokenizer,
    sources,
)
from nbg_lightning.datamodules.chat import ChatDataModule
from nbg_lightning.datamodules.steps import ALL
from nbg_lightning.schedule.curriculum import Curriculum, Stage


def conversation(number, words=None):
    count = (number * 7) % 23 + 1 if words is None else words
    return {
        "messages": [
            {"role": "user", "content": f"what is {number} " * (number % 5 + 1)},
            {"role": "assistant", "content": f"it is {number} " * count},
        ]
    }


CONVERSATIONS = [conversation(number) for number in range(120)]


@pytest.fixture
def make(tokenizer, in_this_process):
    def make(given=None, **options):
        if not isinstance(given, dict):
            given = {"chat": given or ChatList(CONVERSATIONS)}
        defaults = {"sequence_length": 256, "tokens_per_step": 1024, **in_this_process}
        return ChatDataModule(given, str(tokenizer), **{**defaults, **options})

    return make


def ready(datamodule):
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def batches(datamodule):
    return list(datamodule.train_dataloader())


def documents(batch):
    """Every conversation of a batch as (inputs, labels), padding left out."""
    found = []
    for tokens, labels, positions in zip(batch.tokens, batch.labels, batch.positions, strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), len(tokens)]
        for begin, end in pairwise(starts):
            if (labels[begin:end] != IGNORE).any():
                found.append((tuple(tokens[begin:end].tolist()), tuple(labels[begin:end].tolist())))
    return found


def test_row_by_hand():
    first = np.array([5, 6, 7, 8]), np.array([0, 0, 1, 0.5], np.float32)
    second = np.array([1, 2, 3]), np.array([0, 0, 2], np.float32)
    tokens, labels, positions, weights = conversation_row([first, second], 8)
    assert tokens.tolist() == [5, 6, 7, 1, 2, 0, 0, 0]
    assert labels.tolist() == [IGNORE, 7, 8, IGNORE, 3, IGNORE, IGNORE, IGNORE]
    assert positions.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert weights.tolist() == [0, 1, 0.5, 0, 2, 0, 0, 0]
    tokens, labels, positions, weights = conversation_row([second, first], 8, padded=True)
    assert tokens.tolist() == [1, 2, 0, 5, 6, 7, 0, 0]
    assert labels.tolist() == [IGNORE, 3, IGNORE, IGNORE, 7, 8, IGNORE, IGNORE]
    assert positions.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    tokens, labels, positions, weights = conversation_row([], 4)
    assert (labels == IGNORE).all() and not weights.any() and positions.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("packing", ["best_fit", "bucketed", "padded"])
def test_an_epoch_has_every_conversation_once(make, tokenizer, packing):
    data = ready(make({"a": ChatList(CONVERSATIONS[:70]), "b": ChatList(CONVERSATIONS[70:])}, packing=packing))
    seen = Counter(found for batch in batches(data) for found in documents(batch))
    assert len(seen) == len(CONVERSATIONS) and set(seen.values()) == {1}
    # Rendered by hand: what is trained, and what is not.
    text = Tokenizer(tokenizer)
    for row in CONVERSATIONS[:3]:
        user, assistant = (message["content"] for message in row["messages"])
        prompt = text.encode(f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n", special=True)
        answer = [*text.encode(assistant), text.token_id("<|im_end|>")]
        ids = prompt + answer
        labels = [IGNORE] * (len(prompt) - 1) + answer
        inputs = {len(inputs): inputs for inputs, found in seen if found[: len(labels)] == tuple(labels)}
        assert any(found[: len(ids) - 1] == tuple(ids[:-1]) for found in inputs.values())


def test_epochs_are_exact_and_resume_is_one_integer(make):
    data = ready(make(epochs=2, tokens_per_step=768))
    served = batches(data)
    half = len(served) // 2
    assert data.curriculum.num_steps == 2 * half
    for part in (served[:half], served[half:]):
        counts = Counter(found for batch in part for found in documents(batch))
        assert len(counts) == 120 and set(counts.values()) == {1}
    again = ready(make(epochs=2, tokens_per_step=768))
    again.load_state_dict({**data.state_dict(), "step": 3})
    for straight, resumed in zip(served[3:], batches(again), strict=True):
        assert torch.equal(straight.tokens, resumed.tokens)
        assert torch.equal(straight.sample_hash, resumed.sample_hash)


def test_weights_give_shares(make):
    given = {"a": ChatList(CONVERSATIONS[:60], weight=3), "b": ChatList(CONVERSATIONS[60:], weight=1)}
    data = ready(make(given, tokens=1024 * 100))
    assert data.curriculum.num_steps == 100
    sources_seen = torch.cat([batch.source for batch in batches(data)])
    assert abs((sources_seen == 0).float().mean().item() - 0.75) < 0.01


def test_own_curriculum_takes_its_place(make):
    data = ready(make({"a": ChatList(CONVERSATIONS[:60]), "b": ChatList(CONVERSATIONS[60:])}))
    data.use_curriculum(Curriculum([Stage("s", 4096, 1e-3, {"b": 1.0})], 1024, 256))
    assert set(torch.cat([batch.source for batch in batches(data)]).tolist()) == {0}
    with pytest.raises(ValueError, match="packed for sequence_length 256: set it to that"):
        data.use_curriculum(Curriculum([Stage("s", 4096, 1e-3, {"b": 1.0})], 1024, 128))


def test_all_kinds_of_sources_give_the_same(make, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CONVERSATIONS))
    table = Dataset.from_list(CONVERSATIONS)
    table.to_parquet(tmp_path / "rows.parquet")
    table.rename_column("messages", "talk").save_to_disk(tmp_path / "disk")
    given = {
        "list": ChatList(CONVERSATIONS),
        "jsonl": ChatJsonLines(str(tmp_path / "rows.jsonl")),
        "parquet": ChatParquet(str(tmp_path / "rows.parquet")),
        "hf": ChatHuggingFace(str(tmp_path / "disk"), messages_field="talk"),
    }
    prints = set(list(ready(make(given)).fingerprints().values())[:-1])
    assert len(prints) == 1


def test_workers_and_parts_change_nothing(make, tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CONVERSATIONS))
    source = ChatJsonLines(str(tmp_path / "rows.jsonl"))
    straight = ready(make(source, validation_fraction=0.2, data_dir=str(tmp_path / "one")))
    monkeypatch.setattr(sources.source, "MIN_PART_BYTES", 3000)
    monkeypatch.setattr(sources.source, "MAX_PART_BYTES", 3000)
    assert len(source.parts()) > 3
    parallel = ready(make(source, validation_fraction=0.2, prepare_workers=2, data_dir=str(tmp_path / "two")))

    def everything(data):
        splits = (data._train["chat"][0], data._validation["chat"][0])
        return [[[x.tolist() for x in split.document(i)] for i in range(split.num_documents)] for split in splits]

    assert everything(straight) == everything(parallel)
    assert straight.counts == parallel.counts


def test_tools_thinking_and_turn_weights(make, tokenizer):
    tool = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": "add it"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"name": "add", "arguments": {"a": 1}}],
                    "weight": 0.5,
                },
                {"role": "tool", "content": "2"},
                {"role": "assistant", "content": "it is 2", "reasoning_content": "so it is"},
            ],
            "tools": [tool],
        },
        conversation(3),
    ]
    data = ready(make(ChatList(rows), sequence_length=1024))
    ids, weights = data._train["chat"][0].document(0)
    assert sorted(set(weights.tolist())) == [0.0, 0.5, 1.0]
    text = Tokenizer(tokenizer).decode(ids[weights == 1.0])
    assert text == "<think>\nso it is\n</think>\n\nit is 2<|im_end|>"
    assert Tokenizer(tokenizer).decode(ids[weights == 0.5]).startswith("<tool_call>\n")
    assert weights[-1] > 0  # what follows the last trained token is not kept


def test_validation_split_is_by_content(make):
    rows = [conversation(number % 40) for number in range(120)]  # three copies of each
    data = ready(make(ChatList(rows), validation_fraction=0.3))
    train, validation = (part["chat"][0] for part in (data._train, data._validation))

    def contents(source):
        return Counter(tuple(source.document(i)[0].tolist()) for i in range(source.num_documents))

    assert not contents(train).keys() & contents(validation).keys()
    assert set(contents(train).values()) == set(contents(validation).values()) == {3}
    loader = list(data.val_dataloader())
    found = Counter(f for batch in loader for f in documents(batch))
    assert sum(found.values()) == validation.num_documents
    assert len({batch.tokens.shape for batch in loader}) == 1
    assert data.domains == ["chat"]


BAD = {
    "no role": ({"messages": [{"content": "a"}]}, "message 0: has no role"),
    "two assistants": (
        {"messages": [*conversation(1)["messages"], {"role": "assistant", "content": "b"}]},
        "two assistant turns in a row",
    ),
    "empty": ({"messages": [{"role": "user", "content": " "}]}, "empty user content"),
    "no answer": ({"messages": [{"role": "user", "content": "hello"}]}, "no assistant turn"),
    "tools": ({**conversation(1), "tools": [{"x": 1}]}, "tool 0 has an unknown schema"),
    "all masked": (
        {"messages": [conversation(1)["messages"][0], {"role": "assistant", "content": "a", "weight": 0}]},
        "no token is trained",
    ),
    "no messages": ({"text": "a"}, "no 'messages' key"),
    "surrogate": ({"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_conversation_is_an_error_or_a_counted_drop(make, tmp_path, name, caplog):
    row, message = BAD[name]
    rows = [*CONVERSATIONS[:5], row, *CONVERSATIONS[5:9], row]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = ChatJsonLines(str(tmp_path / "bad.jsonl"))
    with pytest.raises(ValueError, match=rf"source 'chat': .*bad.jsonl:6: .*{message}") as caught:
        ready(make(source))
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        data = ready(make(source, on_invalid="drop"))
    assert data.counts["chat"].invalid == 2 and data._train["chat"][0].num_documents == 9
    assert "2 of 11 conversations dropped (2 invalid)" in caplog.text
    assert "bad.jsonl:6" in caplog.text and "bad.jsonl:11" not in caplog.text


LINES = {
    "no JSON": "{",
    "no object": "[1]",
    "a key twice": '{"messages": [], "messages": []}',
    "nested without end": '{"messages": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "a long number": '{"messages": ' + "9" * 9000 + "}",
    "messages as an object": '{"messages": {"role": "user"}}',
    "content as a number": '{"messages": [{"role": "user", "content": 1}]}',
    "half of a pair in a call": '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": '
    '[{"name": "f", "arguments": {"a": "R\\ud800"}}]}]}',
    "half of a pair in a tool": '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], '
    '"tools": [{"name": "f", "description": "\\udc00"}]}',
    "NaN in a call": '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": '
    '[{"name": "f", "arguments": {"a": NaN}}]}]}',
}


def test_every_kind_of_bad_line_is_dropped_and_counted(make, tmp_path, caplog):
    file = tmp_path / "bad.jsonl"
    good = [json.dumps(row) for row in CONVERSATIONS[:9]]
    for index, line in enumerate(LINES.values()):
        file.write_text("\n".join([*good[:2], line, *good[2:]]) + "\n")
        with pytest.raises(ValueError, match=rf"source 'chat': {file}:3: ") as caught:
            ready(make(ChatJsonLines(str(file)), data_dir=str(tmp_path / str(index))))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    file.write_bytes("\n".join([*good[:2], *LINES.values(), *good[2:]]).encode() + b'\n{"messages": "\xff"}\n')
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        data = ready(make(ChatJsonLines(str(file)), on_invalid="drop"))
    assert data.counts["chat"].rendered == 9 and data.counts["chat"].invalid == len(LINES) + 1
    assert f"{len(LINES) + 1} of {len(LINES) + 10} conversations dropped" in caplog.text
    assert f"{file}:3: the line is not JSON" in caplog.text


def test_formats_are_told_apart_and_counted(make, caplog):
    human, gpt = {"from": "human", "value": "what is it"}, {"from": "gpt", "value": "it is 3"}
    rows = [
        *CONVERSATIONS[:3],
        {"conversations": [human, gpt], "system": "be brief", "id": 3},
        {"conversations": [human, {**gpt, "weight": 0}, human, gpt], "sytem": "be brief"},
        {"instruction": "what is it", "input": "", "output": "it is 3"},
    ]
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        data = ready(make(ChatList(rows)))
    assert (
        "chat: read as messages, 3 rows, ShareGPT (conversations, from/value), 2 rows, Alpaca (instruction, input, output), "
        "1 rows; system turns from a column: 1; assistant turns not trained: 1; columns not used: id, sytem"
        in caplog.text
    )
    assert "warning: chat: column 'sytem' is not used; did you mean 'system'?" in caplog.text
    text = Tokenizer(data.tokenizer_folder).decode(data._train["chat"][0].document(3)[0])
    assert text.startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nwhat is it")
    with pytest.raises(ValueError, match="conversation 0: the row is not in the format ShareGPT"):
        ready(make(ChatList(rows, format="sharegpt")))
    with pytest.raises(ValueError, match=r"format is invalid: 'sharegtp'; choose one of .*; did you mean 'sharegpt'"):
        ChatList(rows, format="sharegtp")


def test_columns_of_other_formats(make, tmp_path):
    rows = [{"conversations": [{"from": "human", "value": "what is it"}, {"from": "gpt", "value": f"it is {i}"}], "system": "s",
             "score": 1.0} for i in range(20)]  # fmt: skip
    Dataset.from_list(rows).to_parquet(tmp_path / "sharegpt.parquet")
    Dataset.from_list(rows).save_to_disk(tmp_path / "disk")
    alpaca = [{"instruction": "what is it", "input": "", "output": f"it is {i}", "text": "x"} for i in range(20)]
    Dataset.from_list(alpaca).to_parquet(tmp_path / "alpaca.parquet")
    given = {
        "list": ChatList(rows),
        "parquet": ChatParquet(str(tmp_path / "sharegpt.parquet")),
        "hf": ChatHuggingFace(str(tmp_path / "disk")),
        "alpaca": ChatParquet(str(tmp_path / "alpaca.parquet")),
        "alpaca_list": ChatList(alpaca),
    }
    prints = ready(make(given)).fingerprints()
    assert prints["list"] == prints["parquet"] == prints["hf"]
    assert prints["alpaca"] == prints["alpaca_list"] != prints["list"]
    Dataset.from_list([{"chosen": "a", "rejected": "b"}]).to_parquet(tmp_path / "pairs.parquet")
    with pytest.raises(ValueError, match="chosen and rejected answers; give them to a pair source"):
        ready(make(ChatParquet(str(tmp_path / "pairs.parquet"))))
    Dataset.from_list([{"texts": "a"}]).to_parquet(tmp_path / "texts.parquet")
    with pytest.raises(ValueError, match="no column 'messages', nor those of another chat format; there are texts"):
        ready(make(ChatParquet(str(tmp_path / "texts.parquet"))))


def test_too_long_is_dropped_and_told(make, caplog):
    rows = [*CONVERSATIONS[:4], conversation(7, words=400)]
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        data = ready(make(ChatList(rows)))
    assert data.counts["chat"].too_long == 1
    assert "1 of 5 conversations dropped (1 too long); first: conversation 4:" in caplog.text
    with pytest.raises(ValueError, match=r"conversation 4: .* more than max_length=256"):
        ready(make(ChatList(rows), overflow="error"))
    with pytest.raises(ValueError, match="no conversation to train on: 1 read, 1 too long"):
        ready(make(ChatList([rows[-1]])))


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, "at least one source"),
        ({"a": ChatList(CONVERSATIONS, weight=1), "b": ChatList(CONVERSATIONS)}, {}, "source 'b' has no weight"),
        (None, {"epochs": 0}, "epochs is invalid: 0"),
        (None, {"max_length": 300}, "max_length is invalid: 300"),
        (None, {"tokens_per_step": 1000}, "not a multiple of the sequence_length"),
        (None, {"template": "tokenizer", "add_bos": True}, "no effect"),
        (None, {"train_on": "first"}, "train_on is invalid: first"),
    ],
)
def test_settings_that_cannot_work(make, given, options, message):
    with pytest.raises(ValueError, match=message):
        make(given, **options)


def test_tokenizer_that_cannot_be_used(make, tmp_path, tokenizer):
    data = make()
    data.given_tokenizer = str(tmp_path / "nothing" / "there")
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder"):
        data.prepare_data()
    folder = tmp_path / "without"
    Tokenizer(tokenizer).save_pretrained(folder)
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["added_tokens"] = [t for t in rules["added_tokens"] if t["content"] != "<|im_start|>"]
    rules["model"]["vocab"]["<|im_begin|>"] = rules["model"]["vocab"].pop("<|im_start|>")
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    data.given_tokenizer = str(folder)
    with pytest.raises(ValueError, match=r"the tokenizer has no token <\|im_start\|>"):
        data.prepare_data()
    # A template whose stop token is not the tokenizer's: it would never be trained.
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="stop token"):
        ready(make_with(make, folder, template="tokenizer"))


def make_with(make, folder, **options):
    data = make(**options)
    data.given_tokenizer = str(folder)
    return data


def test_template_of_the_tokenizer_gives_the_same_masks(make):
    ours, theirs = ready(make()), ready(make(template="tokenizer"))
    for index in range(0, 120, 17):
        for mine, other in zip(*(d._train["chat"][0].document(index) for d in (ours, theirs)), strict=True):
            assert np.array_equal(mine, other)


def test_changed_data_is_refused_on_resume(make):
    state = ready(make()).state_dict()
    with pytest.raises(ValueError, match=r"source chat has changed since"):
        ready(make(ChatList(CONVERSATIONS[:-1]))).load_state_dict(state)
    with pytest.raises(ValueError, match="has changed"):
        ready(make(packing="padded")).load_state_dict(state)


def test_last_step_is_filled_with_empty_windows(make):
    data = ready(make(tokens_per_step=256 * 7))
    windows = len(data._train["chat"][1])
    assert data.source_windows(ALL, 256) % 7 == 0 and 0 <= data.source_windows(ALL, 256) - windows < 7
    empty = sum(int((batch.labels == IGNORE).all(dim=1).sum()) for batch in batches(data))
    assert empty == data.source_windows(ALL, 256) - windows


def test_damaged_shards_are_found(make):
    data = ready(make())
    source = data._train["chat"][0]
    source.verify()
    file = next(source.folder.glob("*.weights"))
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="has changed since it was written"):
        source.verify()
    file.write_bytes(bytes(content[:-1]))
    with pytest.raises(ValueError, match="truncated or changed"):
        ready(make())


def test_reasoning_gym_has_worked_steps():
    source = ReasoningGymChat(["gsm_symbolic", "chain_sum"], 2)
    rows = [row for part in source.parts() for row in part.rows()]
    assert [bool(row["messages"][1].get("reasoning_content")) for row in rows] == [True, True, False, False]
    assert "####" not in rows[0]["messages"][1]["reasoning_content"]
    assert source.parts()[1].place(1) == "reasoning-gym task 'chain_sum', item 1"


def test_the_tokenizer_is_that_of_the_weights_where_none_is_given(tokenizer, tmp_path):
    from nbg_lightning.data.tokenizer import TokenizerConfig

    sources = {"chat": ChatList([])}
    given = ChatDataModule(sources, TokenizerConfig(str(tokenizer)))
    assert given.tokenizer_name == str(tokenizer)
    assert (given.sequence_length, given.tokens_per_step) == (4096, 65_536)
    data = ChatDataModule(sources)
    data.base_weights = str(tokenizer)
    assert data.tokenizer_name == str(tokenizer)
    data.base_weights = None
    with pytest.raises(ValueError, match="there is no tokenizer"):
        data.load_tokenizer()
    with pytest.raises(
        ValueError, match=r"tokenizer.train_vocab_size is invalid here: a tokenizer is trained on texts"
    ):
        ChatDataModule(sources, TokenizerConfig(train_vocab_size=400)).load_tokenizer()
