"""The benchmarks, one family per file. Names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.evaluation.tasks.aime import AIME as AIME
    from nbg_lightning.evaluation.tasks.arc import ARC as ARC
    from nbg_lightning.evaluation.tasks.arena_hard import ArenaHard as ArenaHard
    from nbg_lightning.evaluation.tasks.arithmetic import Arithmetic as Arithmetic
    from nbg_lightning.evaluation.tasks.bbh import BBH as BBH
    from nbg_lightning.evaluation.tasks.bfcl import BFCL as BFCL
    from nbg_lightning.evaluation.tasks.bfcl_multi_turn import BFCLMultiTurn as BFCLMultiTurn
    from nbg_lightning.evaluation.tasks.chinese import CMATH as CMATH
    from nbg_lightning.evaluation.tasks.chinese import CMMLU as CMMLU
    from nbg_lightning.evaluation.tasks.code import MBPP as MBPP
    from nbg_lightning.evaluation.tasks.code import HumanEval as HumanEval
    from nbg_lightning.evaluation.tasks.environment import EnvironmentBenchmark as EnvironmentBenchmark
    from nbg_lightning.evaluation.tasks.gpqa import GPQADiamond as GPQADiamond
    from nbg_lightning.evaluation.tasks.gsm8k import GSM8K as GSM8K
    from nbg_lightning.evaluation.tasks.harness import HarnessTasks as HarnessTasks
    from nbg_lightning.evaluation.tasks.hellaswag import HellaSwag as HellaSwag
    from nbg_lightning.evaluation.tasks.hmmt import HMMT as HMMT
    from nbg_lightning.evaluation.tasks.ifeval import IFEval as IFEval
    from nbg_lightning.evaluation.tasks.judged import Judged as Judged
    from nbg_lightning.evaluation.tasks.judged import PairwiseJudged as PairwiseJudged
    from nbg_lightning.evaluation.tasks.judged import RubricJudged as RubricJudged
    from nbg_lightning.evaluation.tasks.live_code_bench import LiveCodeBench as LiveCodeBench
    from nbg_lightning.evaluation.tasks.math500 import MATH500 as MATH500
    from nbg_lightning.evaluation.tasks.mmlu import MMLU as MMLU
    from nbg_lightning.evaluation.tasks.mmlu import MMLUPro as MMLUPro
    from nbg_lightning.evaluation.tasks.multi_challenge import MultiChallenge as MultiChallenge
    from nbg_lightning.evaluation.tasks.questions import Questions as Questions
    from nbg_lightning.evaluation.tasks.questions import TextPerplexity as TextPerplexity
    from nbg_lightning.evaluation.tasks.reasoning_gym import ReasoningGymTasks as ReasoningGymTasks
    from nbg_lightning.evaluation.tasks.supergpqa import SuperGPQA as SuperGPQA
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "bbh": ["BBH"],
            "chinese": ["CMATH", "CMMLU"],
            "hmmt": ["HMMT"],
            "live_code_bench": ["LiveCodeBench"],
            "multi_challenge": ["MultiChallenge"],
            "arena_hard": ["ArenaHard"],
            "supergpqa": ["SuperGPQA"],
            "aime": ["AIME"],
            "arc": ["ARC"],
            "arithmetic": ["Arithmetic"],
            "bfcl": ["BFCL"],
            "bfcl_multi_turn": ["BFCLMultiTurn"],
            "code": ["HumanEval", "MBPP"],
            "environment": ["EnvironmentBenchmark"],
            "gpqa": ["GPQADiamond"],
            "gsm8k": ["GSM8K"],
            "harness": ["HarnessTasks"],
            "hellaswag": ["HellaSwag"],
            "ifeval": ["IFEval"],
            "judged": ["Judged", "PairwiseJudged", "RubricJudged"],
            "math500": ["MATH500"],
            "mmlu": ["MMLU", "MMLUPro"],
            "questions": ["Questions", "TextPerplexity"],
            "reasoning_gym": ["ReasoningGymTasks"],
        },
    )
