"""Signals that end a verb raise, so that it tidies up as after Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Stopped(KeyboardInterrupt):
    """Another signal than Ctrl-C that ends the process; as with Ctrl-C, it is tidied up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Stopped`, so that unfinished files are removed.

    Only the main thread can; in another nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(128 + number)  # a worker process has nothing to tidy up
        for one in signals:
            signal.signal(one, signal.SIG_IGN)  # once is enough, and tidying up must end
        # It may be half imported.
        workers = getattr(sys.modules.get("multiprocessing"), "active_children", list)
        for worker in workers():
            # Else the pool waits for what it was given. SIGTERM is not enough: Python forgets those
            # that come while a process is being forked, and on a busy machine that takes a while.
            worker.kill()
        raise Stopped(number)

    # What is ignored (SIGHUP after nohup) or already handled stays so.
    signals = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_DFL
    ]
    for number in signals:
        signal.signal(number, stop)
    try:
        with _raised_again_if_swallowed():
            yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _raised_again_if_swallowed() -> Iterator[None]:
    """Raise a moment later what a signal raised in a destructor or a weak reference's callback.

    There Python prints what is raised and goes on.
    """
    swallowed: list[KeyboardInterrupt] = []

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            usual_hook(unraisable)
            return
        swallowed.append(unraisable.exc_value)
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # what is raised in here is swallowed too

    def raise_again(_number: int, _frame: FrameType | None) -> None:
        raise swallowed[-1]

    usual_hook = sys.unraisablehook
    usual_alarm = signal.signal(signal.SIGALRM, raise_again)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual_alarm)
        sys.unraisablehook = usual_hook
