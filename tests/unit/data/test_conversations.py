"""Conversations and pairs prepared with both tokenizer engines."""

import json
import logging

import pytest

from nbg_lightning.chat.renderer import ChatOptions
from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.data import preparation, prepare
from nbg_lightning.data.chat_sources import ChatList
from nbg_lightning.data.conversations import ConversationEncoder
from nbg_lightning.data.pair_sources import PairList
from nbg_lightning.data.rendered_pairs import PairEncoder
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

ANSWERS = ("four", "<think>\ntwo and two\n</think>\n\nfour", "größe 中文 🙂", "12 + 30  is 42\n\n", "</s> <|im_end|>")
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"question {i} " * (i % 7 + 1)},
            {"role": "assistant", "content": ANSWERS[i % 5]},
        ]
    }
    for i in range(400)
]
PAIRS = [{"prompt": f"question {i}", "chosen": ANSWERS[i % 5], "rejected": ANSWERS[(i + 1) % 5]} for i in range(200)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [json.dumps(row, ensure_ascii=False) for row in CHATS]
    return Tokenizer(train_bpe(texts, 300, tmp_path_factory.mktemp("tokenizer") / "bpe"))


def files(folder, tokenizer, form, kind, fast, monkeypatch, workers=0):
    """What is prepared by one engine or the other, without the records that say so; and the engines of these."""
    monkeypatch.setattr(preparation, "FAST_BYTES", 0 if fast else 1 << 60)
    options = ChatOptions(max_length=200, on_invalid="drop")
    renderer = form.renderer(tokenizer.transformers, options)
    identity = tokenizer.vocab_size, tokenizer.fingerprint, {**form.form, **vars(options)}
    if kind == "pairs":
        source, encoder = PairList(PAIRS), PairEncoder("pairs", renderer, *identity, longest_pair=200)
    else:
        source, encoder = ChatList(CHATS), ConversationEncoder("chat", renderer, *identity)
    settings = prepare.PreparationSettings(folder, 0.1, num_workers=workers, progress=False)
    found = prepare.prepare_encoded("chat", source, encoder, settings).train.parent
    engines = {json.loads(file.read_text())["engine"] for file in (found / "parts").iterdir()}
    return {str(f.relative_to(found)): f.read_bytes() for f in found.glob("*/*") if f.parent.name != "parts"}, engines


@pytest.mark.parametrize("kind", ["conversations", "pairs"])
def test_both_engines_write_the_same(tmp_path, tokenizer, monkeypatch, kind):
    form = ChatTemplate.nanbeige()
    fast, engines = files(tmp_path / "fast", tokenizer, form, kind, True, monkeypatch)
    assert engines == {"fastokens"}
    judged, engines = files(tmp_path / "judged", tokenizer, form, kind, False, monkeypatch)
    assert engines == {"tokenizers"}
    assert fast == judged and len(fast) == 10


def test_a_template_of_another_format_is_encoded_by_tokenizers(tmp_path, tokenizer, monkeypatch, caplog):
    text = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
    chats = [row for row in CHATS if "<" not in row["messages"][1]["content"]]
    monkeypatch.setattr(f"{__name__}.CHATS", chats)
    form = ChatTemplate("plain.jinja", text)
    _, engines = files(tmp_path, tokenizer, form, "conversations", True, monkeypatch)
    assert engines == {"tokenizers"}
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warning == (
        "source 'chat' is encoded by tokenizers, which is slower: the chat template is not the built-in format"
    )
