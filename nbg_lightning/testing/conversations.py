"""Random conversations in dataset form, to compare two renderings of a chat format."""

from __future__ import annotations

import random
from typing import Any

from nbg_lightning.chat.conversation import Conversation

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
"""Texts that break templates: quotes and escapes of JSON, tags, blanks, all kinds of line breaks, Jinja delimiters."""


class RandomConversations:
    """Generates conversations with and without system turns, tools, calls, results, reasoning and nulls.

    Args:
        seed: the same seed gives the same conversations.
    """

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def conversation(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Messages and tools."""
        tools = self.tools()
        system = [{"role": self.random.choice(["system", "developer"]), "content": self.text()}]
        rounds = [self.round(tools) for _ in range(self.random.randint(1, 4))]
        return [*(system if self.random.random() < 0.4 else []), *(turn for each in rounds for turn in each)], tools

    def text(self, blank: bool = False) -> str:
        if blank and self.random.random() < 0.2:
            return ""
        text = self.random.choice(["", " ", ", ", "\n"]).join(self.random.choices(WORDS, k=self.random.randint(1, 6)))
        return text if text.strip() else text + "z"

    def value(self, depth: int = 0) -> Any:
        kind = self.random.randint(0, 7 if depth < 2 else 5)
        plain = (None, True, self.random.randint(-(10**12), 10**12), self.random.uniform(-1, 1), self.text(True), "")
        if kind < 6:
            return plain[kind]
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        return self.arguments(depth + 1)

    def arguments(self, depth: int = 0) -> dict[str, Any]:
        return {self.text(): self.value(depth) for _ in range(self.random.randint(0, 3))}

    def tools(self) -> list[dict[str, Any]] | None:
        if self.random.random() < 0.4:
            return None
        schema = {"type": "object", "properties": self.arguments(), "required": [self.text()]}
        bare: list[dict[str, Any]] = [
            {"name": f"t{i} {self.text()}", "description": self.text(), "parameters": schema} for i in range(3)
        ]
        whole = [{"type": "function", "function": tool} for tool in bare]
        return [self.random.choice(pair) for pair in zip(bare, whole, strict=True)][: self.random.randint(1, 3)]

    def calls(self, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        names = [tool.get("function", tool)["name"] for tool in tools] if tools else [self.text(), self.text()]
        calls = []
        for number in range(self.random.randint(1, 3)):
            function = {"name": self.random.choice(names), "arguments": self.arguments()}
            forms: list[dict[str, Any]] = [function, {"function": function}, {"id": f"c{number}", "function": function}]
            calls.append(self.random.choice(forms))
        return calls

    def content(self, text: str) -> Any:
        return [{"type": "text", "text": part} for part in (text[:3], text[3:])] if self.random.random() < 0.1 else text

    def assistant(self, text: str) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": "assistant", "content": self.content(text)}
        kind = self.random.randint(0, 5)
        if kind in (0, 1):
            turn["reasoning_content"] = self.random.choice(["", "\n", None, self.text()])
        elif kind == 2:
            turn["content"] = f"<think>\n{self.text()}\n</think>\n\n{text}"
        elif kind == 3:
            turn |= {"tool_calls": None, "name": None, "reasoning": self.text()}
        return turn

    def round(self, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
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


def straddles(conversation: Conversation) -> bool:
    """Whether an answer begins with a blank: it is then a separate token in training, as in generation."""
    bodies = (message.content for message in conversation.messages if message.role == "assistant")
    return any(body[:1].isspace() for body in bodies)
