"""The ledger of a run: every answer with the version of the weights that sampled it, sufficient to replay the same updates.

A folder with ``run.json`` and one Parquet file per step and rank, written as soon as the step's answers are scored. If
questions are carried over to the next step, another file holds their partial answers.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbg_lightning import log
from nbg_lightning.data.durable import remove_leftovers, write_atomic, write_json
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer, ChatFormat
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.environments.episode import Episode
from nbg_lightning.environments.episode_record import episode_from_record, episode_record
from nbg_lightning.error_line import first_line
from nbg_lightning.rewards.protocol import RewardResult
from nbg_lightning.rl.pending import PendingGroup, rollout_of
from nbg_lightning.rl.rollouts import Rollout

FOLDER = "rollout_ledger"
FORMAT = "nbg_lightning rollout ledger 1"
ABOUT, STEPS = "run.json", "steps.jsonl"


@dataclass(frozen=True)
class DrawnStep:
    """One rank's scored answers to the questions of a step.

    Attributes:
        step: step that trains on them.
        version: step of the weights that sampled them.
        rollouts: the answers.
        seconds: duration of each part (`Collected.seconds`).
        times: start of sampling, end of sampling, end of scoring (seconds since 1970).
        carried: questions that continue in the next step.
    """

    step: int
    version: int
    rollouts: list[Rollout]
    seconds: dict[str, float] = field(default_factory=dict)
    times: tuple[float, float, float] = (0.0, 0.0, 0.0)
    carried: Sequence[PendingGroup] = ()


class RolloutLedger:
    """A ledger on disk.

    Args:
        folder: folder with ``run.json``.

    Attributes:
        about: everything that determines the run's answers: settings, the fingerprint of the initial weights, and the
            ledger's id.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else, or damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / ABOUT).is_file():
            raise FileNotFoundError(
                f"there is no ledger of rollouts in {folder}; give the folder of a run that kept one"
            )
        try:
            self.about: dict[str, Any] = json.loads((self.folder / ABOUT).read_text("utf-8"))
            if self.about["format"] != FORMAT or not isinstance(self.about["settings"], dict):
                raise ValueError("its format is another")
            self.run: str = self.about["run"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.folder / ABOUT} is no ledger of rollouts ({first_line(error)}); give another"
            ) from None

    @classmethod
    def at(cls, path: str | Path) -> RolloutLedger:
        """The ledger in a folder, or in a run's folder."""
        inside = Path(path) / FOLDER
        return cls(inside if inside.is_dir() else path)

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, Any], weights: str, step: int) -> RolloutLedger:
        """Create a ledger; an existing one is moved aside."""
        if folder.exists():
            number = 1
            while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
                number += 1
            folder.rename(aside)
            log.info(f"the ledger of an earlier run is {aside}")
        folder.mkdir(parents=True)
        about = {
            "format": FORMAT,
            "run": uuid.uuid4().hex,
            "begin": step,
            "weights": weights,
            "settings": dict(settings),
        }
        write_json(folder / ABOUT, about)
        return cls(folder)

    # -- what is there -------------------------------------------------------------------------------------------------

    def steps(self) -> set[int]:
        """Steps that have answers."""
        return {int(file.name[5:13]) for file in self.folder.glob("step-????????-*.parquet")}

    def files(self, step: int) -> list[Path]:
        """The files of a step, one per rank."""
        return sorted(self.folder.glob(f"step-{step:08d}-*.parquet"))

    def rows(self, step: int, carried: bool = False) -> list[dict[str, Any]]:
        """All answers of a step, or the partial answers to the questions that it carried over.

        Raises:
            ValueError: a file is damaged.
        """
        files = sorted(self.folder.glob(f"carried-{step:08d}-*.parquet")) if carried else self.files(step)
        return [row for file in files for row in _table(file).to_pylist()]

    def check(self, steps: Iterable[int]) -> None:
        """Read the files of these steps, to detect damage before training starts.

        Raises:
            ValueError: naming the damaged file.
        """
        for step in steps:
            for file in (*self.files(step), *self.folder.glob(f"carried-{step:08d}-*.parquet")):
                _table(file)

    def read(self, step: int, questions: Callable[[int], Any], n: int, form: ChatFormat) -> DrawnStep:
        """This rank's answers of a step, including those to questions carried over to it.

        Args:
            step: the step.
            questions: returns this rank's questions of a step.
            n: answers per question.
            form: chat format, which decodes their ids.

        Raises:
            ValueError: the ledger has other questions or another number of answers.
        """
        rows = _by_question(self.rows(step), step)
        carried = {key: own for key, own in _by_question(self.rows(step, True), step).items() if key not in rows}
        rollouts, versions = [], [0]
        for asked in sorted({asked for asked, _ in rows} | {step}):
            batch = questions(asked)
            for question, prompt in zip(batch.questions, batch.prompts, strict=True):
                key = asked, prompt.seed or 0
                own = rows.get(key, [])
                if not own and (asked < step or key in carried):
                    continue  # of another step
                self._check(own, question, n, step)
                versions += [row["weight_versions"][-1] for row in own]
                answers, results = zip(*(_read_row(row, form) for row in own), strict=True)
                rollouts.append(Rollout(question, prompt, answers, results, step=step, asked=asked))
        return DrawnStep(step, max(versions), rollouts, carried=self._carried(step, carried, questions, n, form))

    def read_carried(self, step: int, questions: Callable[[int], Any], n: int, form: ChatFormat) -> list[PendingGroup]:
        """This rank's questions that a step carried over to the next; arguments and errors as in `read`."""
        return self._carried(step, _by_question(self.rows(step, True), step), questions, n, form)

    def _carried(
        self,
        step: int,
        rows: Mapping[tuple[int, int], list[dict[str, Any]]],
        questions: Callable[[int], Any],
        n: int,
        form: ChatFormat,
    ) -> list[PendingGroup]:
        found = []
        for asked in sorted({asked for asked, _ in rows}):
            batch = questions(asked)
            for question, prompt in zip(batch.questions, batch.prompts, strict=True):
                if own := rows.get((asked, prompt.seed or 0)):
                    self._check(own, question, n, step)
                    completions = tuple(_read_row(row, form)[0].completion for row in own)
                    found.append(PendingGroup(question, prompt, asked, completions))
        return found

    def _check(self, rows: Sequence[Mapping[str, Any]], question: Question, n: int, step: int) -> None:
        if len(rows) != n or any(row["question_key"] != question.key for row in rows):
            raise ValueError(
                f"step {step} of {self.folder} has other questions or answers than this run; take the settings and "
                "data of the run that wrote it"
            )

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, drawn: DrawnStep, rank: int, seed: int, form: ChatFormat) -> None:
        """Write a rank's answers of a step; each file is written atomically, and that of the step last."""
        name = f"{drawn.step:08d}-{rank:05d}.parquet"
        if drawn.carried:
            self._write(f"carried-{name}", drawn, [_unscored(group, form) for group in drawn.carried], seed)
        self._write(f"step-{name}", drawn, drawn.rollouts, seed)

    def _write(self, name: str, drawn: DrawnStep, rollouts: Sequence[Rollout], seed: int) -> None:
        import io

        import pyarrow
        import pyarrow.parquet

        rows = [_row(drawn, rollout, seed, sample) for rollout in rollouts for sample in range(len(rollout.answers))]
        sink = io.BytesIO()
        table = pyarrow.Table.from_pylist(rows, schema=_schema())
        pyarrow.parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
        write_atomic(self.folder / name, sink.getvalue())

    def note(self, step: int, asked: float, had: float) -> None:
        """Record when the trainer requested the answers of a step, and when it received them (seconds since 1970)."""
        with (self.folder / STEPS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "asked": asked, "had": had}) + "\n")

    def forget_after(self, step: int) -> None:
        """Remove answers sampled by weights that a run resuming from this step does not have."""
        import pyarrow.parquet

        remove_leftovers(self.folder)
        for file in self.folder.glob("step-????????-*.parquet"):
            if int(file.name[5:13]) < step:
                continue
            carried = file.with_name(file.name.replace("step-", "carried-"))
            try:
                kept = all(
                    versions[-1] <= step
                    for each in (file, carried)
                    if each.exists()
                    for versions in pyarrow.parquet.read_table(each, columns=["weight_versions"]).column(0).to_pylist()
                )
            except Exception as error:
                log.warn(f"{file} is damaged ({first_line(error)}): its answers are drawn again")
                kept = False
            if not kept:
                file.unlink()
                carried.unlink(missing_ok=True)


