#!/usr/bin/env python3
"""How many connections a second the gate takes: benches/connects.py BINARY [SECONDS]

Two processes on this machine do nothing but connect to it, in two ways: they reset the connection
at once, or they ask on it for a poll that is answered at once and then close. Meanwhile a visitor
asks every 10 ms on a kept connection. Told are connections a second, the gate's CPU time and memory,
and how long the visitor waits. All of it over loopback, where client and gate share the cores.
"""
import multiprocessing
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import time

BINARY, SECONDS = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5
GATE, INTERNAL, CLIENTS, MOST = 18511, 18512, 2, 150_000
POLL = b"GET /comet/news?timeout=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Closing resets, so that no ports stay behind for a minute.
RESET = struct.pack("ii", 1, 0)


def connect(host="127.0.0.1"):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.bind((host, 0))
    client.connect(("127.0.0.1", GATE))
    return client


def crowd(index, asks, until, results):
    """Connects as many times as it can, from addresses of its own."""
    count = failed = 0
    while time.time() < until and count < MOST // CLIENTS:
        try:
            with connect(f"127.0.{index + 1}.{count % 200 + 1}") as client:
                if asks:
                    client.sendall(POLL)
                    if not client.recv(4096).startswith(b"HTTP/1.1 200"):
                        failed += 1
        except OSError:
            failed += 1
        count += 1
    results.put((count, failed))


def visit(until):
    """The waits of a visitor who was there before, in milliseconds, sorted."""
    waits = []
    with connect() as client:
        while time.time() < until:
            began = time.perf_counter()
            client.sendall(POLL)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            waits.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    return sorted(waits)


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """What is the process's own, in KiB."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "Swap:")))


def measure(pid, name, asks):
    results = multiprocessing.Queue()
    began, cpu_before, memory_before = time.time(), cpu(pid), memory(pid)
    until = began + SECONDS
    clients = [
        multiprocessing.Process(target=crowd, args=(index, asks, until, results))
        for index in range(CLIENTS if name != "nobody else" else 0)
    ]
    for client in clients:
        client.start()
    waits = visit(until)
    counts = [results.get(timeout=30) for _ in clients]
    for client in clients:
        client.join()
    took, used = time.time() - began, cpu(pid) - cpu_before
    time.sleep(2)
    count, failed = (sum(of) for of in zip(*counts)) if counts else (0, 0)
    each = f"{used / count * 1e6:.0f} us" if count else "-"
    half, late = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
    print(
        f"{name:<16} {count / took:>8.0f}/s  failed {failed}  CPU each {each:>7}  "
        f"memory {memory_before} -> {memory(pid)} KiB  visitor p50 {half:.1f} p99 {late:.1f} "
        f"max {waits[-1]:.1f} ms",
        flush=True,
    )


def main():
    folder = tempfile.mkdtemp()
    command = [BINARY, "run", "--listen", f"127.0.0.1:{GATE}", "--internal", f"127.0.0.1:{INTERNAL}"]
    command += ["--upstream", "127.0.0.1:9", "--set", "log.level=error"]
    gate = subprocess.Popen(command, cwd=folder)
    try:
        for _ in range(200):
            try:
                connect().close()
                break
            except OSError:
                time.sleep(0.05)
        for name, asks in [("nobody else", False), ("connect", False), ("connect and ask", True)] * 2:
            measure(gate.pid, name, asks)
    finally:
        gate.terminate()
        gate.wait(60)


main()
