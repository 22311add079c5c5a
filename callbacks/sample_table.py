"""Sampled rollouts with their rewards, to read during training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning.contracts import KeepsRollouts
from nbg_lightning.data.durable import write_atomic
from nbg_lightning.environments.episode import Episode
from nbg_lightning.environments.transcript import played_turns
from nbg_lightning.json_lines import json_line, read_json_lines
from nbg_lightning.loggers.tables import TableCell, log_table, markdown_cell
from nbg_lightning.rl.rollouts import Rollout

FILE = "rollouts.jsonl"
COLUMNS = ["source", "question", "gold", "answer", "reward", "advantage", "trained", "tokens", "ended by", "verdict"]


class SampleTable(pl.Callback):
    """Records some groups of answers with their rewards and advantages, every so many steps.

    They go to every logger as a table ``rollouts``, and to ``<default_root_dir>/rollouts.jsonl``, one line per group (`nbg
    view`). Groups whose rewards differ come first, and of each group the best and worst answers. All are from the first
    rank. The file has all turns of an environment's episodes. A resumed run overwrites what was recorded after its
    checkpoint.

    Args:
        every_n_steps: steps between samples; the first step is always recorded.
        num_groups: groups per sample.
        num_answers: answers per group.
        max_characters: longer texts are truncated in the middle, in the table only.

    Raises:
        ValueError: a value below 1.
    """

    def __init__(self, every_n_steps: int = 10, num_groups: int = 4, num_answers: int = 4, max_characters: int = 600):
        for name, value in dict(
            every_n_steps=every_n_steps, num_groups=num_groups, num_answers=num_answers, max_characters=max_characters
        ).items():
            if value < 1:
                raise ValueError(f"{name} is invalid: {value}; give at least 1")
        self.every_n_steps, self.num_groups, self.num_answers = every_n_steps, num_groups, num_answers
        self.max_characters = max_characters

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, KeepsRollouts):
            raise ValueError(
                f"SampleTable shows answers and their rewards, and {type(pl_module).__name__} has none; remove it"
            )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            _forget_after(self._file(trainer), trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or (step != 1 and step % self.every_n_steps):
            return
        assert isinstance(pl_module, KeepsRollouts)  # checked in setup
        records = self.records(pl_module.last_rollouts, step)
        if not records:
            return
        with open(self._file(trainer), "ab") as stream:
            stream.write(b"".join(json_line(record) for record in records))
        log_table(trainer.loggers, "rollouts", COLUMNS, self.rows(records), step, self.table(records))

    @staticmethod
    def _file(trainer: pl.Trainer) -> Path:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / FILE

    def records(self, rollouts: list[Rollout], step: int) -> list[dict[str, Any]]:
        """The recorded groups, as JSON."""
        spread = [(max(r.scores) - min(r.scores) if r.scores else -1.0) for r in rollouts]
        chosen = sorted(range(len(rollouts)), key=lambda index: -spread[index])[: self.num_groups]
        return [self._record(rollouts[index], step) for index in chosen]

    def _record(self, rollout: Rollout, step: int) -> dict[str, Any]:
        question = rollout.question
        scores = [result.score for result in rollout.results]
        best_first = sorted((-score, i) for i, score in enumerate(scores) if score is not None)
        scored = [i for _, i in best_first]
        unscored = [i for i, score in enumerate(scores) if score is None]
        if len(scored) > self.num_answers:
            worst = self.num_answers // 2
            scored = scored[: self.num_answers - worst] + scored[len(scored) - worst :]
        order = [*scored, *unscored][: self.num_answers]
        return {
            "step": step,
            "source": question.source,
            "question": [dict(message) for message in question.messages],
            "gold": question.answer,
            "rewards": scores,
            "answers": [self._answer(rollout, index) for index in order],
        }

    @staticmethod
    def _answer(rollout: Rollout, index: int) -> dict[str, Any]:
        answer, result = rollout.answers[index], rollout.results[index]
        return {
            "sample": index,
            "text": answer.text,
            **(_episode(rollout, index, answer) if isinstance(answer, Episode) else {}),
            "reward": result.score,
            "status": result.status,
            "detail": result.detail,
            "advantage": rollout.advantages[index] if rollout.advantages else None,
            "trained": rollout.trained[index] if rollout.trained else None,
            "tokens": len(answer.completion.ids),
            "finish_reason": answer.completion.finish_reason,
            "weight_version": answer.completion.weight_version,
        }

    def rows(self, records: list[dict[str, Any]]) -> list[list[TableCell]]:
        """The records as rows of a table with `COLUMNS`, one per answer."""
        return [
            [
                record["source"], self._cut(str(record["question"][-1]["content"])), self._gold(record),
                self._cut(answer["text"]), answer["reward"], answer["advantage"], answer["trained"], answer["tokens"],
                answer["finish_reason"], self._cut(answer["detail"] or answer["status"]),
            ]
            for record in records
            for answer in record["answers"]
        ]  # fmt: skip

    def _gold(self, record: dict[str, Any]) -> str | None:
        return None if record["gold"] is None else self._cut(str(record["gold"]))

    def table(self, records: list[dict[str, Any]]) -> str:
        """The records as Markdown."""
        blocks = []
        for record in records:
            asked = self._cell(str(record["question"][-1]["content"]))
            rows = ["| reward | advantage | tokens | ended by | answer | verdict |", "|---|---|---|---|---|---|"]
            for answer in record["answers"]:
                reward = answer["status"] if answer["reward"] is None else f"{answer['reward']:.3g}"
                advantage = "" if answer["advantage"] is None else f"{answer['advantage']:+.2f}"
                advantage += "" if answer["trained"] in (True, None) else " (not trained)"
                cells = [
                    reward, advantage, str(answer["tokens"]), answer["finish_reason"], self._cell(answer["text"]),
                    self._cell(answer["detail"]),
                ]  # fmt: skip
                rows.append(f"| {' | '.join(cells)} |")
            gold = "" if record["gold"] is None else f" (gold: {self._cell(record['gold'])})"
            blocks.append(f"**{record['source']}**: {asked}{gold}\n\n" + "\n".join(rows))
        return "\n\n".join(blocks)

    def _cell(self, text: str) -> str:
        """A text escaped for a cell of a Markdown table."""
        return markdown_cell(self._cut(text))

    def _cut(self, text: str) -> str:
        most = self.max_characters
        if len(text) <= most:
            return text
        head = most - most // 2
        return f"{text[:head]} ... {text[len(text) - most // 2 :]}"


def _episode(rollout: Rollout, index: int, episode: Episode) -> dict[str, Any]:
    """The turns of a multi-turn answer, with per-turn advantages if there are any."""
    advantages = rollout.turn_advantages[index] if rollout.turn_advantages else ()
    return {"turns": played_turns(episode, advantages), "end": episode.end.value}


def _forget_after(file: Path, step: int) -> None:
    """Remove lines that a run wrote after the checkpoint it resumes from, and a line truncated by a kill."""
    if not file.is_file():
        return
    records = [record for _, record in read_json_lines(file, torn=lambda number, reason: None)]
    kept = [record for record in records if isinstance(record, dict) and record.get("step", step + 1) <= step]
    write_atomic(file, b"".join(map(json_line, kept)).decode())
