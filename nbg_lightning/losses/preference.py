"""Preference losses of a pair of answers, from the log-ratios of policy and reference.

Shape suffixes: P pairs. A log-ratio is ``log pi(y | x) - log pi_ref(y | x)`` of a whole answer, or its mean over the
answer's tokens. Nothing is reduced: the caller sums over pairs and divides by the number of pairs of the whole step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

PreferenceKind = Literal["sigmoid", "ipo", "hinge"]


@dataclass(frozen=True)
class Preference:
    """The kind of preference loss; h is the log-ratio of the chosen answer minus that of the rejected one.

    * ``sigmoid``: ``-(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h)`` with the label smoothing s: DPO
      (Rafailov et al., arXiv 2305.18290, equation 7), with s > 0 its conservative form (Mitchell 2023);
    * ``ipo``: ``(h - 1 / (2 beta))^2`` (Azar et al., arXiv 2310.12036, equation 17);
    * ``hinge``: ``max(0, 1 - beta h)`` (SLiC-HF, arXiv 2305.10425, on log-ratios as in arXiv 2309.06657).

    Attributes:
        kind: one of these.
        beta: strength of the regularization towards the reference.
        label_smoothing: assumed probability that a pair is mislabelled, below 0.5; ``sigmoid`` only.
        length_normalised: log-ratios are means instead of sums over an answer's trained tokens, so that long answers do not
            dominate. (TRL always does so for ``ipo``.)

    Raises:
        ValueError: an unknown kind, a number out of range, or a setting without effect.
    """

    kind: PreferenceKind = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    length_normalised: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(PreferenceKind):
            raise ValueError(
                f"preference loss is invalid: {self.kind}; there are {', '.join(get_args(PreferenceKind))}"
            )
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta is invalid: {self.beta}; give a number above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is invalid: {self.label_smoothing}; give at least 0 and less than 0.5")
        if self.label_smoothing and self.kind != "sigmoid":
            raise ValueError(
                f"label_smoothing is invalid: {self.label_smoothing} has no effect with the {self.kind} loss; set it to 0"
            )


def preference_loss(chosen_P: Tensor, rejected_P: Tensor, preference: Preference) -> Tensor:
    """Loss of each pair.

    Args:
        chosen_P: log-ratios of the chosen answers (sums or means, as ``preference`` has it).
        rejected_P: those of the rejected ones.
        preference: which loss.

    Returns:
        ``[P]``.

    Example:
        >>> import torch
        >>> even = torch.zeros(1)
        >>> round(preference_loss(even, even, Preference()).item(), 4)  # log 2
        0.6931
    """
    margin = chosen_P - rejected_P
    if preference.kind == "ipo":
        return (margin - 1 / (2 * preference.beta)) ** 2
    margin = preference.beta * margin
    if preference.kind == "hinge":
        return (1 - margin).relu()
    smoothing = preference.label_smoothing
    loss = -(1 - smoothing) * F.logsigmoid(margin)
    return loss - smoothing * F.logsigmoid(-margin) if smoothing else loss
