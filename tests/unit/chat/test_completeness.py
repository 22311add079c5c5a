"""A template that omits part of a conversation is refused, whatever values occur elsewhere."""

from __future__ import annotations

import pytest

from nbg_lightning.chat import ChatOptions, Conversation, JinjaRenderer, RenderCounts, render_samples

FORM = (
    "TOOLS{% for m in messages WHICH %}<|im_start|>{{ m.role }}\n{{ m.content }}CALLS<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALL_CALLS = "{% for k in m.tool_calls or [] %}[{{ k.function.name }} {{ k.function.arguments | tojson }}]{% endfor %}"
ALL_TOOLS = "{{ (tools | tojson(indent=1)) if tools else '' }}"
TOOL = {
    "name": "w",
    "description": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "which"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def calls(*arguments):
    return assistant("x", tool_calls=[{"function": {"name": "w", "arguments": each}} for each in arguments])


def form(which="", call_text=ALL_CALLS, tools=ALL_TOOLS):
    return FORM.replace("WHICH", which).replace("CALLS", call_text).replace("TOOLS", tools)


ROME, OSLO = {"city": "Rome"}, {"city": "Oslo"}


@pytest.mark.parametrize(
    ("template", "messages", "tools", "missing"),
    [
        (form(tools=""), [user("q"), assistant("a")], [TOOL], "tool 'w'"),
        (form(tools="{{ tools[0].function.name if tools }}"), [user("q w"), assistant("a")], [TOOL], "description of tool 'w'"),
        (
            form(
                tools="{% for t in tools or [] %}{{ t.function.name }} {{ t.function.description }}{% endfor %}"
            ),
            [user("city days which"), assistant("a")],
            [TOOL],
            "parameters of tool 'w'",
        ),
        (form(tools="{{ tools[0] | tojson if tools }}"), [user("v"), assistant("a")], [TOOL, {"name": "v"}], "tool 'v'"),
        (
            form("if m.role in ['user', 'assistant']"),
            [{"role": "system", "content": "q"}, user("q"), assistant("a")],
            None,
            "system content of message 0",
        ),
        (
            form("if m.role != 'tool'"),
            [user("1"), assistant("1"), {"role": "tool", "content": "1"}, assistant("b")],
            None,
            "tool content of message 2",
        ),
        (
            form(call_text="{% for k in m.tool_calls or [] %}[{{ k.function.name }}]{% endfor %}"),
            [user("city Rome"), calls(ROME)],
            None,
            "arguments of tool call 0 of message 1",
        ),
        (
            form(call_text="{% if m.tool_calls %}[{{ m.tool_calls[0].function.name }} "
            "{{ m.tool_calls[0].function.arguments | tojson }}]{% endif %}"),
            [user("q"), calls(ROME, ROME)],
            None,
            "tool call 1 of message 1",
        ),
        (
            form(call_text="{% for k in m.tool_calls or [] %}{{ k.function.name }}{% for n, v in k.function.arguments.items() "
            "if v %}{{ n }}={{ v }}{% endfor %}{% endfor %}"),
            [user("metric"), calls({"city": "Rome", "metric": False})],
            None,
            "arguments of tool call 0",
        ),
        (
            FORM.replace("m.content", "m.content[:50]").replace("WHICH", "").replace("CALLS", "").replace("TOOLS", ""),
            [user("long " * 20 + "end"), assistant("a")],
            None,
            "user content of message 0",
        ),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(tokenizer, template, messages, tools, missing):
    renderer = JinjaRenderer(tokenizer, ChatOptions(), template)
    with pytest.raises(ValueError, match=f"the chat template leaves out .*{missing}"):
        renderer.render(Conversation(messages, tools))
    samples = [Conversation([user("q"), assistant("a")]), Conversation(messages, tools)]
    with pytest.raises(ValueError, match="rows, sample 1: the chat template leaves out"):
        list(render_samples(renderer, samples, RenderCounts(), "rows"))


def test_prompts_are_checked_too(tokenizer):
    renderer = JinjaRenderer(tokenizer, ChatOptions(), form(tools=""))
    with pytest.raises(ValueError, match="the chat template leaves out tool 'w'"):
        renderer.render(Conversation([user("q")], [TOOL]), add_generation_prompt=True)


def test_other_layouts_of_everything_are_accepted(tokenizer):
    template = form(call_text=ALL_CALLS).replace("{{ m.content }}", "{{ m.content | trim }}")
    messages = [
        {"role": "system", "content": "  s\n"},
        user("q"),
        calls({"city": "Köln", "n": 0, "deep": {"a": [1.5, "x", None, {"b": True}]}}, OSLO),
        {"role": "tool", "content": '{"a": "b\\n"}'},
        {"role": "tool", "content": ""},
        assistant("done"),
    ]
    renderer = JinjaRenderer(tokenizer, chat_template=template)
    assert renderer.render(Conversation(messages, [TOOL])).num_trained
    as_json = template.replace(
        "{{ m.content | trim }}", "{{ m.content | tojson if m.role == 'tool' else m.content | trim }}"
    )
    assert JinjaRenderer(tokenizer, chat_template=as_json).render(Conversation(messages, [TOOL])).num_trained


def test_one_kind_is_rendered_once(tokenizer, monkeypatch):
    renderer = JinjaRenderer(tokenizer, chat_template=form())
    renderer.render(Conversation([user("a"), assistant("b")]))
    seen = []
    check = renderer._completeness._missing
    monkeypatch.setattr(renderer._completeness, "_missing", lambda *given: seen.append(1) or check(*given))
    for number in range(20):
        renderer.render(Conversation([user(f"a{number}"), assistant("b")]))
    assert not seen
