"""fastsocket/processes.py, the one reader of /proc."""

import os
import subprocess
import threading

from fastsocket.processes import children, family


def test_a_child_of_any_thread_is_a_child():
    """/proc has them by thread. A supervisor may start its servers in a thread of its own."""
    started: list[int] = []
    has_started, may_end = threading.Event(), threading.Event()

    def supervise():
        with subprocess.Popen(["sleep", "60"]) as child:
            started.append(child.pid)
            has_started.set()
            may_end.wait()
            child.kill()

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        has_started.wait()
        assert started[0] in children(os.getpid())
        assert started[0] in family(os.getpid())
    finally:
        may_end.set()
        thread.join()
