from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.chat import (
    ChatOptions,
    ChatTemplateError,
    Conversation,
    ConversationError,
    JinjaRenderer,
    NanbeigeRenderer,
    RenderCounts,
    render_samples,
)

CALL = {"name": "get_weather", "arguments": {"city": "Köln"}}
STRIPS_THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set c = m.content %}"
    "{% if not loop.last and '</think>' in c %}{% set c = c.split('</think>')[-1] | trim %}{% endif %}"
    "<|im_start|>assistant\n{{ c }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **extra):
    return {"role": "assistant", "content": text, **extra}


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def trained_texts(tokenizer, rendered):
    return [decode(tokenizer, rendered.ids[begin:end]) for begin, end in rendered.trained_spans()]


TWO_ROUNDS = [user("a"), assistant("b"), user("c"), assistant("d")]


@pytest.mark.parametrize("name", ["chatml", "generation", "thinking_tools"])
def test_trained_is_content_and_stop(tokenizer, templates, name):
    renderer = JinjaRenderer(tokenizer, chat_template=templates[name])
    assert renderer.has_generation == (name == "generation")
    rendered = renderer.render(Conversation(TWO_ROUNDS))
    assert trained_texts(tokenizer, rendered) == ["b<|im_end|>", "d<|im_end|>"]
    assert decode(tokenizer, rendered.ids) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n"
    )
    assert [kind for _, _, kind in rendered.spans] == ["context", "assistant"] * 2 + ["context"]
    assert rendered.spans[0][0] == 0
    assert rendered.spans[-1][1] == len(rendered)


@pytest.mark.parametrize("name", ["chatml", "generation"])
def test_equal_to_the_built_in_format_token_for_token(tokenizer, templates, name):
    conversation = Conversation([{"role": "system", "content": "Be kind."}, *TWO_ROUNDS, user("e"), assistant("\n\nf")])
    jinja = JinjaRenderer(tokenizer, chat_template=templates[name]).render(conversation)
    built_in = NanbeigeRenderer(tokenizer).render(conversation)
    assert jinja.ids == built_in.ids
    assert jinja.loss_weights == built_in.loss_weights


def test_thinking_and_tools_equal_to_the_built_in_format(tokenizer, templates):
    conversation = Conversation(
        [
            user("a"),
            assistant("b", reasoning_content="dropped"),
            user("c"),
            assistant("", reasoning_content="r", tool_calls=[CALL, CALL]),
            {"role": "tool", "content": "rain"},
            {"role": "tool", "content": "sun"},
            assistant("see", tool_calls=[CALL]),
            {"role": "tool", "content": "snow"},
            assistant("d", reasoning_content="s"),
        ],
        tools=[{"name": "get_weather", "parameters": {"type": "object", "properties": {}}}],
    )
    for options in (ChatOptions(), ChatOptions(train_on_thinking=False), ChatOptions(train_on="last_query")):
        jinja = JinjaRenderer(tokenizer, options, templates["thinking_tools"]).render(conversation)
        built_in = NanbeigeRenderer(tokenizer, options).render(conversation)
        assert jinja.ids == built_in.ids
        assert jinja.loss_weights == built_in.loss_weights
        assert jinja.num_reasoning_dropped == built_in.num_reasoning_dropped


def test_template_that_strips_thinking_from_history(tokenizer):
    renderer = JinjaRenderer(tokenizer, chat_template=STRIPS_THINKING)
    conversation = Conversation(
        [user("a"), assistant("b", reasoning_content="x"), user("c"), assistant("d", reasoning_content="y")]
    )
    rendered = renderer.render(conversation)
    # The generation prompt opens <think>, so the model never has to write that tag.
    assert trained_texts(tokenizer, rendered) == ["b<|im_end|>", "y\n</think>\n\nd<|im_end|>"]
    assert rendered.num_reasoning_dropped == 1
    renderer.options = ChatOptions(train_on_thinking=False)
    assert trained_texts(tokenizer, renderer.render(conversation)) == ["b<|im_end|>", "d<|im_end|>"]


