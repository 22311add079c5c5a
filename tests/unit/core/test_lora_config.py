"""Adapter settings: validation and comparison."""

import math

import pytest

from nbg_lightning.core.lora_config import TARGETS, LoRAConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "lora.rank is invalid: 0; give a whole number of at least 1"),
        ({"rank": -4}, "lora.rank is invalid: -4"),
        ({"rank": 2.5}, "lora.rank is invalid: 2.5"),
        ({"rank": True}, "lora.rank is invalid: True"),
        ({"alpha": 0}, "lora.alpha is invalid: 0; give a number above 0"),
        ({"alpha": math.nan}, "lora.alpha is invalid: nan"),
        ({"alpha": math.inf}, "lora.alpha is invalid: inf"),
        ({"dropout": 1.0}, "lora.dropout is invalid: 1.0; give a share from 0 to below 1"),
        ({"dropout": -0.1}, "lora.dropout is invalid: -0.1"),
        ({"targets": []}, "lora.targets is invalid: it is empty; choose from q_proj"),
        ({"targets": ["q_prj"]}, r"lora.targets is invalid: 'q_prj' \(did you mean q_proj\?\); choose from"),
        ({"targets": ["lm_head"]}, "lora.targets is invalid: 'lm_head'; choose from"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        LoRAConfig(**settings)
    assert "\n" not in str(error.value)


def test_targets_have_one_order_and_each_counts_once():
    assert LoRAConfig(targets=["down_proj", "q_proj", "q_proj"]).targets == ["q_proj", "down_proj"]
    assert LoRAConfig().targets == list(TARGETS)


def test_differences_name_what_decides_the_weights():
    one, other = LoRAConfig(rank=8, targets=["q_proj"], dropout=0.1), LoRAConfig(rank=4, targets=["q_proj", "v_proj"])
    assert one.differences(other) == "rank 4 there, 8 here, targets q_proj+v_proj there, q_proj here"
    assert one.differences(LoRAConfig(rank=8, targets=["q_proj"])) == ""