def _table(file: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(file, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({first_line(error)}); restore it, or replay another ledger") from None


def _schema() -> Any:
    import pyarrow as pa

    whole, text, real = pa.int64(), pa.string(), pa.float64()
    return pa.schema(
        [
            ("step", whole), ("asked_step", whole), ("source", text), ("question", text), ("question_key", text),
            ("sample_seed", pa.uint64()), ("seed", pa.uint64()), ("sample", whole), ("weight_versions", pa.list_(whole)),
            ("segment_tokens", pa.list_(whole)), ("ids", pa.list_(pa.int32())), ("log_probs", pa.list_(real)),
            ("text", text), ("finish_reason", text), ("error", text), ("score", real), ("status", text),
            ("detail", text), ("parsed", pa.bool_()), ("passed", pa.bool_()), ("episode", text),
            ("drawn_from", real), ("drawn_to", real), ("scored_at", real),
        ]
    )  # fmt: skip


def _row(drawn: DrawnStep, rollout: Rollout, seed: int, sample: int) -> dict[str, Any]:
    question, answer, result = rollout.question, rollout.answers[sample], rollout.results[sample]
    completion = answer.completion
    return {
        "step": drawn.step,
        "asked_step": drawn.step if rollout.asked is None else rollout.asked,
        "source": question.source,
        "question": _writable(str(question.messages[-1]["content"])),
        "question_key": question.key,
        "sample_seed": (rollout.prompt.seed or 0) % 2**64,
        "seed": seed % 2**64,
        "sample": sample,
        "weight_versions": [version for version, _ in completion.segments],
        "segment_tokens": [tokens for _, tokens in completion.segments],
        "ids": completion.ids,
        "log_probs": completion.log_probs,
        "text": _writable(answer.text),
        "finish_reason": completion.finish_reason,
        "error": completion.error,
        "score": result.score,
        "status": result.status,
        "detail": _writable(result.detail),
        "parsed": result.parsed,
        "passed": result.passed,
        "episode": json.dumps(episode_record(answer)) if isinstance(answer, Episode) else None,
        "drawn_from": drawn.times[0],
        "drawn_to": drawn.times[1],
        "scored_at": drawn.times[2],
    }


def _unscored(group: PendingGroup, form: ChatFormat) -> Rollout:
    rollout = rollout_of(group, form)
    return replace(rollout, results=(RewardResult(None, "unscored"),) * len(rollout.answers))


def _by_question(rows: Sequence[dict[str, Any]], step: int) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The answers to each question, in order, by the question's seed and the step whose batch contains it."""
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["sample"])):
        asked = row.get("asked_step")  # older ledgers have no carried questions
        found.setdefault((step if asked is None else asked, row["sample_seed"]), []).append(row)
    return found


