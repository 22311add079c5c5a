"""Conversion of vLLM's outputs to completions, and time limits of requests."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

from nbg_lightning.engines.protocol import OUT_OF_SECONDS, Completion, FinishReason


def completion_of(output: Any, late: bool, index: int, sample: int, version: int) -> Completion:
    """The completion of a request.

    Args:
        output: vLLM's last output for it; None if there is none.
        late: whether its own time limit ended it.
        index: position of its prompt in the call.
        sample: its sample index.
        version: version of the weights.
    """
    error = OUT_OF_SECONDS if late else None
    if output is None:
        return Completion((), (), "deadline", index, sample, version, error)
    answer = output.outputs[0]
    ids = tuple(answer.token_ids)
    log_probs = tuple(at[token].logprob for at, token in zip(answer.logprobs, ids, strict=True))
    if not all(map(math.isfinite, log_probs)):
        good = next(place for place, value in enumerate(log_probs) if not math.isfinite(value))
        failure = f"the logits after {good} new tokens are not finite: check the weights"
        return Completion(ids[:good], log_probs[:good], "error", index, sample, version, failure)
    if not output.finished:
        return Completion(ids, log_probs, "deadline", index, sample, version, error)
    reasons: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
    reason = reasons.get(answer.finish_reason, "error")
    failed = f"vLLM ended the completion with {answer.finish_reason!r}" if reason == "error" else None
    return Completion(ids, log_probs, reason, index, sample, version, failed)


class RequestSeconds:
    """Finds requests that exceed their time limit, counted from the first token.

    Args:
        seconds: limit of each request; None for no limit.
    """

    def __init__(self, seconds: float | None):
        self.seconds = seconds
        self.late: set[str] = set()
        self._since: dict[str, float] = {}

    def over(self, outputs: Iterable[Any]) -> list[str]:
        """Requests whose time is up, each returned once.

        Args:
            outputs: outputs of the engine's last step.
        """
        if self.seconds is None:
            return []
        now = time.monotonic()
        for output in outputs:
            if output.finished:
                self._since.pop(output.request_id, None)
            elif output.request_id not in self.late:
                self._since.setdefault(output.request_id, now)
        over = [name for name, since in self._since.items() if now - since > self.seconds]
        for name in over:
            del self._since[name]
        self.late.update(over)
        return over
