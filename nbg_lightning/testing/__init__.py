"""Utilities for tests of training code: launching several ranks, synthetic data, and a small recorded run.

They ship with the library, so that your own modules and callbacks can be tested in the same way::

    def check(rank_count):                       # at the top level of a test file
        return train_small("run", devices=rank_count).losses

    def test_two_ranks_agree(tmp_path):
        first, second = run_ranks(check, 2, 2, folder=tmp_path)
        assert first == second
"""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.testing.guessing import GuessingGame as GuessingGame
    from nbg_lightning.testing.local_servers import free_port as free_port
    from nbg_lightning.testing.local_servers import s3_server as s3_server
    from nbg_lightning.testing.miniature import FunctionChat as FunctionChat
    from nbg_lightning.testing.miniature import FunctionQuestions as FunctionQuestions
    from nbg_lightning.testing.miniature import JudgementChat as JudgementChat
    from nbg_lightning.testing.miniature import StyledChat as StyledChat
    from nbg_lightning.testing.miniature import StyledPairs as StyledPairs
    from nbg_lightning.testing.pairs import random_pairs as random_pairs
    from nbg_lightning.testing.prices import PriceChat as PriceChat
    from nbg_lightning.testing.prices import PriceFacts as PriceFacts
    from nbg_lightning.testing.prices import PriceQuestions as PriceQuestions
    from nbg_lightning.testing.ranks import Ranks as Ranks
    from nbg_lightning.testing.ranks import launchable_environment as launchable_environment
    from nbg_lightning.testing.ranks import run_ranks as run_ranks
    from nbg_lightning.testing.runs import SMALL_LENGTH as SMALL_LENGTH
    from nbg_lightning.testing.runs import SMALL_SHAPE as SMALL_SHAPE
    from nbg_lightning.testing.runs import SMALL_STEP_TOKENS as SMALL_STEP_TOKENS
    from nbg_lightning.testing.runs import SmallRun as SmallRun
    from nbg_lightning.testing.runs import StepRecorder as StepRecorder
    from nbg_lightning.testing.runs import SyntheticDataModule as SyntheticDataModule
    from nbg_lightning.testing.runs import forget_digests as forget_digests
    from nbg_lightning.testing.runs import full_tensors as full_tensors
    from nbg_lightning.testing.runs import small_stages as small_stages
    from nbg_lightning.testing.runs import train_small as train_small
    from nbg_lightning.testing.sums import SumChat as SumChat
    from nbg_lightning.testing.sums import SumFacts as SumFacts
    from nbg_lightning.testing.sums import SumQuestions as SumQuestions
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "guessing": ["GuessingGame"],
            "local_servers": ["free_port", "s3_server"],
            "miniature": ["FunctionChat", "FunctionQuestions", "JudgementChat", "StyledChat", "StyledPairs"],
            "pairs": ["random_pairs"],
            "prices": ["PriceChat", "PriceFacts", "PriceQuestions"],
            "ranks": ["Ranks", "launchable_environment", "run_ranks"],
            "runs": [
                "SMALL_LENGTH",
                "SMALL_SHAPE",
                "SMALL_STEP_TOKENS",
                "SmallRun",
                "StepRecorder",
                "SyntheticDataModule",
                "forget_digests",
                "full_tensors",
                "small_stages",
                "train_small",
            ],
            "sums": ["SumChat", "SumFacts", "SumQuestions"],
        },
    )
