"""The programs that a bench starts, all of which end with it."""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

running = []


def start(*command, env=None):
    """A group of its own, since neither PHP's server nor a killed master ends its workers."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=env, start_new_session=True)
    running.append(process)
    return process


def end(process):
    """Asks first, and then kills the whole group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_all():
    while running:
        end(running.pop())


def wait_for(port):
    until = time.time() + 20
    while time.time() < until:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")
