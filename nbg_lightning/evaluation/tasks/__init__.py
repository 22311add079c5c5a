"""The benchmarks, one family a file; names load on first use."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "aime": ["AIME"],
        "arc": ["ARC"],
        "arithmetic": ["Arithmetic"],
        "bfcl": ["BFCL"],
        "code": ["HumanEval", "MBPP"],
        "gpqa": ["GPQADiamond"],
        "gsm8k": ["GSM8K"],
        "harness": ["HarnessTasks"],
        "hellaswag": ["HellaSwag"],
        "ifeval": ["IFEval"],
        "judged": ["PairwiseJudged", "RubricJudged"],
        "math500": ["MATH500"],
        "mmlu": ["MMLU", "MMLUPro"],
        "questions": ["Questions", "TextPerplexity"],
        "reasoning_gym": ["ReasoningGymTasks"],
    },
)
