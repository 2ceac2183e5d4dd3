"""What every job of the workflow does around its one call: log, threads, errors for people."""

import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

from cdfss.errors import CdfssError


class _Tee:
    """Writes to the terminal and to the log."""

    def __init__(self, *streams):
        self.streams = streams

    def write(self, text):
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self):
        for stream in self.streams:
            stream.flush()

    def isatty(self):
        return False


@contextmanager
def job(log: str | Path, threads: int = 1):
    """Run a job: output goes to terminal and log, a user's mistake ends it without a traceback.

    Args:
        threads: that torch, and the libraries below it, may use.
    """
    # Set before torch is imported; set again for a torch that already is.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = sys.stdout, sys.stderr
    with path.open("w", buffering=1) as file:
        sys.stdout, sys.stderr = _Tee(terminal[0], file), _Tee(terminal[1], file)
        try:
            yield
        except CdfssError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None
        finally:
            sys.stdout, sys.stderr = terminal
