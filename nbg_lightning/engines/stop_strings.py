"""Detection of stop strings, which are text, in generated ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class StopStrings:
    """Tells whether the newest token of a completion completes a stop string.

    Only the end of the completion is decoded, doubling the number of tokens until the text is long enough for a stop string that
    ends in the newest token. The cost per token therefore does not grow with the completion.

    Args:
        texts: the stop strings.
        decode: decodes ids to text.
    """

    def __init__(self, texts: Sequence[str], decode: Callable[[Sequence[int]], str]):
        self.texts, self.decode = tuple(texts), decode
        self.longest = max((len(text) for text in self.texts), default=0)

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether a stop string occurs in the text of the last tokens."""
        if not self.texts:
            return False
        needed = self.longest + len(self.decode(ids[-1:]))
        # A token that is part of a character, or of no text, adds nothing: then more tokens are needed.
        window = self.longest + 1
        while True:
            text = self.decode(ids[-window:])
            if len(text) >= needed or window >= len(ids):
                return any(stop in text for stop in self.texts)
            window *= 2
