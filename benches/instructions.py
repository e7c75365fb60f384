#!/usr/bin/env python3
"""Instructions in user space for one request: benches/instructions.py BINARY...

Runs each binary under `valgrind --tool=callgrind` with few requests and with many, and divides the
difference: a count that hardly depends on the machine or its load. Prints, for each binary, the
instructions for a delivery with its re-poll, for an event of an event stream, of a WebSocket and of a
Pusher socket, and for a forwarded request.
Needs valgrind.
"""
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from programs import NATIVE_AND_PUSHER, UPGRADE

CLIENTS = 250
# Seconds in which all clients poll again, under callgrind.
PAUSE = 0.6


def read_response(stream):
    """Head and body of one response with a Content-Length."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            raise EOFError("the gate closed the connection")
        head += line
    length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
    return head, stream.read(length)


def site():
    """A server that answers every request with two bytes; returns its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                if line == b"\r\n":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Gate:
    """A gate, under callgrind if its instructions are counted."""

    def __init__(self, binary, upstream, config="", counted=True):
        self.folder = tempfile.TemporaryDirectory()
        self.counts = pathlib.Path(self.folder.name, "counts")
        file = pathlib.Path(self.folder.name, "pollgate.toml")
        file.write_text(config)
        # Sites have upstreams of their own.
        servers = [] if "[[site]]" in config else ["--upstream", f"127.0.0.1:{upstream}"]
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self.counts}", "-q"]
        # Seconds in which all clients poll again.
        self.pause = PAUSE if counted else PAUSE / 20
        self.process = subprocess.Popen(
            [*(tool if counted else []), binary, "run", "--config", file, "--listen", "127.0.0.1:0",
             "--internal", "127.0.0.1:0", *servers, "--set", "threads=1",
             "--set", "log.level=warn", "--set", "limits.per_address=0"],
            stdout=subprocess.PIPE, text=True)
        ports = {}
        while len(ports) < 2:
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit("the gate does not start")
            if found := re.match(r"(gate|internal)\s+http://127.0.0.1:(\d+)", line):
                ports[found[1]] = int(found[2])
        self.public, self.internal = ports["gate"], ports["internal"]

    def connect(self, port):
        connection = socket.create_connection(("127.0.0.1", port))
        return connection, connection.makefile("rb")

    def cpu(self):
        """Seconds of CPU time, in user space and in the kernel, of all its threads."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def stop(self):
        """Ends the gate; returns its instructions."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        return int(re.search(r"^(?:totals|summary): (\d+)", self.counts.read_text(), re.M)[1])


def deliver(gate, rounds, query=lambda client: "", hook_headers="", channels="/channels"):
    clients = [gate.connect(gate.public) for _ in range(CLIENTS)]
    hook, answers = gate.connect(gate.internal)
    polls = [b"GET /comet/news?cursor=%s" + query(client).encode() +
             b" HTTP/1.1\r\nHost: localhost\r\n\r\n" for client in range(CLIENTS)]
    about = f"{channels}/news HTTP/1.1\r\nHost: localhost\r\n{hook_headers}".encode()
    for (connection, _), poll in zip(clients, polls):
        connection.sendall(poll % b"")
    for _ in range(rounds):
        body = b""
        while f'"held":{CLIENTS}'.encode() not in body:
            # Each question counts, so it is asked once, as a rule.
            time.sleep(gate.pause)
            hook.sendall(b"GET " + about + b"\r\n")
            body = read_response(answers)[1]
        hook.sendall(b"POST " + about + b"Content-Length: 5\r\n\r\nhello")
        read_response(answers)
        for (connection, stream), poll in zip(clients, polls):
            cursor = re.search(rb'"cursor":"([^"]+)"', read_response(stream)[1])[1]
            connection.sendall(poll % cursor)


def read_chunk(stream):
    size = int(stream.readline(), 16)
    return stream.read(size + 2)


def stream(gate, rounds):
    clients = [gate.connect(gate.public) for _ in range(CLIENTS)]
    hook, answers = gate.connect(gate.internal)
    for connection, stream in clients:
        connection.sendall(b"GET /comet/news HTTP/1.1\r\nHost: localhost\r\n"
                           b"Accept: text/event-stream\r\n\r\n")
        while stream.readline() != b"\r\n":
            pass
        read_chunk(stream)
    for _ in range(rounds):
        hook.sendall(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
        read_response(answers)
        for _, stream in clients:
            if b"hello" not in read_chunk(stream):
                raise SystemExit("an event is missing")


def read_frame(stream):
    """A frame of a server's, which is not masked."""
    length = stream.read(2)[1]
    if length == 126:
        length = int.from_bytes(stream.read(2), "big")
    return stream.read(length)


def socket_of(path, first=None):
    """Events for WebSockets at `path`; each of them sends `first`, and reads the answers."""

    def sockets(gate, rounds):
        clients = [gate.connect(gate.public) for _ in range(CLIENTS)]
        hook, answers = gate.connect(gate.internal)
        for connection, stream in clients:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
            while stream.readline() != b"\r\n":
                pass
            if first:
                read_frame(stream)
                connection.sendall(bytes([0x81, 0x80 | len(first), 0, 0, 0, 0]) + first)
                read_frame(stream)
        name = "app%2Fnews" if first else "news"
        body = '{"event":"e","data":"hello"}'
        event = (f"POST /channels/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                 f"Content-Type: application/json\r\n\r\n{body}").encode()
        for _ in range(rounds):
            hook.sendall(event)
            read_response(answers)
            for _, stream in clients:
                if b"hello" not in read_frame(stream):
                    raise SystemExit("an event is missing")

    return sockets


SUBSCRIBE = b'{"event":"pusher:subscribe","data":{"channel":"news"}}'


def forward(gate, rounds):
    connection, stream = gate.connect(gate.public)
    for _ in range(rounds * 10):
        connection.sendall(b"GET /page.php?a=1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n")
        read_response(stream)


def per_request(binary, work, requests, config=""):
    """The instructions for one of the requests that a round of `work` makes."""
    upstream = site()
    few, many = 10, 60
    totals = []
    for rounds in (few, many):
        gate = Gate(binary, upstream, config)
        work(gate, rounds)
        totals.append(gate.stop())
    return (totals[1] - totals[0]) / ((many - few) * requests)


if __name__ == "__main__":
    for binary in sys.argv[1:]:
        web = socket_of("/comet/news")
        pusher = socket_of("/app/key?protocol=7", SUBSCRIBE)
        print(f"{binary}: {per_request(binary, deliver, CLIENTS):,.0f} for a delivery and re-poll, "
              f"{per_request(binary, stream, CLIENTS):,.0f} for an event of a stream, "
              f"{per_request(binary, web, CLIENTS):,.0f} of a WebSocket, "
              f"{per_request(binary, pusher, CLIENTS, NATIVE_AND_PUSHER):,.0f} of a Pusher socket, "
              f"{per_request(binary, forward, 10):,.0f} for a forwarded request")
