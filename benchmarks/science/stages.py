"""Sums with worked steps, generated for each seed, and small training stages shared by experiments on them.

The task is that of `nbg_lightning.testing.sums`: a question is ``3+4-8=?``; the reasoning has a line for each step, the answer
is the last result. A model learns single steps as text (pretraining), then whole questions (SFT). More digits are harder.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from seeds import stop_if_stopped, stored

from nbg_lightning.testing.sums import WorkedSum

if TYPE_CHECKING:
    from nbg_lightning.engines.chat import Answer

VOCAB_SIZE = 280
RESULTS_OF_A_STEP = range(-9, 19)  # from which another step may go on: those that facts begin with
MISSES = 1000  # draws without a new sum, after which few can be left


def draw_sums(counts: Mapping[str, int], seed: int, digits: int = 3) -> dict[str, list[WorkedSum]]:
    """Distinct sums for each purpose, without overlap, every step of which is a fact shown in pretraining.

    Args:
        counts: how many, by purpose.
        seed: of all of them.
        digits: of a sum.

    Raises:
        ValueError: there are hardly so many sums of so many digits.
    """
    draw = random.Random(f"sums {seed} {digits}")
    seen: set[WorkedSum] = set()
    found: dict[str, list[WorkedSum]] = {}
    misses = 0
    for name, count in counts.items():
        found[name] = []
        while len(found[name]) < count:
            if misses == MISSES:
                raise ValueError(
                    f"sums is invalid: {dict(counts)}; {len(seen)} different ones of {digits} digits were found: "
                    "ask for fewer, or for more digits"
                )
            first = draw.randrange(10)
            made = WorkedSum(first, tuple((draw.choice("+-"), draw.randrange(10)) for _ in range(digits - 1)))
            *between, last = made.totals
            possible = all(total in RESULTS_OF_A_STEP for total in between) and last >= RESULTS_OF_A_STEP[0]
            misses += 1
            if possible and made not in seen:
                misses = 0
                seen.add(made)
                found[name].append(made)
    return found


def conversations(made: Sequence[WorkedSum]) -> list[dict[str, Any]]:
    """Worked out, for SFT."""
    return [{"messages": each.conversation} for each in made]


def questions(made: Sequence[WorkedSum]) -> list[dict[str, str]]:
    """With their gold answers."""
    return [{"question": each.question, "answer": each.answer} for each in made]


def texts(made: Sequence[WorkedSum]) -> list[str]:
    """For a tokenizer."""
    words = ["user\nassistant\n"] * 1000
    return words + [f"{each.question} {each.steps} {each.answer}" for each in made]


class Steps(pl.Callback):
    """Keeps some metrics of every step."""

    names = ("pass_rate/mean", "rollout/zero_variance", "rollout/length", "rollout/truncated", "policy/entropy")

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rows.append({name: float(trainer.callback_metrics[name]) for name in self.names})


def turn(answer: Answer) -> dict[str, Any]:
    """A drawn answer as a message."""
    return {"role": "assistant", "content": answer.final, "reasoning_content": answer.reasoning}


# -- stages ------------------------------------------------------------------------------------------------------------


class Stages:
    """Training stages of one seed in one folder; finished ones are not repeated.

    Args:
        folder: of all that is made.
        seed: of data and models.
        step_tokens: positions of an optimizer step.
        tokenizer_texts: for the tokenizer, which is trained once.
    """

    def __init__(self, folder: Path, seed: int, step_tokens: int, tokenizer_texts: list[str]):
        from nbg_lightning.data import train_bpe

        self.folder, self.seed, self.step_tokens = folder, seed, step_tokens
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self.folder / "tokenizer"
        if not self.tokenizer.is_dir():
            train_bpe(tokenizer_texts, VOCAB_SIZE, self.tokenizer)
        self.seconds: dict[str, float] = {}

    def once(self, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a stage gave, with its seconds: now, or when it was run."""
        file = self.folder / name / "stage.json"
        if file.is_file():
            found: dict[str, Any] = json.loads(file.read_text())
        else:
            begin = time.perf_counter(), time.process_time()
            given = run()
            seconds = {"seconds": time.perf_counter() - begin[0], "processor_seconds": time.process_time() - begin[1]}
            found = stored(file, {**given, **seconds})
            print(f"seed {self.seed}, {name}: {found['seconds']:.0f} s", file=sys.stderr, flush=True)
        self.seconds[name] = found["processor_seconds"]  # the wall clock is that of a machine shared with others
        return found

    def fit(
        self,
        name: str,
        module: Any,
        data: Any,
        callbacks: list[Any],
        more: Callable[[], dict[str, Any]] = dict,
    ) -> tuple[str, dict[str, Any]]:
        """Train; the checkpoint, and what is kept of the run: its last metrics, and what ``more`` gives at its end."""

        def run() -> dict[str, Any]:
            from nbg_lightning import StepCheckpoint, Trainer

            shutil.rmtree(self.folder / name, ignore_errors=True)
            trainer = Trainer(
                accelerator="cpu",
                devices=1,
                default_root_dir=str(self.folder / name),
                logger=False,
                enable_progress_bar=False,
                limit_val_batches=0,
                callbacks=[*callbacks, StepCheckpoint(keep=1)],
            )
            trainer.fit(module, datamodule=data)
            stop_if_stopped(trainer)
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if "train/" in key}
            return {"steps": trainer.global_step, "metrics": metrics, **more()}

        found = self.once(name, run)
        return str(self.folder / name / "checkpoints" / f"step-{found['steps']:08d}"), found

    def options(self) -> dict[str, Any]:
        """Of every module."""
        from nbg_lightning import AdamWConfig, ParallelConfig

        return {
            "parallel": ParallelConfig(compute_dtype="float32"),
            "optimizer": AdamWConfig(weight_decay=0.0, betas=(0.9, 0.95)),
            "micro_batch_tokens": self.step_tokens,
            "seed": self.seed,
        }

    def data_options(self) -> dict[str, Any]:
        """Of datamodules of conversations and pairs."""
        return {
            "tokenizer": str(self.tokenizer),
            "sequence_length": 512,
            "tokens_per_step": self.step_tokens,
            "data_dir": str(self.folder / "data"),
            "validation_fraction": 0.0,
            "num_workers": 0,
            "prepare_workers": 0,
            "seed": self.seed,
        }

    def pretrain(self, name: str, core: Any, sources: Mapping[str, Any], stages: list[Any]) -> str:
        """Pretraining on some sources, by a curriculum with windows of 256."""
        from nbg_lightning import FGWSD, CurriculumDataModule, PretrainModule
        from nbg_lightning.data import TokenizerConfig

        data = CurriculumDataModule(
            dict(sources),
            TokenizerConfig(str(self.tokenizer)),
            data_dir=str(self.folder / "data"),
            validation_fraction=0.0,
            num_workers=0,
            prepare_workers=0,
            seed=self.seed,
        )
        module = PretrainModule(core, **self.options())
        return self.fit(name, module, data, [FGWSD(stages, self.step_tokens, 256)])[0]

    def base(self, name: str, shape: dict[str, int], steps: int) -> str:
        """Pretraining on facts."""
        from nbg_lightning import LanguageModelConfig, Stage
        from nbg_lightning.testing.sums import SumFacts

        tokens, warm = self.step_tokens, max(1, steps // 10)
        stages = [
            Stage("warmup", tokens * warm, [0.0, 3e-3], {"facts": 1.0}),
            Stage("stable", tokens * (steps - warm), [3e-3, 3e-4], {"facts": 1.0}),
        ]
        core = LanguageModelConfig(
            vocab_size=VOCAB_SIZE, head_dim=32, max_position_embeddings=512, initializer_range=0.06, **shape
        )
        return self.pretrain(name, core, {"facts": SumFacts(4000, self.seed)}, stages)

    def sft(self, name: str, base: str, rows: list[dict[str, Any]], steps: int, lr: float) -> str:
        """SFT on conversations."""
        from nbg_lightning import ChatDataModule, SFTModule, WarmupDecay
        from nbg_lightning.data import ChatList

        data = ChatDataModule({"chat": ChatList(rows)}, tokens=steps * self.step_tokens, **self.data_options())
        return self.fit(name, SFTModule(base_weights=base, **self.options()), data, [WarmupDecay(lr, 0.05)])[0]

    def reinforce(
        self, name: str, module: Any, data: Any, lr: float, last_lr: float | None = None
    ) -> tuple[str, dict[str, Any]]:
        """GRPO at a rate that is constant, or falls to ``last_lr``; the checkpoint, each step's metrics, and the tokens drawn."""
        from nbg_lightning import SampleTable, Sentinel, WarmupDecay

        steps = Steps()
        watching = [Sentinel(stop=()), SampleTable(every_n_steps=data.steps)]  # every arm takes all steps
        callbacks = [WarmupDecay(lr, 0.1, final_lr=lr if last_lr is None else last_lr), *watching, steps]

        def summary() -> dict[str, Any]:
            answers = data.prompts_per_step * module.group_size
            return {
                **{metric: [row[metric] for row in steps.rows] for metric in Steps.names},
                "tokens": round(sum(row["rollout/length"] for row in steps.rows) * answers),
                "answers": answers * len(steps.rows),
            }

        return self.fit(name, module, data, callbacks, summary)

    def prompts(self, made: Sequence[WorkedSum], per_step: int, steps: int, **filtered: Any) -> Any:
        """Questions for GRPO; ``filtered`` is what leaves some of them out."""
        from nbg_lightning import PromptDataModule
        from nbg_lightning.data import QuestionList

        return PromptDataModule(
            {"sums": QuestionList(questions(made))},
            str(self.tokenizer),
            per_step,
            steps=steps,
            data_dir=str(self.folder / "data"),
            seed=self.seed,
            **filtered,
        )

    def draw(
        self, name: str, weights: str, rows: Sequence[Mapping[str, Any]], reward: Any, sampling: Any
    ) -> dict[str, Any]:
        """Answers of a model to questions, and what drawing them has read.

        Returns:
            ``answers``: for each question a list of assistant turns, those that ended; ``right``: whether each is;
            ``tokens``: of prompts and answers, those that are thrown away too; ``mean_tokens`` of one.
        """

        def run() -> dict[str, Any]:
            from nbg_lightning.data.question import Question
            from nbg_lightning.data.tokenizer import Tokenizer
            from nbg_lightning.engines import LocalEngine
            from nbg_lightning.engines.chat import ChatModel
            from nbg_lightning.rewards.protocol import Group

            asked = [Question.from_dict(row) for row in rows]
            with LocalEngine(weights) as engine, reward:
                model = ChatModel(engine, Tokenizer(self.tokenizer), "nanbeige")
                prompts = [model.format.prompt(question.messages) for question in asked]
                written = model.write_prompts(prompts, sampling)
                groups = [Group(question, tuple(own)) for question, own in zip(asked, written, strict=True)]
                verdicts = list(reward.score(groups))
            lengths = [
                len(prompt.ids) + len(answer.completion.ids)
                for prompt, own in zip(prompts, written, strict=True)
                for answer in own
            ]
            finished = [
                [(answer, verdict.score == 1.0) for answer, verdict in zip(own, given, strict=True) if answer.finished]
                for own, given in zip(written, verdicts, strict=True)
            ]
            return {
                "answers": [[turn(answer) for answer, _ in own] for own in finished],
                "right": [[right for _, right in own] for own in finished],
                "tokens": sum(lengths),
                "mean_tokens": sum(lengths) / len(lengths),
            }

        return self.once(name, run)

    def pass_rate_ledger(
        self, file: Path, data: Any, reward: Any, weights: str, max_new_tokens: int, n: int
    ) -> tuple[list[Any], Any]:
        """`nbg pass-rate`, in Python: the questions of the data, and the ledger of ``n`` answers to each."""
        from nbg_lightning.engines import LocalEngine, Sampling
        from nbg_lightning.engines.chat import ChatModel
        from nbg_lightning.rl.pass_rate import PassRateFilter

        asked = data.load_questions()["sums"]
        with reward, LocalEngine(weights) as engine:
            rates = PassRateFilter(
                ChatModel(engine, data.tokenizer, data.template),
                reward,
                Sampling(max_new_tokens=max_new_tokens, n=n, seed=self.seed),
                file,
                {"weights": weights},
                prompts_per_call=200,
                progress=False,
            )
            ledger = rates.run(asked)
        assert ledger is not None
        if errors := sum(row.errors for row in ledger):
            raise RuntimeError(f"{errors} answers have no score")
        return asked, ledger

    def test(
        self, name: str, weights: str, rows: Mapping[str, list[dict[str, str]]], **sampling: Any
    ) -> dict[str, list[float]]:
        """Verified score of every test question, by benchmark; the mean over its answers.

        Args:
            name: of the model.
            weights: its checkpoint.
            rows: name of a benchmark to its questions.
            sampling: settings of `Sampling`.
        """

        def run() -> dict[str, Any]:
            from nbg_lightning.data import QuestionList
            from nbg_lightning.data.tokenizer import Tokenizer
            from nbg_lightning.engines import LocalEngine, Sampling
            from nbg_lightning.evaluation import Questions, Suite

            benchmarks = [Questions(source=QuestionList(own), scorer="number", name=key) for key, own in rows.items()]
            suite = Suite(benchmarks, name="sums", format="nanbeige", sampling=Sampling(**sampling))
            with LocalEngine(weights) as engine:
                result = suite.run(engine, Tokenizer(self.tokenizer))
            if errors := sum(each.errors for each in result.benchmarks):
                raise RuntimeError(f"{errors} test questions have no score: {result.benchmarks[0].first_error}")
            scores = {key: [record["score"] for record in records] for key, records in result.records.items()}
            return {"scores": scores, "accuracy": {key: statistics.mean(own) for key, own in scores.items()}}

        return self.once(f"test-{name}", run)["scores"]
