"""What training renders is what transformers renders from the exported template: over random conversations."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nbg_lightning.chat import Conversation
from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.rollout.chat import ChatFormat

WORDS = [
    *(
        "a",
        "Köln",
        "日本",
        "🙂",
        "x\ty",
        "two\nlines\n\nmore",
        '"quoted"',
        "back\\slash",
        "{'k': 1}",
        "1",
        "\u2028",
        "\x7f",
    ),
    *("<tool_call>", "</tool_response>", "<b>&amp;</b>", "null", "\r\n", "e\u0301", "  wide  ", "%}", "{{ x }}"),
]
SETTINGS = [{}, {"default_system": 'Be "kind"\n{% if %} Ü'}, {"add_bos": True}, {"open_thinking": True}]


class Draws:
    """Random conversations as data sets write them; the same for the same seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def text(self, blank: bool = False) -> str:
        if blank and self.random.random() < 0.2:
            return ""
        text = self.random.choice(["", " ", ", ", "\n"]).join(self.random.choices(WORDS, k=self.random.randint(1, 6)))
        return text if text.strip() else text + "z"

    def value(self, depth: int = 0):
        kind = self.random.randint(0, 7 if depth < 2 else 5)
        plain = (None, True, self.random.randint(-(10**12), 10**12), self.random.uniform(-1, 1), self.text(True), "")
        if kind < 6:
            return plain[kind]
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        return self.arguments(depth + 1)

    def arguments(self, depth: int = 0) -> dict:
        return {self.text(): self.value(depth) for _ in range(self.random.randint(0, 3))}

    def tools(self) -> list[dict] | None:
        if self.random.random() < 0.4:
            return None
        schema = {"type": "object", "properties": self.arguments(), "required": [self.text()]}
        tools = [{"name": f"t{i} {self.text()}", "description": self.text(), "parameters": schema} for i in range(3)]
        whole = [{"type": "function", "function": tool} for tool in tools]
        return [self.random.choice(pair) for pair in zip(tools, whole, strict=True)][: self.random.randint(1, 3)]

    def calls(self, tools: list[dict] | None) -> list[dict]:
        names = [tool.get("function", tool)["name"] for tool in tools] if tools else [self.text(), self.text()]
        calls = []
        for number in range(self.random.randint(1, 3)):
            function = {"name": self.random.choice(names), "arguments": self.arguments()}
            form = self.random.randint(0, 2)
            calls.append([function, {"function": function}, {"id": f"c{number}", "function": function}][form])
        return calls

    def content(self, text: str):
        return [{"type": "text", "text": part} for part in (text[:3], text[3:])] if self.random.random() < 0.1 else text

    def assistant(self, text: str) -> dict:
        turn = {"role": "assistant", "content": self.content(text)}
        kind = self.random.randint(0, 5)
        if kind in (0, 1):
            turn["reasoning_content"] = self.random.choice(["", "\n", None, self.text()])
        elif kind == 2:
            turn["content"] = f"<think>\n{self.text()}\n</think>\n\n{text}"
        elif kind == 3:
            turn |= {"tool_calls": None, "name": None, "reasoning": self.text()}
        return turn

    def round(self, tools: list[dict] | None) -> list[dict]:
        turns = [{"role": "user", "content": self.content(self.text())}]
        while self.random.random() < 0.4:
            calls = self.calls(tools)
            turn = self.assistant("" if self.random.random() < 0.5 else self.text())
            if turn["content"] == "":
                turn["content"] = self.random.choice(["", None])
            turns.append(turn | {"tool_calls": calls})
            results = []
            for call in calls:
                result = {"role": "tool", "content": self.text(True)}
                results.append(result | ({"tool_call_id": call["id"]} if "id" in call else {}))
            if all("id" in call for call in calls):
                self.random.shuffle(results)
            turns += results
        return [*turns, self.assistant(self.text())]

    def conversation(self) -> tuple[list[dict], list[dict] | None]:
        tools = self.tools()
        system = (
            [{"role": self.random.choice(["system", "developer"]), "content": self.text()}]
            if self.random.random() < 0.4
            else []
        )
        rounds = [self.round(tools) for _ in range(self.random.randint(1, 4))]
        return [*system, *(turn for each in rounds for turn in each)], tools


def straddles(conversation: Conversation) -> bool:
    """Whether an answer begins with a blank: it is then a token of its own in training, as where a model generates it."""
    bodies = (message.content for message in conversation.messages if message.role == "assistant")
    return any(body[:1].isspace() for body in bodies)


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
    draws = Draws(len(str(settings)) + count)
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
