"""Top-k targets of a teacher, in the format of the heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nbg_lightning.core.head_teachers import TopK
from nbg_lightning.teachers.targets import TopKTargets


def joined_lists(targets: Sequence[TopKTargets], k: int, name: str, vocab_size: int | None) -> TopK:
    """Concatenate the top-k lists of a micro-batch's sequences.

    Raises:
        ValueError: ids of ``vocab_size`` or above.
    """
    if not targets:  # one position with weight 0
        return TopK(torch.arange(k)[None], torch.zeros(1, k), torch.zeros(1))
    ids, log_probs, tail = (np.concatenate(each) for each in zip(*targets, strict=True))
    if vocab_size is not None and ids.size and int(ids.max()) >= vocab_size:
        raise ValueError(
            f"the teacher {name} lists the id {int(ids.max())}, and the student has {vocab_size:,}; give the core a "
            "vocab_size of at least the teacher's"
        )
    return TopK(*(torch.from_numpy(np.asarray(x, kind)) for x, kind in ((ids, "i8"), (log_probs, "f4"), (tail, "f4"))))
