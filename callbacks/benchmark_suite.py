"""Benchmarks during training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning.callbacks.graceful_stop import stop_signal
from nbg_lightning.callbacks.throughput import Throughput
from nbg_lightning.contracts import HasChatTemplate, HasTokenizer, callbacks_of, curriculum_of, datamodule_of
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from nbg_lightning.data.tokenizer_folder import tokenizer_name
from nbg_lightning.engines.capabilities import takes_weights
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.evaluation.live import EvaluatedModule, print_table, run_on_module
from nbg_lightning.evaluation.results import RESULT_COLUMNS, SuiteResult
from nbg_lightning.evaluation.suite import Suite
from nbg_lightning.loggers.tables import log_table
from nbg_lightning.schedule.tokens import parse_tokens


class BenchmarkSuiteCallback(pl.Callback):
    """Evaluates a benchmark suite on the live weights during training: every so many tokens, at stage ends, and at the end.

    Training is bit-for-bit the same with and without it: it uses no global random state and changes neither weights nor
    train/eval mode. All ranks take part. With ``ema_decay`` the averaged weights are evaluated. A step is evaluated once,
    even if several triggers coincide.

    Results go to the loggers as ``benchmark/<name>/<metric>``, as a line to
    ``<default_root_dir>/benchmarks/<suite>.jsonl``, as a table to the terminal, and item by item into a folder per step. A
    step that was already evaluated with the same weights (a run that was killed and resumed) is not evaluated again.

    Args:
        suite: the suite, or the path of its YAML file.
        every_n_tokens: training tokens between evaluations, such as "10M".
        at_stage_ends: evaluate at the end of each stage of the curriculum.
        at_fit_end: evaluate when training ends.
        at_fit_start: evaluate before the first step of a fresh run.
        tokenizer: folder, hub name, checkpoint, run folder, or a `TokenizerConfig` with one of these; defaults to the
            datamodule's.
        max_batch_tokens: KV cache size of the default engine in tokens, see `NativeEngine`.
        max_rows: number of sequences that the default engine generates concurrently.
        engine: generates answers with the module's weights: the live core (`NativeEngine`) by default, or `VLLMEngine`,
            which is started for each evaluation and frees its memory afterwards.

    Attributes:
        results: (step, result) of each evaluation.

    Raises:
        ValueError: no trigger is set, the engine cannot take the module's weights, or the tokenizer would have to be
            trained.
    """

    def __init__(
        self,
        suite: Suite | str,
        every_n_tokens: int | str | None = None,
        at_stage_ends: bool = False,
        at_fit_end: bool = True,
        at_fit_start: bool = False,
        tokenizer: TokenizerConfig | str | None = None,
        max_batch_tokens: int = 65_536,
        max_rows: int = 256,
        engine: Engine | None = None,
    ):
        self.every_n_tokens = None if every_n_tokens is None else parse_tokens(every_n_tokens)
        if self.every_n_tokens is not None and self.every_n_tokens < 1:
            raise ValueError(f"every_n_tokens is invalid: {every_n_tokens}; give at least 1")
        if not (self.every_n_tokens or at_stage_ends or at_fit_end or at_fit_start):
            raise ValueError(
                "BenchmarkSuiteCallback never runs; set every_n_tokens, at_stage_ends, at_fit_end or at_fit_start"
            )
        if not takes_weights(engine):
            raise ValueError(
                f"BenchmarkSuiteCallback evaluates the trained model, but {type(engine).__name__} has weights of its own; "
                "leave engine out, or use VLLMEngine"
            )
        self.engine = engine
        self.suite = Suite.from_yaml(suite) if isinstance(suite, str) else suite
        self.at_stage_ends, self.at_fit_end, self.at_fit_start = at_stage_ends, at_fit_end, at_fit_start
        self.tokenizer_name = None if tokenizer is None else tokenizer_name(tokenizer, None)
        self.engine_options = {"max_batch_tokens": max_batch_tokens, "max_rows": max_rows}
        self.results: list[tuple[int, SuiteResult]] = []

    @property
    @override
    def state_key(self) -> str:
        return f"BenchmarkSuiteCallback[{self.suite.name}]"

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.suite.load()  # reports what is missing now, not after hours of training

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tokenizer = self._find_tokenizer(trainer)
        self._evaluated = -1
        if (self.every_n_tokens or self.at_stage_ends) and curriculum_of(trainer) is None:
            raise ValueError(
                "every_n_tokens and at_stage_ends need a datamodule with a curriculum; use at_fit_end with another"
            )
        if self.at_fit_start and trainer.global_step == 0:
            self._run(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._due(trainer):
            self._run(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.at_fit_end and stop_signal(trainer) is None:  # a stopped run will be resumed
            self._run(trainer, pl_module)

    def _due(self, trainer: pl.Trainer) -> bool:
        curriculum = curriculum_of(trainer)
        if curriculum is None:
            return False
        step, size = trainer.global_step, int(curriculum.tokens_per_step)
        index = curriculum.stage_at(step - 1)
        stage_ends = step == curriculum.first_step(index) + curriculum.steps_of(index)
        every = self.every_n_tokens
        passed = every is not None and step * size // every > (step - 1) * size // every
        return passed or (self.at_stage_ends and stage_ends)

    def _find_tokenizer(self, trainer: pl.Trainer) -> Tokenizer:
        datamodule = datamodule_of(trainer)
        if self.tokenizer_name is not None:
            loaded = load_tokenizer(self.tokenizer_name)
            if isinstance(datamodule, HasChatTemplate) and datamodule.chat_template is not None:
                loaded.chat_template = datamodule.chat_template  # of this run, not of the folder
            return loaded
        found = datamodule.tokenizer if isinstance(datamodule, HasTokenizer) else None
        if found is None:
            raise ValueError("the datamodule has no tokenizer; give BenchmarkSuiteCallback one")
        return found

    def _run(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if step == self._evaluated:
            return
        self._evaluated = step
        begin = time.perf_counter()
        folder = Path(trainer.strategy.broadcast(str(trainer.default_root_dir))) / "benchmarks"
        options: dict[str, Any] = self.engine_options
        module = cast(EvaluatedModule, pl_module)
        result = run_on_module(
            self.suite, module, self._tokenizer, folder, f"step-{step:08d}", engine=self.engine, **options
        )
        self.results.append((step, result))
        for logger in trainer.loggers:
            logger.log_metrics(result.metrics, step=step)
        if trainer.is_global_zero:
            self._write(trainer, folder, step, result)
            log_table(trainer.loggers, f"benchmarks/{self.suite.name}", RESULT_COLUMNS, result.rows(), step)
        callbacks = callbacks_of(trainer)
        for callback in callbacks:  # its timer includes this evaluation
            if isinstance(callback, Throughput):
                callback.leave_out(time.perf_counter() - begin)

    def _write(self, trainer: pl.Trainer, folder: Path, step: int, result: SuiteResult) -> None:
        curriculum = curriculum_of(trainer)
        line = {
            "step": step,
            "tokens": None if curriculum is None else step * int(curriculum.tokens_per_step),
            "metrics": result.metrics,
            "folder": result.folder,
        }
        with (folder / f"{self.suite.name}.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        print_table(result)
