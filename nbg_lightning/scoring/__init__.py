"""Extraction of a model's final answer, and the decision whether it is correct.

A model's output is hostile input: answers are located in linear time (`places`, `letters`), parsed by one bounded grammar and
compared exactly (`mathematics`). Rewards, benchmarks and builders use the same functions.

**A wrong, unreadable, hostile or too long answer is wrong**: score 0, with the reason. `error` is reserved for failures not
caused by the model: an unreadable gold answer, a worker that dies, an unavailable engine.
"""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.scoring.pool import VerifierPool as VerifierPool
    from nbg_lightning.scoring.result import NOT_FOUND as NOT_FOUND
    from nbg_lightning.scoring.result import Verdict as Verdict
    from nbg_lightning.scoring.result import failure as failure
    from nbg_lightning.scoring.result import unreadable as unreadable
    from nbg_lightning.scoring.sandbox.sandbox import Sandbox as Sandbox
    from nbg_lightning.scoring.sandbox.sandbox import SandboxResult as SandboxResult
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "pool": ["VerifierPool"],
            "sandbox.sandbox": ["Sandbox", "SandboxResult"],
            "result": ["NOT_FOUND", "Verdict", "failure", "unreadable"],
        },
    )
