#!/usr/bin/env python3
"""The transports beside one another: benches/streams.py BINARY [CLIENTS] [PUBLISHES]

For each transport (poll, SSE, WebSocket, Pusher) a gate of one thread holds CLIENTS on one channel.
Printed are the memory of one of them while nothing comes, and the CPU time of a delivery, for a poll
the next poll included; both also as shares of the poll's.

Memory is the proportional set size of the process, less what it had after one client with one
delivery. CPU time is what the scheduler counted for its threads, the median of PUBLISHES. The one
client process shares the machine.
"""
import json
import pathlib
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from programs import (NATIVE_AND_PUSHER, UPGRADE, allow_open_files, cpu, free_port, listens, memory,
                      until)

BINARY = sys.argv[1]
CLIENTS = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
PUBLISHES = int(sys.argv[3]) if len(sys.argv) > 3 else 5
CONFIG = f"""[log]
level = "warn"
[hold]
timeout = "300s"
{NATIVE_AND_PUSHER}"""
NUMBER = re.compile(rb"#(\d{10})#")


class Gate:
    def __init__(self, folder):
        self.public, self.internal = free_port(), free_port()
        config = pathlib.Path(folder, "config.toml")
        config.write_text(CONFIG)
        self.process = subprocess.Popen(
            [BINARY, "run", "--config", str(config), f"--listen=127.0.0.1:{self.public}",
             f"--internal=127.0.0.1:{self.internal}", "--upstream=127.0.0.1:1", "--set=threads=1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: listens(self.public) and listens(self.internal))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        """KiB."""
        return memory(self.process.pid)

    def cpu(self):
        """Microseconds."""
        return cpu(self.process.pid)

    def held(self):
        status = urllib.request.urlopen(f"http://127.0.0.1:{self.internal}/status", timeout=60)
        return json.loads(status.read())["held"]

    def publish(self, channel, number):
        text = f"#{number:010d}#".ljust(200, "x")
        body = json.dumps({"event": "e", "data": text}).encode()
        url = f"http://127.0.0.1:{self.internal}/channels/{channel}"
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).read()


class Client:
    """One client. `take` returns the numbers of the messages that have come whole."""

    HEADS = {
        "sse": "GET /comet/wide HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n",
        "ws": f"GET /comet/wide HTTP/1.1\r\nHost: bench\r\n{UPGRADE}\r\n",
        "pusher": f"GET /app/key?protocol=7 HTTP/1.1\r\nHost: bench\r\n{UPGRADE}\r\n",
    }
    # A ping of the gate's, and the answer.
    PINGS = {
        "ws": (b"\x89\x00", b""),
        "pusher": (b"pusher:ping", b'{"event":"pusher:pong","data":{}}'),
    }

    def __init__(self, gate, transport, source):
        self.transport, self.held = transport, b""
        self.socket = socket.socket()
        self.socket.bind((f"127.0.0.{2 + source % 32}", 0))
        self.socket.connect(("127.0.0.1", gate.public))
        if transport == "poll":
            self.poll("")
        else:
            self.socket.sendall(self.HEADS[transport].encode())
        if transport == "pusher":
            while b"connection_established" not in self.held:
                self.held += self.socket.recv(4096)
            frame = b'{"event":"pusher:subscribe","data":{"channel":"wide"}}'
            self.send(0x81, frame)
        self.socket.setblocking(False)

    def send(self, first, payload):
        """A whole frame."""
        self.socket.sendall(bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    def poll(self, cursor):
        self.socket.sendall(f"GET /comet/wide{cursor} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())

    def take(self):
        try:
            piece = self.socket.recv(1 << 16)
        except BlockingIOError:
            return []
        if not piece:
            last = self.held[-300:]
            raise SystemExit(f"the gate has closed a connection of {self.transport} after {last}")
        self.held += piece
        ping, pong = self.PINGS.get(self.transport, (None, b""))
        # On a busy machine a run outlasts the silence that the gate allows.
        if ping and ping in piece:
            self.send(0x81 if pong else 0x8A, pong)
        numbers = [int(number) for number in NUMBER.findall(self.held)]
        if numbers:
            if self.transport == "poll":
                cursor = re.search(rb'"cursor":"([^"]+)"', self.held)[1].decode()
                self.poll(f"?cursor={cursor}")
            self.held = b""
        return numbers


def measure(transport, folder):
    """KiB of a held client, and microseconds of a delivery."""
    channel = "app%2Fwide" if transport == "pusher" else "wide"
    with Gate(folder) as gate:
        eyes = selectors.DefaultSelector()

        def connect(source):
            client = Client(gate, transport, source)
            eyes.register(client.socket, selectors.EVENT_READ, client)

        def deliver(number, clients):
            """All get the message, once, and polls wait again."""
            gate.publish(channel, number)
            got = 0
            while got < clients:
                for key, _ in eyes.select(10):
                    for taken in key.data.take():
                        if taken != number:
                            raise SystemExit(f"{transport}: {taken} in place of {number}")
                        got += 1
            until(lambda: gate.held() >= clients)

        connect(0)
        until(lambda: gate.held() == 1)
        deliver(1, 1)
        before = gate.memory()
        for source in range(1, CLIENTS):
            connect(source)
        until(lambda: gate.held() >= CLIENTS)
        quiet = gate.cpu()
        while time.sleep(0.3) or gate.cpu() - quiet > 20_000:
            quiet = gate.cpu()
        memory = (gate.memory() - before) / (CLIENTS - 1)
        costs = []
        for number in range(2, 2 + PUBLISHES):
            spent = gate.cpu()
            deliver(number, CLIENTS)
            costs.append((gate.cpu() - spent) / CLIENTS)
        return memory, sorted(costs)[len(costs) // 2]


def main():
    allow_open_files()
    print(f"{CLIENTS:,} clients, {PUBLISHES} publishes of 200 bytes")
    print("| transport | KiB per client | of a poll's | µs per delivery | of a poll's |")
    print("|---|--:|--:|--:|--:|")
    poll = None
    with tempfile.TemporaryDirectory() as folder:
        for transport in ("poll", "sse", "ws", "pusher"):
            memory, cost = measure(transport, folder)
            poll = poll or (memory, cost)
            print(f"| {transport} | {memory:.2f} | {memory / poll[0]:.2f} | {cost:.1f} | "
                  f"{cost / poll[1]:.2f} |", flush=True)


main()