def test_empty_thinking_before_the_last_answer_is_thinking(tokenizer):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rendered = JinjaRenderer(tokenizer, chat_template=template).render(Conversation(TWO_ROUNDS))
    assert trained_texts(tokenizer, rendered) == ["b<|im_end|>", "<think>\n\n</think>\n\nd<|im_end|>"]
    thoughtful = Conversation([user("a"), assistant("b", reasoning_content="r")])
    rendered = JinjaRenderer(tokenizer, chat_template=template + "{# m.reasoning_content #}").render(thoughtful)
    assert trained_texts(tokenizer, rendered) == ["<think>\n\n</think>\n\nb<|im_end|>"]
    assert rendered.num_reasoning_dropped == 1
    options = ChatOptions(train_on_thinking=False)
    rendered = JinjaRenderer(tokenizer, options, template).render(Conversation(TWO_ROUNDS))
    assert trained_texts(tokenizer, rendered) == ["b<|im_end|>", "d<|im_end|>"]


def test_generation_block_with_thinking_and_calls(tokenizer):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
        "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
        "<|im_end|>{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    )
    conversation = Conversation(
        [
            user("a"),
            assistant("b", reasoning_content="r", tool_calls=[CALL]),
            {"role": "tool", "content": "t"},
            assistant("d"),
        ]
    )
    rendered = JinjaRenderer(tokenizer, chat_template=template).render(conversation)
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Köln"}}</tool_call>'
    assert trained_texts(tokenizer, rendered) == [f"<think>\nr\n</think>\n\nb{call}<|im_end|>", "d<|im_end|>"]
    assert [kind for _, _, kind in rendered.spans][:3] == ["context", "thinking", "assistant"]


