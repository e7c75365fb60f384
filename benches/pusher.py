#!/usr/bin/env python3
"""Pusher sockets here and at sockudo: benches/pusher.py POLLGATE SOCKUDO [CLIENTS] [PUBLISHES]

Each server, with one worker thread, holds CLIENTS WebSockets that are subscribed to one channel, and
gets PUBLISHES events of 200 bytes over the signed REST interface. Printed are the memory of an idle
socket, the CPU time of a delivered event and the events that did not arrive.

Memory is the proportional set size of the process, less what it had after one client with one event.
CPU time is what the scheduler counted for its threads, the median of PUBLISHES.

    cargo install sockudo --version 5.2.0 --no-default-features --features local --locked
"""
import hashlib
import hmac
import json
import os
import pathlib
import re
import selectors
import socket
import sys
import tempfile
import time
import urllib.request

from programs import UPGRADE, allow_open_files, cpu, end_all, free_port, memory, start, wait_for

POLLGATE, SOCKUDO = sys.argv[1], sys.argv[2]
CLIENTS = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
PUBLISHES = int(sys.argv[4]) if len(sys.argv) > 4 else 9
APP, KEY, SECRET = "bench", "bench-key", "bench-secret"
CONNECT = (f"GET /app/{KEY}?protocol=7&client=js&version=8.4.0 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
           f"{UPGRADE}\r\n")
CONFIG = f"""[log]
level = "warn"
[[pusher]]
id = "{APP}"
key = "{KEY}"
secret = "{SECRET}"
"""
NUMBER = re.compile(rb"#(\d{10})#")


class Server:
    """A started server: its process, and the ports of its sockets and of its REST interface."""

    def __init__(self, name, folder):
        self.sockets, self.rest = free_port(), free_port()
        if name == "pollgate":
            config = pathlib.Path(folder, "config.toml")
            config.write_text(CONFIG)
            self.process = start(
                POLLGATE, "run", "--config", str(config), f"--listen=127.0.0.1:{self.sockets}",
                f"--internal=127.0.0.1:{self.rest}", "--upstream=127.0.0.1:1", "--set=threads=1")
        else:
            self.rest = self.sockets
            self.process = start(SOCKUDO, env={
                **os.environ, "HOST": "127.0.0.1", "PORT": str(self.sockets), "DEBUG_MODE": "false",
                "METRICS_ENABLED": "false", "RATE_LIMITER_ENABLED": "false", "LOG_LEVEL": "error",
                "TOKIO_WORKER_THREADS": "1", "SOCKUDO_DEFAULT_APP_ID": APP,
                "SOCKUDO_DEFAULT_APP_KEY": KEY, "SOCKUDO_DEFAULT_APP_SECRET": SECRET,
                "SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS": "1000000",
                "SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND": "1000000"})
        wait_for(self.sockets)
        wait_for(self.rest)

    def publish(self, number):
        text = f"#{number:010d}#".ljust(200, "x")
        body = json.dumps({"name": "e", "channel": "wide", "data": text}).encode()
        query = {
            "auth_key": KEY, "auth_timestamp": str(int(time.time())), "auth_version": "1.0",
            "body_md5": hashlib.md5(body).hexdigest()}
        path = f"/apps/{APP}/events"
        query = "&".join(f"{name}={query[name]}" for name in sorted(query))
        signed = f"POST\n{path}\n{query}".encode()
        signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        url = f"http://127.0.0.1:{self.rest}{path}?{query}&auth_signature={signature}"
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).read()

    def cpu(self):
        return cpu(self.process.pid)

    def memory(self):
        return memory(self.process.pid)


def subscribe(server, source):
    """A socket that is subscribed to the channel."""
    client = socket.socket()
    client.bind((f"127.0.0.{2 + source % 32}", 0))
    client.connect(("127.0.0.1", server.sockets))
    client.settimeout(30)
    client.sendall(CONNECT.encode())
    held = b""

    def read_to(word):
        nonlocal held
        while word not in held:
            piece = client.recv(4096)
            if not piece:
                raise SystemExit(f"closed before {word!r}: {held!r}")
            held += piece

    read_to(b"connection_established")
    frame = b'{"event":"pusher:subscribe","data":{"channel":"wide"}}'
    client.sendall(bytes([0x81, 0x80 | len(frame), 0, 0, 0, 0]) + frame)
    read_to(b"subscription_succeeded")
    client.setblocking(False)
    return client


def measure(name, folder):
    """KiB of an idle socket, microseconds of an event, and the number of lost events."""
    server = Server(name, folder)
    eyes = selectors.DefaultSelector()

    def connect(source):
        eyes.register(subscribe(server, source), selectors.EVENT_READ)

    def deliver(number, clients):
        """How many have not got the event within ten seconds of silence."""
        server.publish(number)
        missing = clients
        while missing > 0:
            ready = eyes.select(10)
            if not ready:
                return missing
            for key, _ in ready:
                piece = key.fileobj.recv(1 << 16)
                if not piece:
                    raise SystemExit(f"{name} has closed a socket")
                missing -= sum(int(found) == number for found in NUMBER.findall(piece))
        return 0

    def settle():
        quiet = server.cpu()
        while time.sleep(0.3) or server.cpu() - quiet > 20_000:
            quiet = server.cpu()

    connect(0)
    deliver(1, 1)
    settle()
    before = server.memory()
    for source in range(1, CLIENTS):
        connect(source)
    settle()
    held = (server.memory() - before) / (CLIENTS - 1)
    costs = []
    lost = 0
    for number in range(2, 2 + PUBLISHES):
        spent = server.cpu()
        lost += deliver(number, CLIENTS)
        settle()
        costs.append((server.cpu() - spent) / CLIENTS)
    for key in list(eyes.get_map().values()):
        key.fileobj.close()
    end_all()
    return held, sorted(costs)[len(costs) // 2], lost


def main():
    allow_open_files()
    print(f"{CLIENTS:,} sockets, {PUBLISHES} events of 200 bytes")
    print("| server | KiB per idle socket | µs per delivered event | events lost |")
    print("|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pollgate", "sockudo"):
            held, cost, lost = measure(name, folder)
            print(f"| {name} | {held:.2f} | {cost:.1f} | {lost} |", flush=True)


try:
    main()
finally:
    end_all()
