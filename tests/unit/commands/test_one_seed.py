"""A seed that would silently be overridden is refused; an equal one is not."""

import pytest

from nbg_lightning.commands.one_seed import check_seed


def config(part, own, **top):
    return {part: {"class_path": "nbg_lightning.PretrainModule", "init_args": {"seed": own}}, **top}


@pytest.mark.parametrize(
    ("configs", "options"),
    [
        ([{"seed": 3}, config("model", 7)], {}),
        ([config("data", 7)], {}),
        ([config("model", 7, seed=7)], {"seed": "8"}),
        ([{"seed": 3}], {"model.seed": "7"}),
        ([{"seed": 3}], {"data.init_args.seed": "7"}),
    ],
)
def test_another_seed_is_refused(configs, options):
    with pytest.raises(ValueError, match=r"^(model|data)\.seed is invalid: 7; write seed: 7 at the top of the config"):
        check_seed(configs, options)


@pytest.mark.parametrize(
    ("configs", "options"),
    [
        ([], {}),
        ([{"seed": 3}], {}),
        ([config("model", 7), {"seed": 7}], {}),
        ([config("data", 0)], {}),
        ([config("model", 7)], {"seed": "7"}),
        ([{"model": "PretrainModule"}, {"model": {"init_args": None}}], {}),
    ],
)
def test_the_runs_own_is_not(configs, options):
    check_seed(configs, options)