def test_other_stop_tokens(tokenizer, make_tokenizer):
    template = (
        "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + '] ' + m.content }}"
        "{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    llama = make_tokenizer(eos_token="</s>")
    rendered = JinjaRenderer(llama, chat_template=template).render(Conversation(TWO_ROUNDS))
    assert trained_texts(llama, rendered) == ["b</s>", "d</s>"]
    with pytest.raises(
        ChatTemplateError, match=r"no stop token \(<\|im_end\|>\).*writes '</s>\[user\] more\[assistant\] ' there"
    ):
        JinjaRenderer(tokenizer, chat_template=template)
    rendered = JinjaRenderer(tokenizer, chat_template=template, stop_tokens=["</s>"]).render(Conversation(TWO_ROUNDS))
    assert trained_texts(tokenizer, rendered) == ["b</s>", "d</s>"]


def test_answer_keeps_the_space_that_the_template_puts_before_it(make_tokenizer):
    # As Mistral writes it: no generation prompt, and the answer's first token has the space.
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = make_tokenizer(eos_token="</s>")
    renderer = JinjaRenderer(tokenizer, chat_template=template)
    rendered = renderer.render(Conversation(TWO_ROUNDS))
    assert trained_texts(tokenizer, rendered) == [" b</s>", " d</s>"]
    prompt = renderer.render(Conversation(TWO_ROUNDS[:1]), add_generation_prompt=True)
    assert rendered.ids[: len(prompt)] == prompt.ids
    assert rendered.ids == tokenizer.apply_chat_template(TWO_ROUNDS, chat_template=template, return_dict=False)


def test_generation_prompt(tokenizer, templates):
    renderer = JinjaRenderer(tokenizer, chat_template=templates["chatml"])
    prompt = renderer.render(Conversation(TWO_ROUNDS[:3]), add_generation_prompt=True)
    full = renderer.render(Conversation(TWO_ROUNDS))
    assert full.ids[: len(prompt)] == prompt.ids
    assert not any(prompt.loss_weights)
    with pytest.raises(ConversationError, match="ends with an assistant turn"):
        renderer.render(Conversation(TWO_ROUNDS), add_generation_prompt=True)


def test_the_tokenizers_own_template_and_arguments(make_tokenizer, templates):
    own = make_tokenizer(chat_template=templates["chatml"] + "{{ tail }}")
    renderer = JinjaRenderer(own, template_arguments={"tail": "!"})
    assert decode(own, renderer.render(Conversation(TWO_ROUNDS)).ids).endswith("d<|im_end|>\n!")


HEADER = "<|im_start|>{{ m.role }}\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        # No stop at all, or only before the next turn.
        ("{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}", "no stop token"),
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
            "{% if m.role == 'user' %}<|im_end|>{% endif %}\n{% endfor %}" + PROMPT,
            "no stop token",
        ),
        # The stop of the last turn is missing.
        (
            "{% for m in messages %}"
            + HEADER
            + "{{ m.content }}{% if not loop.last %}<|im_end|>\n{% endif %}{% endfor %}",
            "no stop token .* right after assistant turn 1",
        ),
        # The assistant is left out, or said twice.
        (
            "{% for m in messages if m.role == 'user' %}" + HEADER + "{{ m.content }}<|im_end|>{% endfor %}",
            "leaves out the content of assistant turn 0",
        ),
        (
            "{% for m in messages %}" + HEADER + "{{ m.content }}<|im_end|>{% endfor %}{{ messages[-1].content }}",
            "repeats the content of assistant turn 1",
        ),
        # The template counts what the assistant says, so its text around it is not constant.
        (
            "{% for m in messages %}"
            + HEADER
            + "{{ m.content }}<|im_end|>{{ m.content | length }}\n{% endfor %}"
            + PROMPT,
            "around assistant turn 0 depends on what the assistant says",
        ),
        ("{{ messages | length }}: {{ messages[1].content | length }}", "leaves out the content|user turn"),
        # The content is changed.
        (
            "{% for m in messages %}" + HEADER + "{{ m.content | upper }}<|im_end|>\n{% endfor %}" + PROMPT,
            "leaves out the content of assistant turn 0|changes the content",
        ),
        # {% generation %} in the wrong places.
        (
            "{% for m in messages %}{% generation %}"
            + HEADER
            + "{{ m.content }}<|im_end|>{% endgeneration %}{% endfor %}",
            "marks 1 .* spans for 2 assistant turns",
        ),
        (
            "{% for m in messages %}" + HEADER + "{% if m.role == 'assistant' and loop.last %}{% generation %}"
            "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
            "marks 1 .* spans for 2 assistant turns",
        ),
        (
            "{% for m in messages %}" + HEADER + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
            "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}",
            r"stop token is not inside .* \('<\|im_end\|>' follows the block: move it inside\)",
        ),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
            + HEADER
            + "{{ m.content }}<|im_end|>"
            "{% endgeneration %}{% else %}" + HEADER + "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}",
            "changes the content: '<|im_start|>assistant",
        ),
        ("{{ raise_exception('only for robots') }}", "does not render a single user turn: .*only for robots"),
    ],
)
def test_templates_that_cannot_be_trained_fail_at_build(tokenizer, template, problem):
    with pytest.raises(ChatTemplateError, match=problem) as error:
        JinjaRenderer(tokenizer, chat_template=template)
    assert "\n" not in str(error.value)


def test_reasoning_without_a_known_beginning_is_an_error(tokenizer):
    # No generation prompt, so nothing tells whether "Thought:" is the model's or the template's.
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.reasoning_content %}Thought: {{ m.reasoning_content }}\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    renderer = JinjaRenderer(tokenizer, chat_template=template)
    conversation = Conversation([user("a"), assistant("b", reasoning_content="r")])
    with pytest.raises(ChatTemplateError, match="cannot tell where assistant turn 0 begins"):
        renderer.render(conversation)
    # Not a matter of one sample: it is raised although bad samples are dropped, and says where it happened.
    renderer.options = ChatOptions(on_invalid="drop")
    with pytest.raises(ChatTemplateError, match="train, samples 0 to 1: cannot tell where"):
        list(render_samples(renderer, [Conversation(TWO_ROUNDS), conversation], RenderCounts(), source="train"))


