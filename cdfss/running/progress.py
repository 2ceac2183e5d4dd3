"""A progress line with rate and time left, for a terminal or a log.

Our own: tqdm rewrites one line by carriage returns, and to make it print whole ones takes as much code.
"""

import sys
import time


class Progress:
    """Counts steps of a job and prints a line now and then.

    Args:
        title: what is counted.
        total: number of steps.
        every: seconds between lines.
    """

    def __init__(self, title: str, total: int, every: float = 10.0):
        self.title, self.total, self.every = title, total, every
        self.done = self.skipped = 0
        self.begin = self.last = time.monotonic()

    def skip(self, steps: int) -> None:
        """Count steps that an earlier run has done; they do not enter the rate."""
        self.done = self.skipped = steps

    def step(self, note: str = "", steps: int = 1) -> None:
        """Count steps; print when the last line is old enough or all is done."""
        self.done += steps
        now = time.monotonic()
        if now - self.last < self.every and self.done < self.total:
            return
        self.last = now
        rate = (self.done - self.skipped) / max(now - self.begin, 1e-9)
        left = (self.total - self.done) / rate
        print(
            f"{self.title}: {self.done} of {self.total}, {rate:.3g}/s, {clock(left)} left"
            + (f", {note}" if note else ""),
            file=sys.stderr,
            flush=True,
        )


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
