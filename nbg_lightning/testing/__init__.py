"""What tests of training code need: several ranks in one launch, made-up data, and a small recorded run.

It ships with the library, so that a module or callback of your own can be tested as those here are::

    def check(rank_count):                       # at the top level of a test file
        return train_small("run", devices=rank_count).losses

    def test_two_ranks_agree(tmp_path):
        first, second = run_ranks(check, 2, 2, folder=tmp_path)
        assert first == second
"""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "miniature": ["FunctionChat", "FunctionQuestions", "JudgementChat", "StyledChat"],
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
