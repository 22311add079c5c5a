"""`nbg plan --prepared`: the time of what a config's data hold, instead of full windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from nbg_lightning.commands.settings import make_datamodule
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.prefixes import shortest_shared
from nbg_lightning.data.order import SampleOrder
from nbg_lightning.datamodules.ordered import OrderedDataModule
from nbg_lightning.datamodules.prompts import PromptDataModule
from nbg_lightning.datamodules.steps import StepDataModule
from nbg_lightning.planning.of_batches import HeldTokens
from nbg_lightning.planning.of_config import answers_of
from nbg_lightning.planning.workload import TrainingPhase, Workload
from nbg_lightning.schedule.of_config import read_curriculum

WINDOWS = 256  # of each phase, spread over its steps
STEPS = 8  # that they are taken from


def with_data(config: Mapping[str, Any], workload: Workload, answer_tokens: float | None, name: str) -> Workload:
    """The workload with the steps, documents, padding and prompts of the config's data, which are prepared if necessary.

    Args:
        config: config of `nbg fit`, as read.
        workload: its workload.
        answer_tokens: as in `workload_of`.
        name: name of the config, for messages.

    Raises:
        ValueError: the config has no data, or data of another kind.
    """
    datamodule = make_datamodule(config, name)
    if not isinstance(datamodule, StepDataModule):
        raise ValueError(
            f"data is invalid: {type(datamodule).__name__}; --prepared needs a datamodule of this library: leave it out"
        )
    datamodule.prepare_data()
    datamodule.setup("fit")
    if (curriculum := read_curriculum(config)) is not None:
        datamodule.use_curriculum(curriculum)
    assert datamodule.order is not None
    model = config["model"]["init_args"]
    if isinstance(datamodule, PromptDataModule):
        return replace(workload, phases=(_of_prompts(datamodule, config, model, answer_tokens),))
    assert isinstance(datamodule, OrderedDataModule)
    shortest = shortest_shared(model["share_prefixes"]) if "share_prefixes" in model else None
    room = workload.micro_batch_tokens * workload.parallel.context
    phases = tuple(
        _of_rows(phase, stage, datamodule, room, shortest, workload.task == "pretraining")
        for stage, phase in enumerate(workload.phases)
    )
    return replace(workload, phases=phases)


def _of_rows(
    phase: TrainingPhase,
    stage: int,
    datamodule: OrderedDataModule,
    room: int,
    shortest: int | None,
    all_predicted: bool,
) -> TrainingPhase:
    """A phase of rows, as its data fill them."""
    assert datamodule.order is not None
    held = HeldTokens()
    held.add(_batches(datamodule, datamodule.order, stage), room, shortest)
    return replace(
        phase,
        steps=datamodule.order.plan.steps_of(stage),
        attended=min(phase.window, held.attended),
        computed=held.computed / held.positions,
        predicted=None if all_predicted else held.predicted / held.positions,
    )


def _batches(datamodule: OrderedDataModule, order: SampleOrder, stage: int) -> Iterator[PackedBatch]:
    dataset = datamodule.step_dataset(order)
    steps = _steps(order, stage)
    for step in steps:
        begin, end = order.plan.sample_range(step)
        yield dataset[order.lookup(begin, min(end, begin + max(1, WINDOWS // len(steps))))]


def _steps(order: SampleOrder, stage: int) -> list[int]:
    """Steps of a stage, spread over it."""
    first = sum(order.plan.steps_of(each) for each in range(stage))
    count = order.plan.steps_of(stage)
    number = min(STEPS, count)
    return [first + place * count // number for place in range(number)]


def _of_prompts(
    datamodule: PromptDataModule, config: Mapping[str, Any], model: Mapping[str, Any], answer_tokens: float | None
) -> TrainingPhase:
    """The phase of answers to the prompts of the data."""
    order = datamodule.order
    assert order is not None
    stages = range(len(order.plan.stages))
    lengths = [
        datamodule.prompt_length(datamodule.question(order.plan.sources[source], window))
        for step in (step for stage in stages for step in _steps(order, stage))
        for samples in [order.lookup(*order.plan.sample_range(step))]
        for source, window in zip(samples.source.tolist(), samples.window.tolist(), strict=True)
    ]
    answers = answers_of(model, config["data"]["init_args"], answer_tokens, sum(lengths) / len(lengths))
    return answers.phase(order.plan.num_steps, int(model["parallel"].get("context", 1)))
