"""Pass rates: how often a model answers each question correctly, to select questions of medium difficulty for training.

Nanbeige4-3B (arXiv 2512.06266): before each stage of reinforcement learning the preceding stage's model samples 16 answers
per question, and the stage keeps those with 10 % < avg@16 < 90 %, strictly. Questions that are always or never solved give
groups without variance, from which nothing is learned.
"""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.rl.pass_rate.histogram import Histogram as Histogram
    from nbg_lightning.rl.pass_rate.histogram import PassRateBand as PassRateBand
    from nbg_lightning.rl.pass_rate.ledger import PassRate as PassRate
    from nbg_lightning.rl.pass_rate.ledger import PassRateLedger as PassRateLedger
    from nbg_lightning.rl.pass_rate.ledger import check_file as check_file
    from nbg_lightning.rl.pass_rate.measure import PassRateFilter as PassRateFilter
    from nbg_lightning.rl.pass_rate.parts import measured as measured
    from nbg_lightning.rl.pass_rate.parts import part_file as part_file
    from nbg_lightning.rl.pass_rate.questions import identity as identity
    from nbg_lightning.rl.pass_rate.questions import unique as unique
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "histogram": ["Histogram", "PassRateBand"],
            "ledger": ["PassRate", "PassRateLedger", "check_file"],
            "measure": ["PassRateFilter"],
            "parts": ["measured", "part_file"],
            "questions": ["identity", "unique"],
        },
    )
