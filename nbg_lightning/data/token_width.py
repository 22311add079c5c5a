"""Token ids as two, three or four bytes on disk, whichever the vocabulary needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenWidth:
    """Little-endian unsigned integers of so many bytes.

    Args:
        size: bytes of an id: 2, 3 or 4.

    Example:
        >>> width = TokenWidth.of(166_144)
        >>> width.name, width.encode(np.array([1, 166_143])), width.decode(width.rows(b"\\1\\0\\0")).tolist()
        ('<u3', b'\\x01\\x00\\x00\\xff\\x88\\x02', [1])
    """

    size: int

    @classmethod
    def of(cls, vocab_size: int) -> TokenWidth:
        """The smallest that holds every id."""
        return cls(next(size for size in (2, 3, 4) if vocab_size <= 1 << 8 * size))

    @classmethod
    def named(cls, name: str) -> TokenWidth:
        """The width of a manifest.

        Raises:
            ValueError: no such width.
        """
        width = next((width for width in map(cls, (2, 3, 4)) if width.name == name), None)
        if width is None:
            raise ValueError(f"dtype is invalid: {name!r}; choose <u2, <u3 or <u4")
        return width

    @property
    def name(self) -> str:
        """In manifests: ``<u2``, ``<u3`` or ``<u4``."""
        return f"<u{self.size}"

    @property
    def dtype(self) -> np.dtype:
        """Of the ids on disk; three bytes have no integer type, and are rows of bytes."""
        return np.dtype(("u1", (3,))) if self.size == 3 else np.dtype(self.name)

    def encode(self, ids: np.ndarray) -> bytes:
        """Ids as they are on disk."""
        if self.size != 3:
            return ids.astype(self.dtype).tobytes()
        return ids.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()

    def rows(self, data: bytes) -> np.ndarray:
        """Bytes as an array of `dtype`."""
        return np.frombuffer(data, np.uint8).reshape(-1, 3) if self.size == 3 else np.frombuffer(data, self.dtype)

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Ids of an array of `dtype`."""
        if self.size != 3:
            return values
        ids = np.zeros(len(values), "<u4")
        if len(values):  # each id with the byte behind it, which is masked; the last has none
            ids[:-1] = np.ndarray(len(values) - 1, "<u4", np.ascontiguousarray(values), strides=(3,))
            ids[:-1] &= 0xFFFFFF
            ids[-1] = int.from_bytes(values[-1].tobytes(), "little")
        return ids
