"""How the scoring of one answer ended: the one vocabulary of rewards, benchmarks, filters and builders."""

from __future__ import annotations

from typing import Literal

Status = Literal["ok", "timeout", "error"]
"""``ok``: the score stands, also if the answer could not be parsed (that is the answer's fault: score 0, `detail` says
so). ``timeout`` and ``error``: a failure of the verifier; there is no score, the answer is masked and counted."""
