"""What a model's final answer is, and whether it is right.

What a model writes is hostile input: it is found in linear time (`places`, `letters`), read by one bounded grammar (`reader`,
limits in `limits`), and compared exactly (`compare`, whose table says what counts as the same). Rewards, benchmarks and builders
use the same functions.

**A wrong, unreadable, hostile or too long answer is wrong**: score 0, with the reason. `error` is only for what is not the
model's doing: a gold answer that cannot be read, a worker that dies, an engine that is gone.
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
