"""Alignment of two tokenizers on the same text: which tokens of one cover the same bytes as which of the other.

Shape suffixes: C chunks, M ids that both tokenizers have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nbg_lightning import log
from nbg_lightning.data.token_bytes import control_tokens, token_bytes
from nbg_lightning.data.tokenizer import Tokenizer, checkpoint_tokenizer
from nbg_lightning.teachers.targets import Sequence as TokenSequence


class SharedIds(NamedTuple):
    """Ids that stand for the same bytes, or the same control token, in both tokenizers: ours and theirs ``[M]``, each once."""

    ours: np.ndarray
    theirs: np.ndarray


class AlignedSequence(NamedTuple):
    """A student sequence in the teacher's tokens.

    Attributes:
        ids: the teacher's ids.
        ours: start and end of each chunk in the student's ids ``[C, 2]``.
        theirs: start and end of each chunk in the teacher's ids ``[C, 2]``.
    """

    ids: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray

    @property
    def in_chunks(self) -> np.ndarray:
        """Mask of the teacher's ids that are in a chunk."""
        found = np.zeros(len(self.ids), dtype=bool)
        for begin, end in self.theirs:
            found[begin:end] = True
        return found

    @property
    def asked(self) -> TokenSequence:
        """The sequence to query the teacher with: its ids, of which those in chunks are the trained ones."""
        return TokenSequence(self.ids, self.in_chunks)


class TokenizerPair:
    """A student's tokenizer and its teacher's.

    A *chunk* is a minimal piece of text at whose end tokens of both tokenizers end: where both split alike, every token is
    a chunk. Chunks lie between control tokens (begin, end of a turn, tags), which are chunks themselves if both tokenizers
    have one of that name; the end of a text (``eos``) is one whatever its name. A control token that the teacher lacks is
    written out as text, and is not in a chunk.

    Args:
        ours: the student's tokenizer.
        theirs: the teacher's tokenizer.

    Attributes:
        shared: ids of both.
        unaligned: number of trained tokens so far that are in no chunk, and ``aligned`` of those that are.

    Raises:
        ValueError: the bytes of one vocabulary are unknown, or they share no token.

    Example:
        See tests/unit/teachers/test_alignment.py.
    """

    def __init__(self, ours: Tokenizer, theirs: Tokenizer):
        self.theirs = theirs
        self._our_bytes, self._their_bytes = token_bytes(ours), token_bytes(theirs)
        self._our_names = {index: name for name, index in control_tokens(ours).items()}
        self._control = _same_controls(ours, theirs)
        self.shared = self._shared()
        self.aligned = self.unaligned = 0
        if len(self.shared.ours) < len(self._our_bytes) / 1000:
            raise ValueError(
                f"the teacher's tokenizer {theirs.name_or_path} is invalid: of {len(self._our_bytes):,} tokens of the student it "
                f"has {len(self.shared.ours):,} by their bytes, and nothing can be compared; take another teacher"
            )

    def _shared(self) -> SharedIds:
        ids: dict[bytes, int] = {}
        for index, piece in sorted(self._their_bytes.items(), reverse=True):  # of equal ones the first
            ids[piece] = index
        pairs = dict(self._control)
        taken = set(pairs.values())
        for index, piece in sorted(self._our_bytes.items()):
            found = ids.get(piece)
            if piece and found is not None and found not in taken:
                pairs[index] = found
                taken.add(found)
        ours = sorted(pairs)
        return SharedIds(np.array(ours, np.int64), np.array([pairs[index] for index in ours], np.int64))

    def align(self, ids: np.ndarray, trained: np.ndarray) -> AlignedSequence:
        """The chunks of a sequence all of whose tokens are trained.

        Args:
            ids: ids of a whole sequence.
            trained: for each id, whether it has a loss as a label.

        The teacher reads text that is not UTF-8 (a student may sample any bytes), or that its tokenizer normalizes, as far
        as possible; such text has no chunks.
        """
        begin = list(self.theirs.begin)
        found = begin if self._control.get(int(ids[0])) not in begin else []
        found = list(found)
        ours: list[tuple[int, int]] = []
        theirs: list[tuple[int, int]] = []
        place = 0
        while place < len(ids):
            end = place
            while end < len(ids) and int(ids[end]) in self._our_bytes:
                end += 1
            if end == place:  # a control token, or an id that stands for nothing
                index = int(ids[place])
                if index in self._control:
                    ours.append((place, place + 1))
                    theirs.append((len(found), len(found) + 1))
                    found.append(self._control[index])
                else:
                    found += self.theirs.encode(self._our_names.get(index, ""))
                place += 1
                continue
            own = [self._our_bytes[int(index)] for index in ids[place:end]]
            their_ids = self.theirs.encode(b"".join(own).decode("utf-8", "replace"))
            for mine, yours in _chunks(own, [self._their_bytes.get(index, b"") for index in their_ids]):
                ours.append((place + mine[0], place + mine[1]))
                theirs.append((len(found) + yours[0], len(found) + yours[1]))
            found += their_ids
            place = end
        return self._kept(np.array(found, np.int64), ours, theirs, trained)

    def _kept(
        self,
        ids: np.ndarray,
        ours: Sequence[tuple[int, int]],
        theirs: Sequence[tuple[int, int]],
        trained: np.ndarray,
    ) -> AlignedSequence:
        """The chunks whose tokens are all trained, and have a predicting position in both models."""
        spans = [np.array(each, np.int64).reshape(-1, 2) for each in (ours, theirs)]
        count = np.concatenate(([0], np.cumsum(trained)))
        whole = count[spans[0][:, 1]] - count[spans[0][:, 0]] == spans[0][:, 1] - spans[0][:, 0]
        kept = whole & (spans[0][:, 0] > 0) & (spans[1][:, 0] > 0)
        aligned = AlignedSequence(ids, spans[0][kept], spans[1][kept])
        inside = int((aligned.ours[:, 1] - aligned.ours[:, 0]).sum())
        self.aligned += inside
        self.unaligned += int(trained[1:].sum()) - inside
        return aligned


