"""Benchmarks, their scoring, and suites. Names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.evaluation.benchmark import Benchmark as Benchmark
    from nbg_lightning.evaluation.benchmark import Item as Item
    from nbg_lightning.evaluation.log_likelihood import LogLikelihoodScorer as LogLikelihoodScorer
    from nbg_lightning.evaluation.results import BenchmarkResult as BenchmarkResult
    from nbg_lightning.evaluation.results import SuiteResult as SuiteResult
    from nbg_lightning.evaluation.results import load_result as load_result
    from nbg_lightning.evaluation.suite import Suite as Suite
    from nbg_lightning.evaluation.tasks import AIME as AIME
    from nbg_lightning.evaluation.tasks import ARC as ARC
    from nbg_lightning.evaluation.tasks import BBH as BBH
    from nbg_lightning.evaluation.tasks import BFCL as BFCL
    from nbg_lightning.evaluation.tasks import CMATH as CMATH
    from nbg_lightning.evaluation.tasks import CMMLU as CMMLU
    from nbg_lightning.evaluation.tasks import GSM8K as GSM8K
    from nbg_lightning.evaluation.tasks import HMMT as HMMT
    from nbg_lightning.evaluation.tasks import MATH500 as MATH500
    from nbg_lightning.evaluation.tasks import MBPP as MBPP
    from nbg_lightning.evaluation.tasks import MMLU as MMLU
    from nbg_lightning.evaluation.tasks import ArenaHard as ArenaHard
    from nbg_lightning.evaluation.tasks import Arithmetic as Arithmetic
    from nbg_lightning.evaluation.tasks import BFCLMultiTurn as BFCLMultiTurn
    from nbg_lightning.evaluation.tasks import EnvironmentBenchmark as EnvironmentBenchmark
    from nbg_lightning.evaluation.tasks import GPQADiamond as GPQADiamond
    from nbg_lightning.evaluation.tasks import HarnessTasks as HarnessTasks
    from nbg_lightning.evaluation.tasks import HellaSwag as HellaSwag
    from nbg_lightning.evaluation.tasks import HumanEval as HumanEval
    from nbg_lightning.evaluation.tasks import IFEval as IFEval
    from nbg_lightning.evaluation.tasks import LiveCodeBench as LiveCodeBench
    from nbg_lightning.evaluation.tasks import MMLUPro as MMLUPro
    from nbg_lightning.evaluation.tasks import MultiChallenge as MultiChallenge
    from nbg_lightning.evaluation.tasks import PairwiseJudged as PairwiseJudged
    from nbg_lightning.evaluation.tasks import Questions as Questions
    from nbg_lightning.evaluation.tasks import ReasoningGymTasks as ReasoningGymTasks
    from nbg_lightning.evaluation.tasks import RubricJudged as RubricJudged
    from nbg_lightning.evaluation.tasks import SuperGPQA as SuperGPQA
    from nbg_lightning.evaluation.tasks import TextPerplexity as TextPerplexity
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "benchmark": ["Benchmark", "Item"],
            "log_likelihood": ["LogLikelihoodScorer"],
            "results": ["BenchmarkResult", "SuiteResult", "load_result"],
            "suite": ["Suite"],
            "tasks": [
                "BBH",
                "CMATH",
                "CMMLU",
                "HMMT",
                "LiveCodeBench",
                "MultiChallenge",
                "ArenaHard",
                "SuperGPQA",
                "AIME",
                "ARC",
                "BFCL",
                "BFCLMultiTurn",
                "GSM8K",
                "MATH500",
                "MBPP",
                "MMLU",
                "Arithmetic",
                "EnvironmentBenchmark",
                "GPQADiamond",
                "HarnessTasks",
                "HellaSwag",
                "HumanEval",
                "IFEval",
                "MMLUPro",
                "PairwiseJudged",
                "Questions",
                "ReasoningGymTasks",
                "RubricJudged",
                "TextPerplexity",
            ],
        },
    )
