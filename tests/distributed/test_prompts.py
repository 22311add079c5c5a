"""Questions on two ranks equal those of one rank, step by step, also when resuming on another number of ranks."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist

from nbg_lightning.data import QuestionList, train_bpe
from nbg_lightning.datamodules.prompts import PromptDataModule
from nbg_lightning.testing import run_ranks

STEPS, SIZE = 5, 6


class Noting(pl.LightningModule):
    """Trains nothing; notes what each rank is asked."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.steps, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.optimizers().step()
        self.steps.append([question.key for question in batch.questions])
        total = batch.sample_hash.sum()
        if dist.is_initialized():
            dist.all_reduce(total)
        self.trainer.datamodule.advance(int(total))
        assert isinstance(batch.sample_hash, torch.Tensor)

    def validation_step(self, batch, batch_idx):
        self.validated.append([question.key for question in batch.questions])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def ask(folder, ranks, resume=None, stop=None):
    folder = Path(folder)
    rows = {name: [{"question": f"{name} {n} ?"} for n in range(count)] for name, count in (("a", 11), ("b", 7))}
    data = PromptDataModule(
        {"a": QuestionList(rows["a"], weight=2), "b": QuestionList(rows["b"], weight=1)},
        str(folder / "tokenizer"),
        prompts_per_step=SIZE,
        steps=STEPS,
        validation_sources={"exam": QuestionList([{"question": f"exam {n} ?"} for n in range(5)])},
        validation_prompts=4,
    )
    module = Noting()
    trainer = pl.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False, max_steps=stop or -1,
        max_epochs=1, default_root_dir=str(folder / f"ranks-{ranks}"), enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        limit_val_batches=None if stop is None else 0,
    )  # fmt: skip
    if resume is not None:
        data.setup("fit")
        data.load_state_dict(resume)
    trainer.fit(module, datamodule=data)
    if stop is None:
        trainer.validate(module, datamodule=data, verbose=False)
    return {"steps": module.steps, "validated": module.validated, "state": data.state_dict()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    train_bpe(["what is the answer? it is 42, and nothing else than that."] * 3, 290, folder / "tokenizer")
    (one,) = run_ranks(ask, 1, str(folder), 1, folder=folder)
    return folder, one, run_ranks(ask, 2, str(folder), 2, folder=folder)


def test_two_ranks_share_the_steps_of_one(found):
    _, one, two = found
    assert len(one["steps"]) == STEPS
    joined = [first + second for first, second in zip(two[0]["steps"], two[1]["steps"], strict=True)]
    assert joined == one["steps"]
    assert all(len(step) == SIZE // 2 for rank in two for step in rank["steps"])


def test_the_state_is_the_same_on_all_ranks_and_at_any_number(found):
    _, one, two = found
    assert one["state"]["step"] == STEPS
    assert one["state"]["chain"] == two[0]["state"]["chain"] == two[1]["state"]["chain"]
    assert one["state"]["chain"]


def test_every_validation_question_is_asked_once_in_as_many_batches(found):
    _, one, two = found
    exam = sorted(key for batch in one["validated"][-2:] for key in batch)
    assert len(exam) == 5
    assert len(two[0]["validated"]) == len(two[1]["validated"])
    assert sorted(key for rank in two for batch in rank["validated"][-2:] for key in batch) == exam


def test_a_run_goes_on_with_another_number_of_ranks(found):
    folder, one, _ = found
    begun = run_ranks(ask, 2, str(folder), 2, None, 2, folder=folder)
    (rest,) = run_ranks(ask, 1, str(folder), 1, begun[0]["state"], folder=folder)
    assert rest["steps"] == one["steps"][2:]
    assert rest["state"]["chain"] == one["state"]["chain"]


def test_ranks_that_do_not_divide_a_step_are_refused(tmp_path):
    tokenizer = train_bpe(
        ["what is the answer? it is 42, and nothing else than that."] * 3, 290, tmp_path / "tokenizer"
    )
    data = PromptDataModule({"a": QuestionList([{"question": "?"}] * 9)}, str(tokenizer), prompts_per_step=3)
    data.setup("fit")

    class Two:
        global_rank, world_size = 0, 2
        lightning_module = None

    data.trainer = Two()
    with pytest.raises(ValueError, match="2 ranks do not divide prompts_per_step=3"):
        data.train_dataloader()
