"""A run whose loss spikes rewinds to a checkpoint, skips the data after it, and records this in its hash chain."""

import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning.callbacks import Sentinel, StepCheckpoint
from nbg_lightning.callbacks.rewind import Rewind, check_rewind
from nbg_lightning.core.checkpoint import CheckpointFiles
from nbg_lightning.data.order import expected_chain
from nbg_lightning.testing import full_tensors, train_small

BROKEN_BEFORE = 5  # a step; its weights are spoilt, and those of the next steps with them
PATIENCE = 2


class Spoil(pl.Callback):
    """Multiplies the weights once, as an update that went wrong does; and records what the weights are after each step."""

    def __init__(self, factor=30.0):
        self.factor, self.weights, self.data = factor, {}, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.data = trainer.datamodule
        if trainer.global_step == BROKEN_BEFORE and not self.data.undone:
            with torch.no_grad():
                for parameter in pl_module.model.parameters():
                    parameter.mul_(self.factor)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights[trainer.global_step] = full_tensors(pl_module.model.named_parameters())


def sentinel(**options):
    return Sentinel(patience=PATIENCE, max_loss_rise=0.5, **{"rewind": Rewind(), **options})


def run(folder, spoil, resume=None, **options):
    """Each step is saved; the sentinel stands before what records, and after it come the checkpoints."""
    callbacks = [sentinel(**options), spoil]
    return train_small(
        folder, checkpoint_every=2, callbacks=callbacks, resume=resume, module_options={"ema_decay": 0.9}
    )


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    folder, spoil = tmp_path_factory.mktemp("rewind"), Spoil()
    return folder, spoil, run(folder, spoil)


def test_the_weights_are_those_of_the_checkpoint_and_training_goes_on(spoilt):
    _, spoil, found = spoilt
    bad = BROKEN_BEFORE + PATIENCE  # the step after which it goes back: to step 4, the newest from before the bad ones
    assert spoil.data.undone == [(4, bad)]
    assert all(torch.equal(value, spoil.weights[4][name]) for name, value in spoil.weights[bad].items())
    assert any(not torch.equal(value, spoil.weights[4][name]) for name, value in spoil.weights[bad + 1].items())
    assert found.losses[bad] < found.losses[bad - 1] - 0.5
    assert len(found.losses) == 12


def test_the_chain_says_what_is_left_out(spoilt):
    _, spoil, _ = spoilt
    data = spoil.data
    assert data.chain == expected_chain(data.order, data.curriculum, 12, data.undone)
    assert data.chain != expected_chain(data.order, data.curriculum, 12)
    assert data.chain != expected_chain(data.order, data.curriculum, 12, [(2, 7)])


def test_a_resumed_run_is_the_straight_one(spoilt):
    """The checkpoint after it went back has the restored weights, and the record."""
    folder, spoil, found = spoilt
    middle = folder / "checkpoints/step-00000007"
    assert any(isinstance(v, dict) and v.get("undone") == [[4, 7]] for v in CheckpointFiles(middle).meta().values())
    again = Spoil()
    resumed = run(folder / "again", again, resume=middle)
    assert all(torch.equal(value, resumed.weights[name]) for name, value in found.weights.items())
    assert all(torch.equal(value, resumed.averages[name]) for name, value in found.averages.items())
    assert again.data.chain == spoil.data.chain


def test_it_stops_where_it_may_not_go_back_again(tmp_path):
    once = Spoil()
    with pytest.raises(RuntimeError, match=r"stopped after step 7: the loss is .* \(spike, 2 steps in a row\)"):
        run(tmp_path, once, rewind=None, stop=("spike",))
    assert once.data.undone == []


def test_settings_that_cannot_work():
    with pytest.raises(ValueError, match=r"rewind\.most is invalid: 0"):
        Rewind(most=0)
    with pytest.raises(ValueError, match=r"rewind\.rules is invalid: loss"):
        Sentinel(rewind=Rewind(rules=("loss",)))
    with pytest.raises(ValueError, match="max_loss_rise is invalid: -1"):
        Sentinel(max_loss_rise=-1)
    trainer = pl.Trainer(logger=False, callbacks=[StepCheckpoint()], accelerator="cpu")
    with pytest.raises(ValueError, match="there is nothing to go back to; set StepCheckpoint's every_n_steps"):
        check_rewind(trainer)
