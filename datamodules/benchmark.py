"""Benchmark suites through ``trainer.validate`` and ``trainer.test``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader
from typing_extensions import override

from nbg_lightning.chat.template import AUTO
from nbg_lightning.contracts import datamodule_of
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, checkpoint_template, load_tokenizer
from nbg_lightning.data.tokenizer_folder import tokenizer_name
from nbg_lightning.datamodules.steps import starting_weights
from nbg_lightning.engines.capabilities import interface_of, takes_weights
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.evaluation.live import EvaluatedModule, print_table, run_on_module, run_on_server
from nbg_lightning.evaluation.results import SuiteResult
from nbg_lightning.evaluation.suite import Suite


class BenchmarkDataModule(pl.LightningDataModule):
    """Runs a suite on any of the library's modules: ``trainer.test(module, datamodule=BenchmarkDataModule(suite))``.

    Modules need no extra code: they get a single batch without micro-batches, which does nothing, and the suite runs in a
    callback provided by this datamodule (`LanguageModule.configure_callbacks`), on the live weights, on all ranks.
    ``trainer.test`` returns and logs its metrics as ``benchmark/<name>/<metric>``.

    Args:
        suite: the suite, or the path of its YAML file.
        tokenizer: folder, hub name, checkpoint, run folder, or a `TokenizerConfig` with one of these (with a server's
            ``interface: chat``, its format is compared with the server's); defaults to the tokenizer of the weights: of
            ``ckpt_path``, else of the module's ``base_weights``.
        folder: where results go; ``<default_root_dir>/benchmarks`` by default.
        max_batch_tokens: KV cache size of the default engine in tokens, see `NativeEngine`.
        max_rows: number of sequences that the default engine generates concurrently.
        seed: added to the suite's sampling seed, to draw different samples.
        engine: generates the answers; by default the live core (`NativeEngine`). `VLLMEngine` gets the module's weights,
            one engine per rank. `ServerEngine` and `LocalEngine` have their own weights, which are then what is evaluated:
            only ``base_weights`` of the module matters, for the tokenizer (`ServedModel` has nothing else).

    Raises:
        ValueError: the engine's interface does not match the suite's format.

    Attributes:
        result: result of the last run.
    """

    def __init__(
        self,
        suite: Suite | str,
        tokenizer: TokenizerConfig | str | None = None,
        folder: str | None = None,
        max_batch_tokens: int = 65_536,
        max_rows: int = 256,
        seed: int = 0,
        engine: Engine | None = None,
    ):
        super().__init__()
        suite = Suite.from_yaml(suite) if isinstance(suite, str) else suite
        sampling = dataclasses.replace(suite.sampling, seed=suite.sampling.seed + seed)
        self.suite = dataclasses.replace(suite, sampling=sampling)
        self.given_tokenizer, self.folder = tokenizer, folder
        self.engine, self.interface = engine, interface_of(engine)
        if suite.format != AUTO and {"text": "chat", "chat": "text"}.get(self.interface) == _spoken(suite.format):
            raise ValueError(
                f"interface is invalid: {self.interface!r} with the suite's format {suite.format!r}; give a chat interface a "
                "chat format, and interface 'text' the format 'text'"
            )
        self.engine_options = {"max_batch_tokens": max_batch_tokens, "max_rows": max_rows}
        self.result: SuiteResult | None = None
        self.expected: ChatFormat | None = None
        # Modules ask their datamodule for these in validation: there are no sources and no domains here.
        self.bytes_per_token: dict[str, float] = {}
        self.domains: list[str] = []

    @property
    def vocab_size(self) -> int | None:
        """Vocabulary size of the tokenizer, which the model must cover; None if the module's model is not evaluated."""
        return self.tokenizer.vocab_size if self.tokenizer is not None and takes_weights(self.engine) else None

    @override
    def setup(self, stage: str) -> None:
        if stage not in ("validate", "test"):
            raise ValueError(
                f"BenchmarkDataModule has no data for {TrainerFn(stage).value}; use nbg validate or nbg test"
            )
        self.suite.load()
        self.tokenizer: Tokenizer | None = None  # None for an engine that takes and returns text
        if self.interface == "ids":
            assert self.trainer is not None
            weights = self.trainer.ckpt_path or starting_weights(self.trainer)
            self.tokenizer = load_tokenizer(self._tokenizer_name())
            if weights is not None and (recorded := checkpoint_template(str(weights))) is not None:
                self.tokenizer.chat_template = recorded
        if self.interface == "chat" and self.given_tokenizer is not None:
            self.expected = ChatFormat(load_tokenizer(self._tokenizer_name()), self.suite.format)

    def _tokenizer_name(self) -> str:
        assert self.trainer is not None
        weights = self.trainer.ckpt_path or starting_weights(self.trainer)
        return tokenizer_name(self.given_tokenizer, None if weights is None else str(weights))

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([[]], batch_size=None)  # type: ignore[arg-type]  # one batch, of no micro-batch

    @override
    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    def callbacks(self) -> list[pl.Callback]:
        """The callback that runs the suite."""
        return [_RunSuite(self)]


def _spoken(format: str) -> str:
    """The kind of a suite's format: ``text`` or ``chat``."""
    return "text" if format == "text" else "chat"


class _RunSuite(pl.Callback):
    """Runs a datamodule's suite at the end of its single batch, while averaged weights are swapped in."""

    def __init__(self, datamodule: BenchmarkDataModule):
        self.datamodule = datamodule

    def _run(self, trainer: pl.Trainer, pl_module: pl.LightningModule, label: str) -> None:
        data = self.datamodule
        if datamodule_of(trainer) is not data or trainer.sanity_checking:
            return  # the callback outlives this datamodule in the trainer
        folder = Path(trainer.strategy.broadcast(str(data.folder or Path(trainer.default_root_dir) / "benchmarks")))
        options: dict[str, Any] = data.engine_options
        if takes_weights(data.engine):
            module = cast(EvaluatedModule, pl_module)
            data.result = run_on_module(
                data.suite, module, data.tokenizer, folder, label, averaged=False, engine=data.engine, **options
            )
        else:
            data.result = run_on_server(data.suite, data.engine, data.tokenizer, folder, label, data.expected)
        pl_module.log_dict(data.result.metrics, rank_zero_only=False, sync_dist=False)
        if trainer.is_global_zero:
            print_table(data.result)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run(trainer, pl_module, "validate")

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run(trainer, pl_module, "test")
