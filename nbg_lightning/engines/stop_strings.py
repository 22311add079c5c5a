"""Stop strings are looked for in text, while what is generated is ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class StopStrings:
    """Whether the newest token of a completion completes one of some texts.

    Only the end of the completion is decoded: from twice as many tokens back until the text is long enough to hold a
    stop string that ends in the newest token. So the cost of a token does not grow with the completion.

    Args:
        texts: the stop strings.
        decode: ids to text.
    """

    def __init__(self, texts: Sequence[str], decode: Callable[[Sequence[int]], str]):
        self.texts, self.decode = tuple(texts), decode
        self.longest = max((len(text) for text in self.texts), default=0)

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether one of the texts is in what the last tokens say."""
        if not self.texts:
            return False
        needed = self.longest + len(self.decode(ids[-1:]))
        # A token that is part of a character, or of no text at all, adds nothing: then more of them are needed.
        window = self.longest + 1
        while True:
            text = self.decode(ids[-window:])
            if len(text) >= needed or window >= len(ids):
                return any(stop in text for stop in self.texts)
            window *= 2
