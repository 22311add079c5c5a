"""Training renders like transformers with the exported template, on random conversations."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nbg_lightning.chat import Conversation
from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.testing.conversations import WORDS, RandomConversations, straddles

SETTINGS = [{}, {"default_system": 'Be "kind"\n{% if %} Ü'}, {"add_bos": True}, {"open_thinking": True}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A tokenizer of this library."""
    words = [f"{word} {number} " + " ".join(WORDS) for number, word in enumerate(WORDS * 20)]
    return train_bpe(words, 340, tmp_path_factory.mktemp("bpe") / "tokenizer")


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    ("kind", "count"), [("own", 75), ("gpt4", 75), pytest.param("own", 1000, marks=pytest.mark.slow)]
)
def test_ids_of_transformers_are_those_of_training(kind, count, settings, trained, tokenizer, tmp_path):
    if kind == "gpt4":
        tokenizer.save_pretrained(trained := tmp_path / "gpt4")
    ours = Tokenizer(trained)
    ours.chat_template = ChatTemplate.nanbeige(**settings)
    exported = AutoTokenizer.from_pretrained(ours.save_pretrained(tmp_path / "exported"))
    assert isinstance(exported, PreTrainedTokenizerFast)
    later = ChatFormat(Tokenizer(tmp_path / "exported"))  # what the next stage makes of the folder
    assert later.chat_template == ours.chat_template
    renderer = ours.chat_template.renderer(ours.transformers)
    draws = RandomConversations(len(str(settings)) + count)
    num_equal = 0
    for _ in range(count):
        messages, tools = draws.conversation()
        conversation = Conversation(messages, tools)
        rendered = renderer.render(conversation)
        text = exported.apply_chat_template(messages, tools=tools, tokenize=False)
        assert exported.decode(rendered.ids) == exported.decode(exported.encode(text, add_special_tokens=False))
        prompt = later.prompt(messages[:-1], tools).ids
        asked = exported.apply_chat_template(messages[:-1], tools=tools, add_generation_prompt=True, return_dict=False)
        if not straddles(conversation):
            assert rendered.ids == exported.apply_chat_template(messages, tools=tools, return_dict=False)
            assert list(prompt) == asked
            num_equal += 1
        elif not straddles(Conversation(messages[:-1], tools)):
            assert list(prompt) == asked
    assert num_equal > count / 3
