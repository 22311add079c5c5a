"""Token ids as two, three or four bytes on disk, depending on the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenWidth:
    """Little-endian unsigned integers of a given number of bytes.

    Args:
        size: bytes per id: 2, 3 or 4.

    Example:
        >>> width = TokenWidth.of(166_144)
        >>> width.name, width.encode(np.array([1, 166_143])), width.decode(width.rows(b"\\1\\0\\0")).tolist()
        ('<u3', b'\\x01\\x00\\x00\\xff\\x88\\x02', [1])
    """

    size: int

    @classmethod
    def of(cls, vocab_size: int) -> TokenWidth:
        """The smallest width that fits every id."""
        return cls(next(size for size in (2, 3, 4) if vocab_size <= 1 << 8 * size))

    @classmethod
    def named(cls, name: str) -> TokenWidth:
        """The width named in a manifest.

        Raises:
            ValueError: there is no such width.
        """
        width = next((width for width in map(cls, (2, 3, 4)) if width.name == name), None)
        if width is None:
            raise ValueError(f"dtype is invalid: {name!r}; choose <u2, <u3 or <u4")
        return width

    @property
    def name(self) -> str:
        """Name in manifests: ``<u2``, ``<u3`` or ``<u4``."""
        return f"<u{self.size}"

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the ids on disk; three bytes have no integer type, and are rows of bytes."""
        return np.dtype(("u1", (3,))) if self.size == 3 else np.dtype(self.name)

    def encode(self, ids: np.ndarray) -> bytes:
        """Ids as stored on disk."""
        if self.size != 3:
            return ids.astype(self.dtype).tobytes()
        return ids.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()

    def rows(self, data: bytes) -> np.ndarray:
        """View bytes as an array of `dtype`."""
        return np.frombuffer(data, np.uint8).reshape(-1, 3) if self.size == 3 else np.frombuffer(data, self.dtype)

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Ids from an array of `dtype`."""
        if self.size != 3:
            return values
        ids = np.zeros(len(values), "<u4")
        if len(values):  # each id is read with the following byte, which is masked; the last id has none
            ids[:-1] = np.ndarray(len(values) - 1, "<u4", np.ascontiguousarray(values), strides=(3,))
            ids[:-1] &= 0xFFFFFF
            ids[-1] = int.from_bytes(values[-1].tobytes(), "little")
        return ids
