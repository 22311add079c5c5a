"""Refinement, reasoning and problem builders on real input with a small real model; writes outcome counts as JSON.

Instructions are first turns of human-written conversations (the English part of chatterbot-corpus, BSD) and word problems of
reasoning-gym; programs are functions of the standard library. Takes half an hour on one idle core; can be resumed if killed.

    python benchmarks/real_model.py                       # SmolLM2-135M-Instruct, once
    pip install --no-deps chatterbot-corpus==1.3.3
    python benchmarks/construction_solutions.py --out runs/construction-solutions
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import random
import time
from pathlib import Path
from typing import Any

import yaml

from nbg_lightning.cli import main as nbg

CONFIGS = Path(__file__).parents[1] / "configs" / "construction"
TOPICS = ("science", "computers", "history", "literature", "food", "health", "money", "sports", "ai", "coding")
QUESTIONS = ("what", "who", "why", "how", "when", "where", "tell", "do", "is", "explain", "which")
REASONING_GYM = {"tasks": ["gsm_symbolic"]}


def human_questions(count: int) -> list[dict[str, str]]:
    """Human-written questions, sampled from all topics."""
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps chatterbot-corpus==1.3.3")
    folder = Path(spec.origin).parent / "data" / "english"
    found: dict[str, str] = {}
    for topic in TOPICS:
        for conversation in yaml.safe_load((folder / f"{topic}.yml").read_text("utf-8"))["conversations"]:
            text = str(conversation[0]).strip()
            if len(text) > 12 and text.lower().split()[0] in QUESTIONS:
                text = text[0].upper() + text[1:] + ("" if text[-1] in "?." else "?")
                found.setdefault(text, topic)
    rows = [{"prompt": text, "source": topic} for text, topic in found.items()]
    random.Random(0).shuffle(rows)
    return rows[:count]


def timed(command: list[str]) -> dict[str, Any]:
    """Run a builder; returns its report with the seconds it took."""
    begin, processor = time.monotonic(), time.process_time()
    if code := nbg(command):
        raise SystemExit(code)
    report = json.loads(Path(command[command.index("--out") + 1], "report.json").read_text("utf-8"))
    report["seconds"] = round(time.monotonic() - begin, 1)
    report["processor_seconds"] = round(time.process_time() - processor, 1)
    return report


def main() -> None:
    """Run all builders in one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/construction-solutions"))
    parser.add_argument("--human", type=int, default=40, help="number of human-written questions (default 40)")
    parser.add_argument(
        "--word-problems", type=int, default=24, help="number of word problems of reasoning-gym (default 24)"
    )
    parser.add_argument(
        "--programs", type=int, default=40, help="number of functions of the standard library (default 40)"
    )
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    prompts = out / "human.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in human_questions(arguments.human))
    if not prompts.is_file() or prompts.read_text("utf-8") != text:
        prompts.write_text(text, "utf-8")
    sources = {
        "human": {
            "class_path": "nbg_lightning.data.QuestionJsonLines",
            "init_args": {"path": str(prompts), "instruction": "Answer in one or two short sentences."},
        },
        "word_problems": {
            "class_path": "nbg_lightning.data.ReasoningGymQuestions",
            "init_args": {
                **REASONING_GYM,
                "count": arguments.word_problems,
                "instruction": "Think in short steps. End with the answer as a number.",
            },
        },
    }
    conversations = {
        "refined": {
            "class_path": "nbg_lightning.data.ChatJsonLines",
            "init_args": {"path": str(out / "refined" / "refined.jsonl")},
        },
        "solved": {  # with right solutions
            "class_path": "nbg_lightning.data.ReasoningGymChat",
            "init_args": {**REASONING_GYM, "count": arguments.word_problems + 6, "seed": 1},
        },
    }
    found = {}
    for name, config, changed in (
        ("refined", "refinement-tiny", {"questions": sources}),
        ("reasoning", "reasoning-tiny", {"conversations": conversations}),
        ("problems", "problems-tiny", {"limit": arguments.programs}),
    ):
        override = out / f"{name}.yaml"
        override.write_text(yaml.safe_dump(changed), "utf-8")
        command = {"refined": "build-refinements", "reasoning": "build-reasoning", "problems": "build-problems"}[name]
        configs = ["--config", str(CONFIGS / f"{config}.yaml"), "--config", str(override)]
        found[name] = timed([command, *configs, "--out", str(out / name)])
    summary = {"machine": platform.processor() or platform.machine(), "python": platform.python_version(), **found}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    print(out / "summary.json")


if __name__ == "__main__":
    main()
