"""Continuations after an assistant turn, encoded alone, give the ids of rendering the whole conversation."""

import random

import pytest

from nbg_lightning.chat.conversation import Conversation, Message
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.testing.grpo import small_tokenizer

KEEPS = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
DROPS = """{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content and loop.index0 > ns.last %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
WORDS = ["two", " pens", "\n", "  cost", "<think>", "7", "é", "\U0001f642", " {", '"a": 1}', "</tool_call>"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(small_tokenizer(tmp_path_factory.mktemp("continuation")))


@pytest.fixture(scope="module", params=["nanbeige", "keeps", "drops"])
def renderer(request, tokenizer, tmp_path_factory):
    if request.param == "nanbeige":
        return ChatFormat(tokenizer, "nanbeige").renderer
    path = tmp_path_factory.mktemp("template") / "template.jinja"
    path.write_text(KEEPS if request.param == "keeps" else DROPS)
    return ChatFormat(tokenizer, str(path)).renderer


def conversation(chance, with_thoughts):
    """Rounds of a user, an assistant, and now and then results and another assistant."""

    def text():
        return "x" + "".join(chance.choices(WORDS, k=chance.randint(0, 6))) + "y"

    messages = [Message("user", text())]
    for _ in range(chance.randint(1, 4)):
        thought = text().replace("<think>", "") if with_thoughts and chance.random() < 0.5 else None
        messages += [Message("assistant", text().replace("<think>", ""), thought), Message("user", text())]
    return messages


def to_last_stop(renderer, messages):
    rendered = renderer.render(Conversation(messages))
    return rendered.ids[: max(end for _, end, kind in rendered.spans if kind == "assistant")]


@pytest.mark.parametrize("with_thoughts", [False, True])
def test_a_continuation_is_what_the_whole_has_behind_the_history(renderer, with_thoughts):
    chance, cut = random.Random(5), 0
    for _ in range(40):
        messages = conversation(chance, with_thoughts)
        whole = renderer.render(Conversation(messages), add_generation_prompt=True).ids
        kept = to_last_stop(renderer, messages[:-1])
        found = renderer.continuation(Conversation(messages), len(messages) - 1)
        if whole[: len(kept)] == kept:
            assert found == whole[len(kept) - 1 :]
        else:
            assert found is None
            cut += 1
    assert cut == 0 or with_thoughts
