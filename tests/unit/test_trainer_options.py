"""Trainer options that are refused, and those that are not."""

import pytest

from nbg_lightning.trainer_options import ALWAYS, STEPS, TRAINING, refuse

WRONG = [
    ({"precision": "bf16-mixed"}, ALWAYS, "compute_dtype to bfloat16"),
    ({"strategy": "ddp_spawn"}, ALWAYS, "FSDP2Strategy"),
    ({"accelerator": "tpu"}, ALWAYS, "cpu or cuda"),
    ({"devices": 0}, ALWAYS, "from 1, or auto"),
    ({"devices": "all of them"}, ALWAYS, "a list of GPUs, or auto"),
    ({"devices": ""}, ALWAYS, "from 1"),
    ({"num_nodes": 0}, ALWAYS, "from 1"),
    ({"num_nodes": 2}, TRAINING, "torchrun"),
    ({"max_steps": -3}, ALWAYS, "-1 for no limit"),
    ({"max_epochs": 3}, STEPS, "raise their tokens"),
    ({"min_epochs": 2}, STEPS, "raise their tokens"),
    ({"accumulate_grad_batches": 4}, TRAINING, "micro_batch_tokens"),
    ({"gradient_clip_val": 0.5}, TRAINING, "max_grad_norm"),
    ({"gradient_clip_algorithm": "value"}, TRAINING, "max_grad_norm"),
    ({"overfit_batches": 1}, TRAINING, "source of a few samples"),
]


@pytest.mark.parametrize(("options", "refusals", "fix"), WRONG, ids=lambda value: str(value)[:30])
def test_refused(options, refusals, fix, monkeypatch):
    for name in (
        *("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"),
        *("LSB_JOBID", "RANK", "WORLD_SIZE", "NODE_RANK"),
    ):
        monkeypatch.delenv(name, raising=False)
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"^trainer\.{name} is invalid.*: {value}; ") as error:
        refuse(options, refusals)
    assert fix in str(error.value) and "\n" not in str(error.value)


def test_accepted(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "8")
    refuse(
        {"precision": "32-true", "strategy": "auto", "accelerator": "gpu", "devices": "auto", "num_nodes": 2}, ALWAYS
    )
    refuse({"devices": -1, "max_steps": -1, "strategy": {"class_path": "nbg_lightning.FSDP2Strategy"}}, ALWAYS)
    refuse({"strategy": "nbg_lightning.FSDP2Strategy", "devices": [0, 1], "precision": None}, ALWAYS)
    refuse({"max_epochs": 1, "min_epochs": None, "reload_dataloaders_every_n_epochs": 0}, STEPS)
    refuse({"accumulate_grad_batches": 1, "gradient_clip_val": None, "overfit_batches": 0.0}, TRAINING)
