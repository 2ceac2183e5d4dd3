"""How a run and its jobs end before their time: by a signal, or with the Snakemake that started them.

Snakemake 9 waits for its jobs after SIGTERM, leaves them running after SIGHUP, and after SIGINT to it
alone waits too; a killed one leaves jobs behind that go on writing.
"""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RUN = "CDFSS_RUN"  # environment variable: machine and process of the Snakemake that starts jobs
GRACE = 5.0  # seconds in which a job that was told to end may tidy up
LOOK = 0.5  # seconds between two looks at other processes


@contextmanager
def interruptible():
    """Turn the first of `SIGNALS` into a KeyboardInterrupt with its number; then there is `GRACE`."""

    def interrupt(number):
        threading.Thread(target=_kill_this, daemon=True).start()
        raise KeyboardInterrupt(number)

    before = _at_first_signal(interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _at_first_signal(react) -> dict:
    """Call `react` with the number of the first of `SIGNALS`; later ones do nothing.

    Returns:
        The handlers before, of signals that are not ignored (as nohup does) and stay so.
    """

    def handle(number, frame):
        for each in before:  # not SIG_IGN, of which Python says that a signal under way was ignored
            signal.signal(each, lambda *_: None)
        react(number)

    before = {}
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    return before


def _kill_this() -> None:
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def this_run() -> str:
    """The value of `RUN` for jobs of this process."""
    return f"{socket.gethostname()} {os.getpid()}"


def end_with_run() -> None:
    """Make this job end when the Snakemake that `RUN` names is gone; nothing where none is named."""
    machine, _, process = os.environ.get(RUN, "").rpartition(" ")
    if machine == socket.gethostname():
        end_with(int(process))


def end_with(process: int) -> None:
    """Send SIGTERM to this process once another one of this machine is gone."""

    def watch():
        with suppress(psutil.NoSuchProcess):
            other = psutil.Process(process)
            while other.is_running() and other.status() != psutil.STATUS_ZOMBIE:
                time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def leave(status: int) -> None:
    """End this process at once, where it is a job of another one, a Snakemake, as if all of it had run.

    Python takes a second of the processor to take down torch's modules one by one; a machine that is
    busy makes several of it, after each job and before a run has ended by a signal. All that comes before
    is done in Python's order: threads end first, those of pools among them, then come exit functions.
    """
    if os.environ.get(RUN, this_run()) != this_run():
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def begin_worker(job: int) -> None:
    """What a worker process of a job does first: it ends with the job, without a word.

    Args:
        job: its process.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    end_with(job)


def end_children() -> None:
    """Send SIGTERM to all processes that this one, and its children, have started."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()


def end_jobs_on_signals(here: bool) -> None:
    """Make this Snakemake end its jobs, and then itself, on any of `SIGNALS`.

    Args:
        here: whether jobs are processes of this one. Elsewhere Snakemake cancels them, by a process of
            its own (scancel) that has to live.
    """

    def end_jobs():
        while True:  # one may just be starting
            end_children()
            time.sleep(LOOK)

    def stop(number):
        name = signal.Signals(number).name
        print(f"{name}: ending all jobs. To go on, run the same command again", file=sys.stderr)
        if here:
            threading.Thread(target=end_jobs, daemon=True).start()
        raise KeyboardInterrupt

    _at_first_signal(stop)
