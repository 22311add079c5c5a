"""What other libraries say in every run, and nobody can act on, is not shown by `nbg`."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from typing_extensions import override


class _StandardError(logging.Handler):
    """Prints to what is standard error now: a progress bar puts itself in its place, to stay below the lines."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def quiet_libraries() -> None:
    """Hide what is noise in every run; errors and the library's own messages stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(format="%(message)s", handlers=[_StandardError()])
    logging.getLogger("nbg_lightning").setLevel(logging.INFO)
    # Lightning's loggers have levels and handlers of their own, so that the parent's would not reach them.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "torchao", "torchtitan", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch|jsonargparse|nbg_lightning")
