"""Rendering and encoding of ChatML with thinking, in conversations per second: this library and PyPI's `renderers`.

    python benchmarks/performance/chat_renderers.py

`renderers` is installed into a separate folder in ~/.cache/nbg_lightning, after this environment's packages on the path.

The format is the one that both implement: `NanbeigeRenderer` here, `Qwen3Renderer` there (both hand-written), and also
`JinjaRenderer` here and `DefaultRenderer` there with the same template. Conversations are plain, with reasoning in the last
answer. Ids of all sides are compared. Time is processor time of one process.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from paired import paired_seconds, ratio, write_result

WORDS = "how many of these numbers are prime and which one fits into a word of the machine"
VOCABULARY = 320  # what such texts fill
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def install_renderers() -> None:
    """Make `renderers` importable; its dependencies come from this environment first."""
    folder = Path("~/.cache/nbg_lightning/renderers").expanduser()
    if importlib.util.find_spec("renderers") is None:
        if not (folder / "renderers").is_dir():
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "renderers"], check=True
            )
        sys.path.append(str(folder))


def conversations(number: int, rounds: int) -> list[list[dict[str, str]]]:
    """Conversations of several rounds; only the last answer has reasoning, which every format keeps."""
    draw = random.Random(0)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS.split(), k=words)).capitalize() + "."

    made = []
    for _ in range(number):
        messages = [{"role": "system", "content": text(20)}]
        for _ in range(rounds):
            messages += [{"role": "user", "content": text(40)}, {"role": "assistant", "content": text(120)}]
        messages[-1]["reasoning_content"] = text(200)
        made.append(messages)
    return made


def sides(tokenizer: Any, data: list[list[dict[str, str]]]) -> dict[str, Callable[[], list[list[int]]]]:
    """Functions that render all conversations, by side; each returns their ids."""
    from renderers import DefaultRenderer, Qwen3Renderer

    from nbg_lightning.chat import Conversation, JinjaRenderer, NanbeigeRenderer

    nanbeige, jinja = NanbeigeRenderer(tokenizer), JinjaRenderer(tokenizer, chat_template=TEMPLATE)
    tokenizer.chat_template = TEMPLATE
    hand_written, default = Qwen3Renderer(tokenizer), DefaultRenderer(tokenizer)

    def ours(renderer: Any) -> list[list[int]]:
        parsed = [Conversation.from_dict({"messages": messages}) for messages in data]
        return [rendered.ids for rendered in renderer.render_batch(parsed)]

    return {
        "nanbeige": lambda: ours(nanbeige),
        "jinja": lambda: ours(jinja),
        "renderers_qwen3": lambda: [hand_written.render(messages).token_ids for messages in data],
        "renderers_default": lambda: [default.render(messages).token_ids for messages in data],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    install_renderers()
    from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

    data = conversations(arguments.conversations, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        texts = (message["content"] for messages in data for message in messages)
        tokenizer = Tokenizer(train_bpe(texts, VOCABULARY, Path(folder) / "tokenizer")).transformers
        run = sides(tokenizer, data)
        ids = {name: side() for name, side in run.items()}
        seconds = paired_seconds(run, arguments.repeats, time.process_time)
    tokens = sum(map(len, ids["nanbeige"]))
    results = {
        "same_ids_as_nanbeige": {name: sum(map(list.__eq__, found, ids["nanbeige"])) for name, found in ids.items()},
        "tokens": tokens,
        "processor_seconds": seconds,
        "time_nanbeige_over_renderers_qwen3": ratio(seconds["nanbeige"], seconds["renderers_qwen3"]),
        "time_jinja_over_renderers_default": ratio(seconds["jinja"], seconds["renderers_default"]),
        "renderers": version("renderers"),
    }
    write_result("chat_renderers", vars(arguments), results)


if __name__ == "__main__":
    main()
