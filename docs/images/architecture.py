"""Draws the pictures of docs/architecture.md as SVG: the rooms and their imports from pyproject.toml, and three by hand.

python docs/images/architecture.py           # rewrites rooms.svg, pretraining-step.svg, grpo-step.svg and ranks.svg beside it
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WIDTH = 960
MARGIN = 16
GAP = 12
TITLE, SMALL = 14, 12  # font sizes
GLYPH = 0.6  # of the font's size: no letter of a text is wider on average

# What a room is for. A room of pyproject.toml that is missing here is an error: say what it is for.
ROOMS = {
    "cli": "nbg NAME",
    "commands": "what each nbg command runs",
    "testing": "ranks, miniature data, recorded runs",
    "construction": "builds data: filtering, solutions, problems, pairs",
    "planning": "memory and time of a training, before it",
    "recipe": "all stages as steps, and a report",
    "trainer": "Lightning's Trainer with our defaults",
    "modules": "one training algorithm a file: pretrain, sft, dpd, grpo",
    "callbacks": "schedule, checkpoints, what a run shows",
    "datamodules": "which samples a step has",
    "pages": "what a run left, as HTML that opens offline",
    "contracts": "what modules, callbacks and datamodules ask of each other",
    "evaluation": "benchmarks, suites, statistics",
    "rl": "rollouts, advantages, pass rates",
    "teachers": "targets to distil: live, cached, served",
    "environments": "episodes over several turns: tools, driver, ids",
    "rewards": "a score for an answer: math, code, preference, ...",
    "engines": "generation: native, vLLM, server",
    "data": "sources, tokenizer, order, packing",
    "strategy": "FSDP2 and its checkpoints",
    "core": "the model: shapes, decoder, loss heads, KV cache, weights, checkpoint files (torchtitan is imported here only)",
    "chat": "conversations to token ids",
    "loggers": "tables for every logger; trackio; a record",
    "losses": "formulas as pure functions",
    "schedule": "the table of stages, its picture",
    "scoring": "reads answers, runs programs",
}

STYLE = """
  .page { fill: #ffffff } .box { fill: #eef3fb; stroke: #5b7fb5 } .shared { fill: #fdf1e3; stroke: #c08436 }
  .plain { fill: none; stroke: #8a94a3; stroke-dasharray: 4 3 } text { fill: #1c2430 } .soft { fill: #4d5968 }
  .line { stroke: #4d5968; stroke-width: 1.5; fill: none } .head { fill: #4d5968 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #12161c } .box { fill: #1d2a3d; stroke: #6f9ad6 } .shared { fill: #3a2a16; stroke: #d9a05a }
    .plain { stroke: #7b8794 } text { fill: #e8edf3 } .soft { fill: #b3becb }
    .line { stroke: #b3becb } .head { fill: #b3becb }
  }
"""


class Drawing:
    """An SVG under construction.

    Args:
        description: for those who do not see it.
    """

    def __init__(self, description: str):
        self.description = description
        self.parts: list[str] = []
        self.height = 0.0

    def box(
        self, x: float, y: float, width: float, title: str, text: str = "", kind: str = "box", height: float = 0
    ) -> float:
        """A box with a title and wrapped text; returns its height."""
        lines = wrapped(text, width - 2 * GAP)
        height = max(height, 2 * GAP + TITLE + len(lines) * (SMALL + 4) - 2)
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>')
        self.text(x + width / 2, y + GAP + TITLE - 3, title, TITLE, width - GAP, bold=True)
        for number, line in enumerate(lines):
            self.text(x + width / 2, y + GAP + TITLE + (number + 1) * (SMALL + 4) - 3, line, SMALL, width, soft=True)
        self.height = max(self.height, y + height)
        return height

    def text(
        self, x: float, y: float, text: str, size: float, width: float, bold: bool = False, soft: bool = False,
        anchor: str = "middle",
    ) -> None:  # fmt: skip
        """A line of text, which must fit.

        Raises:
            ValueError: it does not.
        """
        if len(text) * size * GLYPH > width + 1:
            raise ValueError(f"text is too long for {width:g} pixels: {text!r}; shorten it")
        options = f'font-size="{size:g}" text-anchor="{anchor}"' + ' font-weight="600"' * bold + ' class="soft"' * soft
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {options}>{escape(text)}</text>')
        self.height = max(self.height, y)

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self.parts.append(f'<path class="line" marker-end="url(#head)" d="M{x:g} {y:g}L{to_x:g} {to_y:g}"/>')

    def svg(self) -> str:
        height = self.height + MARGIN
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
                'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
                f"<title>{escape(self.description)}</title>",
                f"<style>{STYLE}</style>",
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
                '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
                f'<rect class="page" width="{WIDTH}" height="{height:g}" rx="8"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int(width / (SMALL * GLYPH)), break_long_words=False)


def row(drawing: Drawing, y: float, boxes: Sequence[tuple[str, str, str]]) -> float:
    """Boxes of one height beside each other, each with title, text and kind; returns the height."""
    width = (WIDTH - 2 * MARGIN - GAP * (len(boxes) - 1)) / len(boxes)
    most = max(len(wrapped(text, width - 2 * GAP)) for _, text, _ in boxes)
    height = 2 * GAP + TITLE + most * (SMALL + 4) - 2
    for number, (title, text, kind) in enumerate(boxes):
        drawing.box(MARGIN + number * (width + GAP), y, width, title, text, kind, height)
    return height


def rows(drawing: Drawing, y: float, table: Sequence[Sequence[tuple[str, str, str]]]) -> float:
    """Rows below each other, with an arrow from each to the next; returns where they end."""
    for number, boxes in enumerate(table):
        if number:
            drawing.arrow(WIDTH / 2, y, WIDTH / 2, y + 22)
            y += 24
        y += row(drawing, y, boxes)
    return y


# -- rooms -------------------------------------------------------------------------------------------------------------


def layers() -> list[tuple[list[str], bool]]:
    """The layers of the import contract, the highest first: their rooms, and whether those may import each other."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [contract] = [one for one in content["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    found = []
    for layer in contract["layers"]:
        separator = ":" if ":" in layer else "|"
        found.append(([name.strip() for name in layer.split(separator)], separator == ":"))
    return found


def titled(room: str) -> str:
    """A package with a slash, a module with its suffix."""
    return f"{room}/" if (ROOT / "nbg_lightning" / room).is_dir() else f"{room}.py"


def rooms() -> Drawing:
    """Every room with what it is for; the files of the last layer by name."""
    drawing = Drawing(
        "The rooms of nbg_lightning in layers: each may import from the layers below its own, and from no other"
    )
    *upper, (files, _) = layers()
    y = rows(drawing, MARGIN, [[(titled(room), ROOMS[room], "box") for room in names] for names, _ in upper])
    drawing.arrow(WIDTH / 2, y, WIDTH / 2, y + 22)
    drawing.box(
        MARGIN, y + 24, WIDTH - 2 * MARGIN, "small files that any room may import, and each other",
        ", ".join(map(titled, files)), "plain",
    )  # fmt: skip
    return drawing


# -- steps -------------------------------------------------------------------------------------------------------------


def pretraining_step() -> Drawing:
    drawing = Drawing("One pretraining step: from the table of stages to a logged loss")
    table = [
        [
            ("schedule/ and FGWSD", "step → stage: learning rate, mixture, window length, RoPE base", "box"),
            ("data/order.py", "(seed, step) → which windows; this rank takes its share", "box"),
        ],
        [("datamodules/: one PackedBatch a rank", "tokens, labels, document bounds, source, hash of the samples", "box")],
        [("modules/base.py: micro-batches", "micro_batch_tokens each: what memory holds, no effect on results", "box")],
        [("all ranks: count", "tokens of each loss term in the whole step: the denominators, before any forward", "shared")],
        [
            ("core/: forward", "packed documents do not see each other", "box"),
            ("core/head.py + losses/", "sum of the loss, in chunks of tokens: no full logits", "box"),
            ("backward", "sum / count, for each micro-batch", "box"),
        ],
        [("all ranks: gradients", "reduced once, after the last micro-batch; then the norm, and clipping", "shared")],
        [
            ("AdamW", "on this rank's shard; skipped if not finite", "box"),
            ("hash chain", "the datamodule notes which samples were used", "box"),
            ("callbacks/", "logs, checkpoint, benchmark, stop", "box"),
        ],
    ]  # fmt: skip
    rows(drawing, MARGIN, table)
    return drawing


def grpo_step() -> Drawing:
    drawing = Drawing("One GRPO step: from questions to an update of the policy")
    table = [
        [("datamodules/prompts.py", "this rank's questions of the step, as token ids in the chat format", "box")],
        [
            ("rl/collector.py → engines/", "group_size answers to each; ids and log-probs as they were drawn", "box"),
            ("native", "on the live weights, nothing is copied", "plain"),
            ("vLLM", "weights are pushed first, and checked", "plain"),
        ],
        [("chat/: read", "token ids → thinking, final answer, why it ended", "box")],
        [
            ("rewards/ → scoring/", "a score, or none if the verifier failed; programs run in a sandbox", "box"),
            ("rl/advantages.py", "score less the group's mean; failed and cut answers are not trained", "box"),
        ],
        [("all ranks: agree", "metrics, number of micro-batches, denominators; every rank makes as many forwards", "shared")],
        [
            ("core/: forward", "log-probs of the drawn ids; of the reference too, with loss.kl_coefficient", "box"),
            ("losses/policy_gradient.py", "clipped ratio, correction of the engine's error, KL", "box"),
            ("backward, AdamW", "as in pretraining; inner_updates times", "box"),
        ],
        [
            ("Sentinel", "warns or stops when nothing is learned any more", "box"),
            ("SampleTable", "answers to read: rollouts.jsonl", "box"),
            ("next step", "samples with the new weights", "box"),
        ],
    ]  # fmt: skip
    rows(drawing, MARGIN, table)
    return drawing


def ranks() -> Drawing:
    drawing = Drawing("Who owns what: a share on every rank, some things on rank 0 only, some agreed by all ranks")
    share = (
        "a shard of parameters, gradients, AdamW's states, averaged weights, teacher and reference; its windows or questions of "
        "each step; an engine; reward workers; its file of a checkpoint"
    )
    y = MARGIN + row(
        drawing, MARGIN,
        [("rank 0", share, "box"), ("rank 1", share, "box"), ("rank N - 1", share, "box")],
    )  # fmt: skip
    third = (WIDTH - 2 * MARGIN - 2 * GAP) / 3
    for number in range(3):
        drawing.arrow(
            MARGIN + third / 2 + number * (third + GAP), y, MARGIN + third / 2 + number * (third + GAP), y + 22
        )
    y += 24
    y += row(
        drawing, y,
        [("agreed by all ranks, in every step", "denominators, gradients (reduce-scatter), gradient norm, metrics, whether a "
          "signal asks for a stop", "shared")],
    )  # fmt: skip
    drawing.arrow(MARGIN + third / 2, y, MARGIN + third / 2, y + 22)
    row(
        drawing, y + 24,
        [("rank 0 only", "terminal, TensorBoard, config.yaml, rollouts.jsonl, stages.json, benchmarks/; of a checkpoint meta.pt, "
          "digests.json and the rename that gives it its name; the lock on the run's folder", "box")],
    )  # fmt: skip
    return drawing


PICTURES: dict[str, Callable[[], Drawing]] = {
    "rooms": rooms,
    "pretraining-step": pretraining_step,
    "grpo-step": grpo_step,
    "ranks": ranks,
}


def main() -> None:
    for name, draw in PICTURES.items():
        (HERE / f"{name}.svg").write_text(draw().svg(), "utf-8")


if __name__ == "__main__":
    main()
