"""Benchmarks, how they are scored, and suites of them; names load on first use."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "benchmark": ["Benchmark", "Item"],
        "log_likelihood": ["LogLikelihoodScorer"],
        "results": ["BenchmarkResult", "SuiteResult", "load_result"],
        "suite": ["Suite"],
        "tasks": [
            "AIME",
            "ARC",
            "BFCL",
            "GSM8K",
            "MATH500",
            "MBPP",
            "MMLU",
            "Arithmetic",
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