def test_altered_content_is_an_error_of_the_sample(tokenizer):
    renderer = JinjaRenderer(
        tokenizer,
        chat_template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | replace('bad', 'good') }}"
        "<|im_end|>\n{% endfor %}" + PROMPT,
    )
    results = renderer.render_batch(
        [Conversation([user("a"), assistant(text)]) for text in ("fine", "a bad word", "fine")]
    )
    assert trained_texts(tokenizer, results[0]) == ["fine<|im_end|>"]
    assert "assistant turn 0: the template changes the content: 'a good word'" in str(results[1])
    assert results[2] == results[0]


def test_control_tokens_in_content_are_refused(tokenizer, templates):
    for name in ("chatml", "generation"):
        renderer = JinjaRenderer(tokenizer, chat_template=templates[name])
        call = {"name": "f", "arguments": {"x": "<|im_end|>"}}
        for turns in (
            [user("<s>"), assistant("b")],
            [user("a"), assistant("b<|im_end|>c")],
            [user("a"), assistant("", tool_calls=[call])],
        ):
            with pytest.raises(ConversationError, match=r"message . contains the control token"):
                renderer.render(Conversation(turns))


def test_nothing_to_train_is_an_error(tokenizer, templates):
    renderer = JinjaRenderer(tokenizer, chat_template=templates["chatml"])
    with pytest.raises(ConversationError, match="no token is trained"):
        renderer.render(Conversation([user("a"), assistant("b", weight=0)]))


def test_template_that_refuses_a_conversation_is_an_error_of_the_sample(tokenizer, templates):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + templates["chatml"]
    )
    renderer = JinjaRenderer(tokenizer, chat_template=template)
    with pytest.raises(ConversationError, match="the chat template refuses it: no system"):
        renderer.render(Conversation([{"role": "system", "content": "s"}, *TWO_ROUNDS]))


def test_missing_template_and_stop(tokenizer, make_tokenizer, templates):
    with pytest.raises(ValueError, match="has no chat template"):
        JinjaRenderer(tokenizer)
    with pytest.raises(ValueError, match=r"has no stop token <\|eot\|>"):
        JinjaRenderer(tokenizer, chat_template=templates["chatml"], stop_tokens=["<|eot|>"])


def test_renderer_survives_pickling(tokenizer, templates):
    renderer = JinjaRenderer(tokenizer, chat_template=templates["chatml"])
    conversation = Conversation(TWO_ROUNDS)
    assert pickle.loads(pickle.dumps(renderer)).render(conversation) == renderer.render(conversation)


text = st.text(
    alphabet=st.one_of(st.sampled_from(" \n\tabc.é😀<>{}"), st.characters(codec="utf-8")),
    min_size=1,
    max_size=20,
).filter(lambda value: value.strip() and not any(mark in value for mark in ("think>", "<|", "<s>", "</s>", "<unk>")))


@given(rounds=st.lists(st.tuples(text, text, st.none() | text), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_property_spans_are_the_assistant(tokenizer, templates, rounds):
    turns = []
    for question, answer, reasoning in rounds:
        turns += [
            user(question),
            assistant(answer, **({"reasoning_content": reasoning} if reasoning else {})),
        ]
    conversation = Conversation(turns)
    rendered = JinjaRenderer(tokenizer, chat_template=templates["thinking_tools"]).render(conversation)
    trained = [f"{message.content}<|im_end|>" for message in conversation.messages if message.role == "assistant"]
    reasoning = conversation.messages[-1].reasoning
    if reasoning:
        trained[-1] = f"<think>\n{reasoning}\n</think>\n\n{trained[-1]}"
    assert trained_texts(tokenizer, rendered) == trained
    assert decode(tokenizer, rendered.ids).count("<|im_start|>") == len(turns)
