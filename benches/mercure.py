#!/usr/bin/env python3
"""A Mercure hub's subscribers: benches/mercure.py BINARY [SUBSCRIBERS] [UPDATES]

SUBSCRIBERS event streams are open, in turn: each with a topic of its own, each with one of ten
templates, all with the same topic. The table has the memory of one stream, the CPU time of an
update that is for one of them (or a tenth, or all), and that time for each event sent.

Memory is the proportional set size less what the gate had before. CPU time is what the scheduler
counted for its threads, of which one works. The one client process shares the machine.
"""
import base64
import hashlib
import hmac
import json
import pathlib
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from programs import allow_open_files, cpu, free_port, listens, memory, until

BINARY = sys.argv[1]
SUBSCRIBERS = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
UPDATES = int(sys.argv[3]) if len(sys.argv) > 3 else 200
KEY = "a key that publishers sign with, long enough"
CONFIG = f"""[log]
level = "warn"
[stream]
max = "0s"
[history]
messages = 1000
[mercure]
publisher_key = "{KEY}"
subscriber_key = "{KEY}"
anonymous = true
"""
#        name, the topic of a subscriber, the topic of an update, how many get it, repetitions
CASES = [
    ("a topic each", lambda n: f"/own/{n}", lambda n: f"/own/{n % SUBSCRIBERS}", 1, 1),
    ("10 templates", lambda n: f"/t{n % 10}/{{id}}", lambda n: f"/t{n % 10}/7", 0.1, 0.1),
    ("one topic", lambda n: "/all", lambda n: "/all", 1.0, 0.05),
]


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token():
    head = encode(b'{"alg":"HS256","typ":"JWT"}')
    signed = f"{head}.{encode(json.dumps({'mercure': {'publish': ['*']}}).encode())}"
    return f"{signed}.{encode(hmac.new(KEY.encode(), signed.encode(), hashlib.sha256).digest())}"


class Gate:
    def __init__(self, folder):
        self.port, self.internal = free_port(), free_port()
        config = pathlib.Path(folder, f"config{self.port}")
        config.write_text(CONFIG)
        command = [BINARY, "run", "--config", str(config), f"--listen=127.0.0.1:{self.port}",
                   f"--internal=127.0.0.1:{self.internal}", "--upstream=127.0.0.1:1",
                   "--set=threads=1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: listens(self.port) and listens(self.internal), bound=120)
        self.publisher = socket.create_connection(("127.0.0.1", self.internal))
        self.token = token()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        return memory(self.process.pid)

    def cpu(self):
        return cpu(self.process.pid)

    def held(self):
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.internal}/metrics").read().decode()
        return next(float(line.split()[1]) for line in page.splitlines()
                    if line.startswith("pollgate_held_polls "))

    def publish(self, topic):
        body = urllib.parse.urlencode({"topic": topic, "data": "x" * 200})
        self.publisher.sendall((
            "POST /.well-known/mercure HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {self.token}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
        answer = b""
        while b"urn:uuid:" not in answer:
            piece = self.publisher.recv(4096)
            if not piece:
                raise SystemExit(f"the gate answers {answer}")
            answer += piece

    def settle(self):
        spent = self.cpu()
        while True:
            time.sleep(0.3)
            now = self.cpu()
            if now - spent < 5_000:
                return now
            spent = now


def measure(gate, of_subscriber, of_update, share, repetitions):
    gate.settle()
    before = gate.memory()
    eyes = selectors.DefaultSelector()
    for index in range(SUBSCRIBERS):
        one = socket.socket()
        one.bind((f"127.0.0.{2 + index % 32}", 0))
        one.connect(("127.0.0.1", gate.port))
        topic = urllib.parse.quote(of_subscriber(index), safe="")
        one.sendall(f"GET /.well-known/mercure?topic={topic} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        eyes.register(one, selectors.EVENT_READ)
    until(lambda: gate.held() >= SUBSCRIBERS, bound=120)
    gate.settle()
    for key in list(eyes.get_map().values()):
        key.fileobj.recv(1 << 16)
        key.fileobj.setblocking(False)
    memory = (gate.memory() - before) / SUBSCRIBERS
    each = share if isinstance(share, int) else int(share * SUBSCRIBERS)
    updates = max(int(UPDATES * repetitions), 5)
    spent, got = gate.settle(), 0
    for number in range(updates):
        gate.publish(of_update(number))
        while got < (number + 1) * each:
            for key, _ in eyes.select(10):
                got += key.fileobj.recv(1 << 16).count(b"id: ")
    spent = gate.settle() - spent
    return memory, spent / updates, spent / (updates * each)


def main():
    allow_open_files()
    print(f"{SUBSCRIBERS:,} subscribers, updates of 200 bytes")
    print("| subscribers have | KiB per stream | µs per update | µs per event |")
    print("|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, *case in CASES:
            with Gate(folder) as gate:
                memory, update, event = measure(gate, *case)
            print(f"| {name} | {memory:.1f} | {update:,.0f} | {event:.1f} |", flush=True)


main()
