"""Parsing generated answers, and the chat format of prompts."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    texts = [f"word {number} of a text, \\boxed{{{number}}}" for number in range(300)]
    return train_bpe(texts, 280, tmp_path_factory.mktemp("tokenizer") / "plain")


@pytest.fixture(scope="module")
def special(plain) -> Path:
    """The same, whose think tags are special tokens."""
    folder = plain.parent / "special"
    shutil.copytree(plain, folder)
    rules = json.loads((folder / "tokenizer.json").read_text())
    for token in rules["added_tokens"]:
        token["special"] = token["special"] or token["content"] in ("<think>", "</think>", "<tool_call>")
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    return folder


def read(form: ChatFormat, text: str, reason: str = "stop"):
    assert form.tokenizer is not None
    ids = tuple(form.tokenizer.encode(text, special=True))
    return form.read(Completion(ids, (0.0,) * len(ids), reason, 0, 0, 0))


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("<think>\nhm \\boxed{7}\n</think>\n\n\\boxed{5}<|im_end|>", "stop", ("hm \\boxed{7}", "\\boxed{5}")),
        ("<think>\nhm \\boxed{7}", "length", (None, None)),
        ("<think>a</think>6<think>b \\boxed{7}</think>\\boxed{5}", "stop", ("a\nb \\boxed{7}", "6\n\\boxed{5}")),
        ("hm \\boxed{7}</think>\\boxed{5}</s>", "stop", ("hm \\boxed{7}", "\\boxed{5}")),
        ("<tool_call>\n{}</tool_call>", "stop", (None, "<tool_call>\n{}</tool_call>")),
    ],
)
def test_special_think_tokens_are_read_as_plain_ones(plain, special, text, reason, expected):
    for folder in (plain, special):
        answer = read(ChatFormat(Tokenizer(folder)), text, reason)
        assert (answer.reasoning, answer.final) == expected


def test_thinking_that_the_prompt_opened(special):
    tokenizer = Tokenizer(special)
    tokenizer.chat_template = ChatTemplate.nanbeige(open_thinking=True)
    form = ChatFormat(tokenizer)
    assert tokenizer.decode(form.prompt([{"role": "user", "content": "q"}]).ids).endswith("assistant\n<think>\n")
    assert read(form, "hm 7", "length").final is None
    answer = read(form, "hm 7\n</think>\n\n5")
    assert (answer.text, answer.reasoning, answer.final) == ("<think>\nhm 7\n</think>\n\n5", "hm 7", "5")
    given = form.read(Completion((), (), "stop", 0, 0, 0, None, "a solution"))  # a text was not asked for that way
    assert given.final == "a solution"


def test_the_format_of_the_model_is_the_default(plain, tmp_path, caplog):
    own = tmp_path / "own"
    shutil.copytree(plain, own)
    (own / "chat_template.jinja").write_text(CHATML)
    tokenizer = Tokenizer(own)
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        assert ChatFormat(tokenizer).template == "tokenizer"
        assert "chat format: tokenizer (the tokenizer's own template" in caplog.text
        caplog.clear()
        assert ChatFormat(tokenizer, "nanbeige").template == "nanbeige"
        assert f"the chat format of {own} is tokenizer, and this run uses nanbeige" in caplog.text
        caplog.clear()
        tokenizer.chat_template = ChatTemplate.nanbeige("Be kind.")
        assert ChatFormat(tokenizer).chat_template == ChatTemplate.nanbeige("Be kind.")
        assert "warning" not in caplog.text
        ChatFormat(tokenizer, "tokenizer")
        assert "is nanbeige (default_system: 'Be kind.'), and this run uses tokenizer" in caplog.text
    with pytest.raises(
        FileNotFoundError, match="template nanbeig does not exist; give auto, nanbeige, tokenizer or a file"
    ):
        ChatFormat(tokenizer, "nanbeig")
    (tmp_path / "mine.jinja").write_text(CHATML + "{# mine #}")
    assert ChatFormat(tokenizer, str(tmp_path / "mine.jinja")).template.startswith("mine.jinja ")


def test_a_folder_is_saved_with_the_format_of_its_model(plain, tmp_path):
    tokenizer = Tokenizer(plain)
    tokenizer.chat_template = ChatTemplate("mine", CHATML)
    saved = Tokenizer(tokenizer.save_pretrained(tmp_path / "saved"))
    assert saved.transformers.chat_template == CHATML
    assert json.loads((tmp_path / "saved/tokenizer_config.json").read_text())["chat_template"] == CHATML
    assert saved.fingerprint == tokenizer.fingerprint
    unknown = Tokenizer(plain).save_pretrained(tmp_path / "unknown")
    assert {file.name: file.read_bytes() for file in unknown.iterdir()} == {
        file.name: file.read_bytes() for file in plain.iterdir()
    }
