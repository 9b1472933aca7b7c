"""The launcher that started this process: when it dies, the run stops as if it had been told to."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

_DEEPSPEED = "deepspeed.launcher.launch"


def stop_with_launcher(interval: float = 2.0) -> threading.Event:
    """Send this process a SIGTERM when its launcher has died; on Linux.

    `deepspeed` starts a process on each machine which starts the run's processes. A SIGTERM to `deepspeed`,
    which is what a cluster's scheduler and `kill` send, ends that first one alone, and the run would go on
    with nobody to stop it.

    Returns:
        Set it to end the watch.
    """
    done = threading.Event()
    before = _ancestors()

    def watch() -> None:
        while not done.wait(interval):
            if _ancestors() != before:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="launcher", daemon=True).start()
    return done


def _ancestors() -> tuple[int, int | None]:
    """The process that started this one; and, where that is DeepSpeed's, the one that started that."""
    parent = os.getppid()
    try:
        words = Path(f"/proc/{parent}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if _DEEPSPEED not in words:
            return parent, None  # its own parent may be a shell, which may end while it works
        # The name in brackets, the second field, may hold blanks.
        return parent, int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return parent, None
