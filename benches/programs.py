"""The programs that a bench starts, all of which end with it, and what they take."""
import contextlib
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

running = []

# The headers with which a client asks for a WebSocket.
UPGRADE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: c2l4dGVlbiBieXRlcy4uLg==\r\n")

# Polls and streams in the native dialect, and an app of the Pusher protocol.
NATIVE_AND_PUSHER = """[[poll]]
path = "/comet/*"
dialect = "native"
[[pusher]]
id = "app"
key = "key"
secret = "secret"
"""


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


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def allow_open_files(most=60_000):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, most), hard))


def until(look, bound=60):
    deadline = time.time() + bound
    while not look():
        if time.time() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(0.02)


def memory(*pids):
    """The proportional share of these processes, in KiB."""
    total = 0
    for pid in pids:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def cpu(*pids):
    """The time that the threads of these processes have run for, in microseconds."""
    total = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1000
