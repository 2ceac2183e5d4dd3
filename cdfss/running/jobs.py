"""What every job of the workflow does around its one call: log, threads, errors for people."""

import itertools
import os
import re
import signal
import sys
import traceback
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from cdfss.errors import CdfssError
from cdfss.running import devices, stopping

# Set before the libraries are imported. Fixed, since the last digits of sums depend on how many
# threads share them: MKL must not choose fewer by itself.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD)$", re.I)


class _Tee:
    """Writes to the terminal and to the log; values of the environment that are secrets as ***."""

    def __init__(self, *streams):
        self.streams = streams
        self.secrets = [v for key, v in os.environ.items() if SECRET.search(key) and len(v) >= 8]

    def write(self, text):
        for secret in self.secrets:
            text = text.replace(secret, "***")
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self):
        for stream in self.streams:
            stream.flush()

    def isatty(self):
        return False


class _Log:
    """A log file that takes what there is room for: a full disk must not hide the error that it causes."""

    def __init__(self, path: Path, mode: str):
        self.file = path.open(mode, buffering=0)

    def write(self, text):
        with suppress(OSError):
            self.file.write(text.encode("utf-8", "replace"))

    def flush(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@contextmanager
def _attempt(log: Path):
    """A second copy of a log, `<log>.attempt<number>.log`, which stays if this attempt does not end well.

    Snakemake deletes the log itself before the next attempt.
    """
    for number in itertools.count(1):
        path = log.with_name(f"{log.stem}.attempt{number}.log")
        with suppress(FileExistsError):
            file = _Log(path, "xb")
            break
    with file:
        yield file, number
    path.unlink()


@contextmanager
def job(log: str | Path, threads: int = 1):
    """Run a job: output goes to terminal and log, a user's mistake ends it without a traceback.

    A signal ends it within `stopping.GRACE` seconds, and so does the end of its Snakemake. Nothing of a
    job of Snakemake's runs after this: the process ends here.

    Args:
        log: the file; attempts that did not end well are kept beside it (`_attempt`).
        threads: that torch, and the libraries below it, may use.
    """
    try:
        with _job(Path(log), threads):
            yield
    except SystemExit as error:
        stopping.leave(error.code)
        raise
    stopping.leave(0)


@contextmanager
def _logged(path: Path):
    """Output goes to terminal, log and attempt's copy."""
    with (
        _Log(path, "wb") as file,
        _attempt(path) as (copy, number),
        redirect_stdout(_Tee(sys.stdout, file, copy)),
        redirect_stderr(_Tee(sys.stderr, file, copy)),
    ):
        if number > 1:
            print(f"earlier attempts did not end well: {path.stem}.attempt*.log beside this log")
        yield


@contextmanager
def _job(path: Path, threads: int):
    """What `job` does but for the end of the process; SystemExit with the status of what failed."""
    os.environ |= {variable: str(threads) for variable in THREADS} | {"MKL_DYNAMIC": "FALSE"}
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    stopping.end_with_run()
    with ExitStack() as until_said:  # a signal may come before there is a log, and is said then too
        try:
            until_said.enter_context(stopping.interruptible())
            until_said.enter_context(_logged(path))
            yield
        except CdfssError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt as error:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            raise SystemExit(128 + (error.args or (signal.SIGINT,))[0]) from None
        except Exception as error:
            if devices.ran_out_of_memory(error):
                first = str(error).split("\n")[0] or type(error).__name__
                print(f"error: out of memory ({first}); {devices.SMALLER}", file=sys.stderr)
            else:
                traceback.print_exc()
            raise SystemExit(1) from None
