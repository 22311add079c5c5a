"""`nbg plan --answer-tokens`: the mean length of answers, as given or as a run recorded it."""

from __future__ import annotations

from statistics import mean


def answer_tokens(given: str) -> float:
    """Mean tokens of an answer.

    Args:
        given: a number, or the folder of a run that keeps its answers (``rollouts.ledger``).

    Raises:
        ValueError: a number that is not above 0, or a ledger that is damaged or has no answers yet.
        FileNotFoundError: the folder has no ledger.
    """
    try:
        number = float(given)
    except ValueError:
        return recorded_tokens(given)
    if not 0 < number < float("inf"):
        raise ValueError(f"answer_tokens is invalid: {given}; give a number above 0, or the folder of a run")
    return number


def recorded_tokens(folder: str) -> float:
    """Mean tokens of all answers in a ledger; see `answer_tokens`."""
    from nbg_lightning.rl.ledger import RolloutLedger

    ledger = RolloutLedger.at(folder)
    lengths = [len(row["ids"]) for step in sorted(ledger.steps()) for row in ledger.rows(step)]
    if not lengths:
        raise ValueError(f"answer_tokens is invalid: the ledger {ledger.folder} has no answers yet; give a number")
    return mean(lengths)
