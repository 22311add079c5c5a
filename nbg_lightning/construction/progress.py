"""Progress of a build on stderr: what is done, and how fast."""

from __future__ import annotations

from nbg_lightning.data.progress import ProgressBar


class Progress(ProgressBar):
    """Counts what is done; use it in a ``with`` block.

    Args:
        name: of the build.
        total: how much there is to do; None where nobody knows.
        enabled: show it.
        unit: what is counted.
    """

    def __init__(self, name: str, total: int | None = None, enabled: bool = True, unit: str = "items"):
        super().__init__(name, total, enabled)
        self.unit = unit
        self.done = self.before = 0

    def advance(self, number: int, remark: str = "", fresh: bool = True) -> None:
        """So many more are done.

        Args:
            number: how many.
            remark: what else to say.
            fresh: they were done now; False for those of an earlier run, which say nothing of the speed.
        """
        self.done += number
        self.before += 0 if fresh else number
        of = "" if self.total is None else f" of {self.total:,}"
        rate = (self.done - self.before) / self.seconds
        self.show(self.done, f"{self.done:,}{of} {self.unit}, {rate:,.2f} a second" + (f", {remark}" if remark else ""))