def _writable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _read_row(row: Mapping[str, Any], form: ChatFormat) -> tuple[Answer, RewardResult]:
    completion = Completion(
        tuple(row["ids"]),
        tuple(row["log_probs"]),
        row["finish_reason"],
        0,
        row["sample"],
        row["weight_versions"][-1],
        row["error"],
        earlier=tuple(zip(row["weight_versions"], row["segment_tokens"], strict=True))[:-1],
    )
    episode = row["episode"]
    answer = form.read(completion) if episode is None else episode_from_record(json.loads(episode), completion)
    result = RewardResult(row["score"], row["status"], row["detail"], parsed=row["parsed"], passed=row["passed"])
    return answer, result


def check_replay(ledger: RolloutLedger, settings: Mapping[str, Any], weights: str | None, steps: Sequence[int]) -> None:
    """Raise if a ledger cannot be replayed: its answers were sampled with other settings, or it is too short.

    Args:
        ledger: the ledger to replay.
        settings: this run's settings that determine its answers.
        weights: fingerprint of this run's initial weights; None if it is resumed.
        steps: steps that this run trains.

    Raises:
        ValueError: naming what differs.
    """
    where = f"replay is invalid: {ledger.folder}"
    for name, value in settings.items():
        theirs = ledger.about["settings"].get(name)
        if theirs != value:
            raise ValueError(
                f"{where} is of a run with {name}={theirs!r:.60}, and this one has {value!r:.60}; set it so"
            )
    if weights is not None and ledger.about.get("begin") == steps[0] and ledger.about.get("weights") != weights:
        raise ValueError(
            f"{where} is of a run that began with other weights ({ledger.about.get('weights')}, and here {weights}); give it the "
            "same base_weights and seed"
        )
    there = ledger.steps()
    missing = next((step for step in steps if step not in there), None)
    if missing is not None:
        raise ValueError(
            f"{where} has no answers of step {missing}, and this run trains {len(steps)} steps from {steps[0]} on; set steps, or "
            "trainer.max_steps, to what it has"
        )


def wall_clock() -> float:
    """Seconds since 1970, so that ledgers of several processes and machines can be compared."""
    return time.time()
