"""The curriculum of a config, as written in a file or as completed by the parser."""

from __future__ import annotations

from typing import Any

import pytest

from nbg_lightning.schedule.curriculum import Curriculum, Stage
from nbg_lightning.schedule.of_config import read_curriculum

STAGE = {"name": "only", "tokens": "1K", "lr": 1e-3, "mixture": {"web": 1}}
TABLE = {"stages": [STAGE], "tokens_per_step": 8, "sequence_length": 4}
EXPECTED = Curriculum([Stage("only", "1K", 1e-3, {"web": 1})], tokens_per_step=8, sequence_length=4)


def config(*tables: Any, class_path: str = "nbg_lightning.FGWSD") -> dict[str, Any]:
    others = [{"class_path": "nbg_lightning.StepCheckpoint"}]
    return {"trainer": {"callbacks": [*others, *({"class_path": class_path, "init_args": each} for each in tables)]}}


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        {**TABLE, "stages": [{**STAGE, "rope_theta": None, "sequence_length": None}]},
        {**TABLE, "stages": [{"class_path": "nbg_lightning.Stage", "init_args": {**STAGE, "rope_theta": None}}]},
    ],
    ids=["file", "defaults", "class_path"],
)
@pytest.mark.parametrize("class_path", ["FGWSD", "nbg_lightning.callbacks.fg_wsd.FGWSD"])
def test_one_curriculum_in_each_form(table: Any, class_path: str) -> None:
    assert read_curriculum(config(table, class_path=class_path)) == EXPECTED


@pytest.mark.parametrize(
    "other", [{}, {"trainer": None}, {"trainer": {"callbacks": None}}, config(TABLE, class_path="MyFGWSD")]
)
def test_a_config_without_the_callback_has_none(other: Any) -> None:
    assert read_curriculum(other) is None


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([TABLE, TABLE], "2 of FGWSD"),
        ([None], "stages"),
        ([{**TABLE, "stages": "all"}], "FGWSD"),
        ([{**TABLE, "pace": 1}], "pace"),
        ([{**TABLE, "stages": [{**STAGE, "speed": 1}]}], "speed"),
        ([{**TABLE, "tokens_per_step": 9}], "9"),
    ],
)
def test_a_table_that_cannot_be_read(tables: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_curriculum(config(*tables))
