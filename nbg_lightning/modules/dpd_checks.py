"""Checks that a teacher, a reference and a cache match a student, for `DPDModule`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbg_lightning import log
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.teachers.alignment import same_ids, tokenizer_of

if TYPE_CHECKING:
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.teachers.cache import TeacherCache


def is_comparable(
    teacher: str,
    student: LanguageModelConfig,
    tokenizer: Tokenizer | None,
    only_loss: bool,
    why_only: str = "w_dpo is 0",
) -> bool:
    """Whether a teacher's distributions can be compared with the student's: their ids must mean the same tokens.

    Assumptions, and a teacher that is not used, are logged.

    Args:
        teacher: its weights.
        student: the student's model config.
        tokenizer: the student's tokenizer, if known.
        only_loss: there is no other loss to train on without this teacher.
        why_only: why there is none, for the message.

    Raises:
        ValueError: they cannot be compared, and nothing is left to train.
    """
    from nbg_lightning.core.weights import read_shape

    there, here = read_shape(teacher).vocab_size, student.vocab_size
    theirs = tokenizer_of(teacher)
    agree = there == here if theirs is None or tokenizer is None else same_ids(theirs, tokenizer)
    if theirs is None and agree:
        log.warn(f"{teacher} has no tokenizer: it is assumed that its ids are the student's")
    if not agree:
        why = "another tokenizer" if theirs is not None else f"{there} ids (the student has {here}) and no tokenizer"
        if only_loss:
            raise ValueError(
                f"the teacher {teacher} has {why}: its distributions cannot be compared with the student's, "
                f"and {why_only}; take a teacher with the student's tokenizer"
            )
        log.warn(
            f"THE TEACHER IS NOT USED: {teacher} has {why}, so its distributions cannot be compared with "
            "the student's. L_pos and L_neg are left out of this run; only L_DPO is trained"
        )
    elif there != here:
        log.warn(
            f"the teacher has {there} ids, the student {here}, and one tokenizer: they are compared over the first "
            f"{min(there, here)}"
        )
    return agree


def check_cache(
    cache: TeacherCache,
    student: LanguageModelConfig,
    temperature: float | None,
    teacher: str | None,
    reference: str | None,
) -> None:
    """Raise if a cache does not belong to this run.

    Args:
        cache: cached outputs of teacher and reference.
        student: the student's model config.
        temperature: temperature of the divergence from the teacher; None without one.
        teacher: weights that must be those of its teacher; None to trust it.
        reference: weights that must be those of its reference; None to trust it.

    Raises:
        ValueError: it does not belong to this run, and why.
    """
    if temperature is not None:
        cache.check(temperature=temperature)
        if cache.identity.teacher_tokenizer is None and cache.identity.vocab_size > student.vocab_size:
            raise ValueError(
                f"the cache {cache.folder} is of a teacher with {cache.identity.vocab_size} ids, and the model has "
                f"{student.vocab_size}; build it with a teacher of the model's vocabulary"
            )
        if teacher is not None:
            cache.check(teacher=_fingerprint(teacher))
    if reference is not None:
        cache.check(reference=_fingerprint(reference))


def _fingerprint(weights: str) -> str:
    from nbg_lightning.core.fingerprint import source_fingerprint
    from nbg_lightning.core.weights import open_weights

    return source_fingerprint(open_weights(weights))
