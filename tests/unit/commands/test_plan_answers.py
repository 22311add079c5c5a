"""The length of answers that `nbg plan` counts with."""

from statistics import mean

import pyarrow.parquet
import pytest

from nbg_lightning.commands.plan_answers import answer_tokens
from nbg_lightning.rl.ledger import FOLDER, RolloutLedger
from nbg_lightning.rl.rollout_settings import RolloutSettings
from nbg_lightning.testing.grpo import small_tokenizer, train_small_grpo


def test_answers_that_a_run_recorded(tmp_path):
    run, options = tmp_path / "run", {"rollouts": RolloutSettings(ledger=True)}
    train_small_grpo(run, tokenizer=small_tokenizer(tmp_path), steps=2, module_options=options)
    files = sorted((run / FOLDER).glob("step-*.parquet"))
    lengths = [len(ids) for file in files for ids in pyarrow.parquet.read_table(file)["ids"].to_pylist()]
    assert len(files) == 2
    assert answer_tokens(str(run)) == answer_tokens(str(run / FOLDER)) == mean(lengths)


def test_a_number_is_itself():
    assert (answer_tokens("900"), answer_tokens("1.5e3")) == (900, 1500)


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf"])
def test_a_length_that_no_answer_has(given):
    with pytest.raises(ValueError, match=f"answer_tokens is invalid: {given}; give a number above 0"):
        answer_tokens(given)


def test_a_run_without_answers(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        answer_tokens(str(tmp_path))
    RolloutLedger.create(tmp_path / FOLDER, {}, "weights", 0)
    with pytest.raises(ValueError, match=f"answer_tokens is invalid: the ledger {tmp_path}/{FOLDER} has no answers"):
        answer_tokens(str(tmp_path))
