"""Base class of all training modules: the core, and an optimizer step that is exact for any division into micro-batches."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypedDict, cast

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.distributed.tensor import DTensor

from nbg_lightning import log
from nbg_lightning.callbacks.learning_rate import rules_of
from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.contracts import (
    BringsCallbacks,
    CountsSteps,
    HasChatTemplate,
    HasTokenizerFolder,
    HasVocabulary,
    datamodule_of,
)
from nbg_lightning.core.batch import PackedBatch, attended_length
from nbg_lightning.core.checkpoint_folder import checkpoint_at
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig, PresetName
from nbg_lightning.core.context import ContextShard, context_shard
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.sharding import reshard, set_gradient_sync
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.tokenizer import checkpoint_template
from nbg_lightning.modules.adapter import TrainedAdapter, check_adapter, dropout_seed
from nbg_lightning.modules.compilation import compiles_run
from nbg_lightning.modules.context import check_module_context, check_stage, micro_batches
from nbg_lightning.modules.data_kind import check_data
from nbg_lightning.modules.data_mesh import data_mesh
from nbg_lightning.modules.ema import WeightAverage
from nbg_lightning.modules.model_shape import check_shape, model_shape
from nbg_lightning.modules.optimizer import AdamWConfig, build_optimizer, check_optimizer, optimizer_record


class Update(NamedTuple):
    """Result of one update of the weights.

    Attributes:
        means: mean of each loss term over the whole step on all ranks; terms without any tokens in the step are absent.
        grad_norm: gradient norm before clipping.
    """

    means: dict[str, float]
    grad_norm: float


class LanguageModuleKeywords(TypedDict, total=False):
    """Settings of `LanguageModule` besides ``core``, which the constructors of its subclasses pass on."""

    optimizer: AdamWConfig
    parallel: ParallelConfig
    lora: LoRAConfig | None
    micro_batch_tokens: int
    max_grad_norm: float
    ema_decay: float | None
    seed: int
    base_weights: str | None


class LanguageModule(pl.LightningModule, ABC):
    """A language model and a training objective; subclasses define the loss.

    One Lightning batch is one optimizer step. `training_step` receives this rank's whole share of it, splits it into
    micro-batches, and divides each loss term by its number of tokens **in the whole step over all ranks**. So the gradient
    is that of ``sum / count`` for any micro-batch size and any number of ranks (Lightning's own accumulation takes a mean
    of means: Lightning#20350), and ``global_step`` alone determines consumed tokens, learning rate and data position.

    A subclass defines its objective at the level that it needs (docs/own_algorithm.md has an example of each):

    1. `count` and `losses`, sufficient for most objectives: the denominator of each loss term, known without a forward
       pass, and the sum of each term over a micro-batch.
    2. `backward_micro_batch`, if one custom pass computes the gradient of all terms (`DPDModule`).
    3. `training_step`, if a batch has to be generated first or is trained on several times (`GRPOModule`):
       `all_reduce_counts` once, `update_weights` for each update, `finish_step` once.

    Settings other than the subclass's own are passed on as ``**base``, flat in YAML: see `LanguageModuleKeywords`.

    Args:
        core: name of a preset, or a model config; None takes it from ``base_weights``.
        optimizer: settings of AdamW, alone or combined with Muon.
        parallel: dtype, activation checkpointing, compilation, float8, sharding.
        lora: train a low-rank adapter of the frozen ``base_weights``; None trains all weights.
        micro_batch_tokens: most tokens of a forward pass on a rank (at least a row, or its part of one). Changes no result.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: decay of an exponential moving average of the weights, used in validation; None keeps no average.
        seed: seed of the initial weights.
        base_weights: initial weights of a fresh run, instead of random ones: a Hugging Face folder, the name of a model on
            the hub, a checkpoint of another run (weights only, saved on any number of ranks), or that run's folder, whose
            newest checkpoint is taken. A resumed run continues with its own weights.

    Raises:
        ValueError: an invalid setting, before anything is built.
    """

    coefficients: dict[str, float]  # weight of each loss term in the total
    trains_on: ClassVar[DataKind | None] = None  # kind of its data; None accepts any
    gives_scores: ClassVar[bool] = False  # whether its model scores texts instead of predicting tokens
    splits_context: ClassVar[bool] = False  # whether it supports parts of rows (``parallel.context``)
    draws_samples: ClassVar[bool] = False  # whether ranks that share rows read distinct samples, to build rows from
    default_learning_rate: ClassVar[float] = 3e-4  # if neither the optimizer's settings nor a callback set one

    def __init__(
        self,
        core: PresetName | LanguageModelConfig | None = None,
        optimizer: AdamWConfig = AdamWConfig(),  # noqa: B008 - jsonargparse reads the default; never mutated
        parallel: ParallelConfig = ParallelConfig(),  # noqa: B008
        lora: LoRAConfig | None = None,
        micro_batch_tokens: int = 8192,
        max_grad_norm: float = 1.0,
        ema_decay: float | None = None,
        seed: int = 0,
        base_weights: str | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.base_weights = base_weights = None if base_weights is None else checkpoint_at(base_weights)
        self.shape = model_shape(core, base_weights, self.gives_scores)
        self.optimizer_config = optimizer
        self.parallel = parallel
        if lora is not None and optimizer.algorithm == "muon":
            raise ValueError("optimizer.algorithm is invalid with lora: muon; use adamw")
        self.adapter = None if lora is None else TrainedAdapter(lora, base_weights)
        check_module_context(parallel.context, self.shape, type(self).__name__, self.splits_context)
        self.context: ContextShard | None = None  # this rank's share, if several ranks share a micro-batch
        for name, value in (("micro_batch_tokens", micro_batch_tokens), ("max_grad_norm", max_grad_norm)):
            if not value > 0:
                raise ValueError(f"{name} is invalid: {value}; give a number above 0")
        self.micro_batch_tokens = micro_batch_tokens
        self.max_grad_norm = max_grad_norm
        self.ema_decay = ema_decay
        self.seed = seed
        self.skipped_steps = 0
        self.step_tokens = 0  # tokens that went through the model, over all ranks
        self.tokens_per_unit = 1  # tokens trained on per unit of the data's plan
        self.step_length = 0  # mean document length, weighted by tokens
        self._evaluation = ExitStack()
        self._averages_in = False
        self._base_template: ChatTemplate | None = None  # the chat format of the base weights

    # -- what a subclass defines ---------------------------------------------------------------------------------------

    @abstractmethod
    def count(self, batch: PackedBatch) -> dict[str, float]:
        """The denominator of each loss term: the number of tokens (or pairs, ...) of this batch that it sums over."""

    @abstractmethod
    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        """The sum of each loss term over a micro-batch, differentiable. Must not modify the batch."""

    def backward_micro_batch(self, batch: PackedBatch, scales: Mapping[str, float]) -> dict[str, Tensor]:
        """Accumulate the gradient of ``sum_k scales[k] x term_k`` over a micro-batch, by `manual_backward`.

        Args:
            batch: a micro-batch; gradients are synchronized on the last one of an update.
            scales: each term's coefficient divided by its denominator; a term without tokens in the step is absent.

        Returns:
            The sum of each term, detached.
        """
        terms = self.losses(batch)
        self.manual_backward(torch.stack([scales[k] * term for k, term in terms.items() if scales.get(k)]).sum())
        return {name: term.detach() for name, term in terms.items()}

    # -- the model -----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Raise if the datamodule's tokenizer has more ids than the model, or for predictions on parts of rows."""
        check_stage(self.parallel.context, stage)
        datamodule = datamodule_of(self.trainer)
        vocab_size = datamodule.vocab_size if isinstance(datamodule, HasVocabulary) else None
        if vocab_size is not None and vocab_size > self.shape.vocab_size:
            raise ValueError(
                f"the tokenizer has {vocab_size} ids, the model's vocabulary {self.shape.vocab_size}; "
                f"use that tokenizer's model, or give the core a vocab_size of at least {vocab_size}"
            )

    def configure_callbacks(self) -> list[pl.Callback]:
        """The callbacks provided by the datamodule, for as long as it is the trainer's (`BenchmarkDataModule` works through
        one).

        Lightning calls this before it prepares data: the earliest moment to reject data of the wrong kind.
        """
        datamodule = datamodule_of(self.trainer)
        check_data(type(self).__name__, self.trains_on, datamodule)
        return datamodule.callbacks() if isinstance(datamodule, BringsCallbacks) else []

    def configure_model(self) -> None:
        """Build the core once; Lightning calls this again before every validate and test."""
        if "model" in self._modules:
            return
        from nbg_lightning.core.create import create_model  # torchtitan takes a second to import

        mesh = self._data_mesh()
        self.context = context_shard(self.parallel.context, self.shape, mesh)
        self.model = create_model(
            self.shape,
            self.sharding,
            mesh,
            self.device,
            self.seed,
            draw=self.base_weights is None,
            lora=None if self.adapter is None else self.adapter.lora,
        )
        if self.base_weights is not None:  # a resumed checkpoint later overwrites them, or their adapter
            from nbg_lightning.core.weights import load_base_weights

            load_base_weights(self.model, self.base_weights)
            self._base_template = checkpoint_template(self.base_weights)
        if self.adapter is not None:
            self.adapter.load(self.model)
        if self.ema_decay is not None:
            self.ema = WeightAverage(self.model, self.ema_decay)

    @property
    def saves_trained_only(self) -> bool:
        """Whether checkpoints omit frozen weights, which can be read from ``base_weights``; used by `FSDP2Strategy`."""
        return self.adapter is not None

    @property
    def num_trained(self) -> int:
        """Number of trained parameters."""
        return self.shape.num_parameters if self.adapter is None else self.adapter.num_parameters(self.shape)

    @property
    def ranks_per_sample(self) -> int:
        """Number of neighbouring ranks that read the same samples and train on a part of each."""
        return 1 if self.draws_samples else self.parallel.context

    @property
    def sharding(self) -> ParallelConfig:
        """``parallel`` resolved for this launch: ``replicate: nodes`` as a number, ``compile: auto`` as a decision."""
        parallel = self.parallel
        if parallel.replicate == "nodes":
            parallel = dataclasses.replace(parallel, replicate=self.trainer.num_nodes)
        if parallel.compile == "auto":
            parallel = dataclasses.replace(parallel, compile=self._compiles)
        return parallel

    @cached_property
    def _compiles(self) -> bool:
        return compiles_run(self.trainer, self.shape, self.tokens_per_unit, self.device.type)

    def _data_mesh(self) -> Any:
        return data_mesh(type(self).__name__, self.device_mesh)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.model.named_parameters(), self.optimizer_config, self.default_learning_rate)
        if not rules_of(self.trainer):
            origin = f"the default of {type(self).__name__}" if self.optimizer_config.lr is None else "optimizer.lr"
            log.info(
                f"learning rate {optimizer.defaults['lr']:g} in every step ({origin}): set model.init_args.optimizer.lr, or "
                "add the callback WarmupDecay"
            )
        return optimizer

    def _optimizer(self) -> LightningOptimizer:
        return cast(LightningOptimizer, self.optimizers())  # the one of configure_optimizers

    # -- one optimizer step --------------------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Split a batch into micro-batches, and take this rank's part of the tokens, while it is on the CPU."""
        return micro_batches(batch, self.micro_batch_tokens, self.context) if isinstance(batch, PackedBatch) else batch

    def training_step(self, batch: list[PackedBatch], batch_idx: int) -> None:
        hashes = torch.stack([micro.sample_hash.sum() for micro in batch]).sum()
        counts, sample_hash = self.all_reduce_counts(batch, hashes)
        self.finish_step(self.update_weights(batch, counts), sample_hash)

    def all_reduce_counts(self, batch: Sequence[PackedBatch], hashes: Tensor) -> tuple[dict[str, float], int]:
        """Sum the counts of a step over all ranks, before its first forward pass. Collective.

        Args:
            batch: this rank's micro-batches.
            hashes: sum of the hashes of this rank's samples.

        Returns:
            The denominator of each loss term, and the sum of all samples' hashes, over all ranks.
        """
        local: dict[str, float] = {}
        for micro in batch:
            for name, value in self.count(micro).items():
                local[name] = local.get(name, 0.0) + float(value)
        tokens = sum(micro.num_tokens for micro in batch)
        attended = torch.stack([micro.input.positions.sum() for micro in batch]).sum()
        integers = torch.stack([hashes, hashes.new_tensor(tokens), attended])
        floats = torch.tensor(list(local.values()), dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            dist.all_reduce(integers)  # int64 wraps around, as the sum of hashes should
            dist.all_reduce(floats)
        sample_hash, self.step_tokens, attended_tokens = integers.tolist()
        self.step_length = attended_length(attended_tokens, self.step_tokens)
        return dict(zip(local, floats.tolist(), strict=True)), sample_hash

    def update_weights(
        self, batch: Sequence[PackedBatch], counts: Mapping[str, float], repeated: bool = False
    ) -> Update:
        """Update the weights once. Collective.

        Args:
            batch: this rank's micro-batches, the same number as on every other rank.
            counts: denominators over all ranks, from `all_reduce_counts`.
            repeated: a further update on the batch of this step: Lightning counts steps, and schedules advance, once per
                batch.
        """
        optimizer = self._optimizer()
        sums: dict[str, Any] = dict.fromkeys(counts, 0.0)
        if any(counts.values()):
            sums = self._backward(batch, counts)
        else:
            log.warn(f"step {self.global_step}: no token of the batch is trained; it changes nothing")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        update = self._means(sums, counts, norm)
        if not math.isfinite(update.grad_norm) or not all(map(math.isfinite, update.means.values())):
            self.skipped_steps += 1
            log.warn(f"step {self.global_step}: loss or gradient is not finite; the step is skipped")
            optimizer.zero_grad()  # without gradients AdamW changes nothing, and the step still counts
        (optimizer.optimizer if repeated else optimizer).step()
        optimizer.zero_grad()
        if self.ema_decay is not None:
            self.ema.update(self.model)
        return update

    def _backward(self, batch: Sequence[PackedBatch], counts: Mapping[str, float]) -> dict[str, Tensor]:
        scales = {name: self.coefficients[name] / count for name, count in counts.items() if count}
        sums: dict[str, Tensor] = {}
        with self._dropout():
            for index, micro in enumerate(batch):
                last = index == len(batch) - 1
                set_gradient_sync(self.model, last or self.parallel.sync_every_micro_batch)
                for name, value in self.backward_micro_batch(micro, scales).items():
                    sums[name] = sums[name] + value.double() if name in sums else value.double()
        return sums

    def _dropout(self) -> AbstractContextManager[None]:
        if self.adapter is None or not self.adapter.lora.dropout:
            return nullcontext()
        return dropout_seed(self.seed, self.global_step, self.global_rank, self.device)

    def _means(self, sums: Mapping[str, Any], counts: Mapping[str, float], norm: Tensor) -> Update:
        """Convert sums of this rank to means over the whole step, with the gradient norm, in one copy to the host."""
        values = torch.stack([torch.as_tensor(sums[name], dtype=torch.float64, device=self.device) for name in counts])
        if self.trainer.world_size > 1:
            dist.all_reduce(values)
        *totals, grad_norm = torch.cat((values, norm.detach().double().view(1))).tolist()
        means = {name: total / counts[name] for name, total in zip(counts, totals, strict=True) if counts[name]}
        return Update(means, grad_norm)

    def finish_step(self, update: Update, sample_hash: int) -> None:
        """Record the step in the data, and log its (last) update. Collective."""
        datamodule = datamodule_of(self.trainer)
        if isinstance(datamodule, CountsSteps):
            datamodule.advance(sample_hash)
        self._log_step(*update)

    def _log_step(self, means: dict[str, float], grad_norm: float) -> None:
        if means:  # a step without a trained token has no loss, rather than 0
            total = sum(self.coefficients[name] * mean for name, mean in means.items())
            self.log("train/loss", total, prog_bar=True)
        if len(means) > 1:
            self.log_dict({f"train/{name}": mean for name, mean in means.items()})
        self.log("train/grad_norm", grad_norm)
        self.log("train/lr", self._optimizer().param_groups[0]["lr"])
        if self.skipped_steps:
            self.log("train/skipped_steps", float(self.skipped_steps))

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Validate with the averaged weights, if there are any."""
        reshard(self.model)
        if self.ema_decay is not None:
            self._evaluation.enter_context(self.ema.swapped_in(self.model))
            self._averages_in = True
            self.on_averages_swapped()

    def on_validation_end(self) -> None:
        reshard(self.model)  # before the weights are touched: a forward without a backward leaves units gathered
        self._evaluation.close()
        self._averages_in = False
        if self.ema_decay is not None:
            self.on_averages_swapped()

    def on_averages_swapped(self) -> None:
        """Called after averaged weights have been swapped in for an evaluation, and after they have been swapped out again."""

    @contextmanager
    def trained_weights(self) -> Iterator[None]:
        """Use the model's own weights inside the block, even while it is validated with the averaged ones."""
        if not self._averages_in:
            yield
            return
        reshard(self.model)
        with self.ema.swapped_in(self.model):  # swapped once more
            yield

    on_test_start = on_validation_start
    on_test_end = on_validation_end

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        datamodule = datamodule_of(self.trainer)
        tokenizer = datamodule.tokenizer_folder if isinstance(datamodule, HasTokenizerFolder) else None
        template = datamodule.chat_template if isinstance(datamodule, HasChatTemplate) else None
        template = template or self._base_template  # training on texts leaves a chat model its format
        checkpoint["nbg_lightning"] = {
            "shape": dataclasses.asdict(self.shape),
            "adapter": None if self.adapter is None else self.adapter.record(),
            "optimizer": optimizer_record(self.optimizer_config),
            "averaged": self.ema_decay is not None,
            "rope_theta": self.model.rope_theta,  # a stage may have raised it
            "tokenizer": None if tokenizer is None else str(Path(tokenizer).absolute()),
            "chat_template": None if template is None else template.to_dict(),
            "skipped_steps": self.skipped_steps,
        }

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise a ValueError if this is not a checkpoint of this model; `FSDP2Strategy` calls it before reading weights."""
        saved = checkpoint.get("nbg_lightning")
        if saved is None:
            raise ValueError("this checkpoint was not written by nbg_lightning; load its weights with base_weights")
        check_shape(saved["shape"], self.shape)
        check_adapter(saved.get("adapter"), self.adapter)
        check_optimizer(saved.get("optimizer"), self.optimizer_config)
        if self.ema_decay is not None and not saved["averaged"]:
            raise ValueError(
                "the checkpoint's run kept no averaged weights; resume without ema_decay, or start a new run"
            )
        if self.ema_decay is None and saved["averaged"]:
            log.warn("the checkpoint has averaged weights, which this run does not use or keep: ema_decay is not set")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_checkpoint(checkpoint)
        self.skipped_steps = checkpoint["nbg_lightning"]["skipped_steps"]
        self.model.rope_theta = checkpoint["nbg_lightning"]["rope_theta"]