def tokenizer_of(weights: str) -> Tokenizer | None:
    """The tokenizer stored with weights; None if there is none."""
    try:
        return Tokenizer(checkpoint_tokenizer(weights))
    except (ValueError, OSError):
        return None


def same_ids(theirs: Tokenizer, ours: Tokenizer) -> bool:
    """Whether every token of ours has the same id in theirs."""
    if theirs.fingerprint == ours.fingerprint:
        return True
    there = theirs.vocabulary()
    return all(there.get(token) == index for token, index in ours.vocabulary().items())


def pair_with(teacher: str, ours: Tokenizer | None, theirs: Tokenizer | None) -> TokenizerPair | None:
    """Both tokenizers, if they have to be aligned; None if their ids mean the same, or one is unknown.

    Args:
        teacher: the teacher's name, for messages.
        ours: the student's tokenizer.
        theirs: the teacher's tokenizer.

    Raises:
        ValueError: they differ, and cannot be aligned.
    """
    if theirs is None or ours is None or same_ids(theirs, ours):
        return None
    try:
        pair = TokenizerPair(ours, theirs)
    except ValueError as error:
        raise ValueError(
            f"the teacher {teacher} cannot be compared with the student ({error}); take another teacher"
        ) from None
    log.info(
        f"the teacher {teacher} has another tokenizer: {len(pair.shared.ours):,} of the student's {ours.vocab_size:,} ids "
        "are its too, and the two are compared over chunks of text that end at the same byte"
    )
    return pair


def _chunks(ours: Sequence[bytes], theirs: Sequence[bytes]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Tokens of the same bytes between ends that both have; none where the bytes differ.

    Example:
        >>> _chunks([b"a", b"bc", b"d"], [b"ab", b"c", b"d"])
        [((0, 2), (0, 2)), ((2, 3), (2, 3))]
    """
    text, read = b"".join(ours), b"".join(theirs)
    if read == b" " + text:  # SentencePiece begins a text with a blank
        theirs, read = [theirs[0][1:], *theirs[1:]], text
    if read != text or not text:
        return []
    ends = [np.cumsum([len(piece) for piece in each]) for each in (ours, theirs)]
    common = np.intersect1d(ends[0], ends[1])
    # Behind the last token that ends there: an empty one belongs to what is before it.
    mine, yours = (np.searchsorted(each, common, side="right").tolist() for each in ends)
    return list(zip(zip([0, *mine[:-1]], mine, strict=True), zip([0, *yours[:-1]], yours, strict=True), strict=True))


def _same_controls(ours: Tokenizer, theirs: Tokenizer) -> dict[int, int]:
    """Control tokens of ours that the teacher has by name, and the end of a text."""
    there = control_tokens(theirs)
    pairs = {index: there[name] for name, index in control_tokens(ours).items() if name in there}
    free = ours.eos_id not in pairs and theirs.eos_id not in pairs.values()
    if free and ours.eos_id is not None and theirs.eos_id is not None:
        pairs[ours.eos_id] = theirs.eos_id
    return pairs
