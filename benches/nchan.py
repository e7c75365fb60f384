#!/usr/bin/env python3
"""The Nchan dialect beside Nchan: benches/nchan.py BINARY [CLIENTS] [PUBLISHES]

Both servers run on this machine, one thread each, and take turns. On each transport (long poll,
event stream, WebSocket with ws+meta.nchan) CLIENTS are held on one channel. Told are the memory of
one of them, and the server's CPU time for each message delivered, the next poll included. Then
200 clients follow ten channels with their message ids while a third of them are cut off at random
again and again: told are the messages that were lost and that came twice.

Memory is the proportional set size of all of a server's processes, less what they had before. CPU
time is what the scheduler counted for their threads. The one client process shares the machine.
"""
import json
import os
import pathlib
import random
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from programs import UPGRADE, allow_open_files, cpu, free_port, listens, memory, until

BINARY = sys.argv[1]
CLIENTS = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
PUBLISHES = int(sys.argv[3]) if len(sys.argv) > 3 else 5
MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
BODY = "x" * 200
TRANSPORTS = ("longpoll", "eventsource", "websocket")

NGINX = """load_module {module};
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
worker_rlimit_nofile 40000; events {{ worker_connections 30000; }}
http {{ access_log off; keepalive_requests 1000000000; nchan_shared_memory_size 512M;
client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
server {{ listen 127.0.0.1:{port} backlog=4096;
location ~ ^/sub/(.+)$ {{ nchan_subscriber; nchan_channel_id $1;
  nchan_subscriber_first_message newest; }}
location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1;
  nchan_message_buffer_length 1000; nchan_message_timeout 5m; }} }} }}
"""
POLLGATE = """[log]
level = "warn"
[history]
messages = 1000
[[nchan]]
path = "/pub/*"
[[poll]]
path = "/sub/*"
dialect = "nchan"
first = "newest"
"""


class Server:
    def __init__(self, name, folder):
        self.name, self.port = name, free_port()
        self.folder = pathlib.Path(folder, name + str(self.port))
        self.folder.mkdir()
        config = self.folder / "config"
        if name == "nchan":
            self.publish_port = self.port
            config.write_text(NGINX.format(module=MODULE, folder=self.folder, port=self.port))
            command = ["/usr/sbin/nginx", "-e", f"{self.folder}/error.log", "-c", str(config)]
        else:
            self.publish_port = free_port()
            config.write_text(POLLGATE)
            command = [BINARY, "run", "--config", str(config), f"--listen=127.0.0.1:{self.port}",
                       f"--internal=127.0.0.1:{self.publish_port}", "--upstream=127.0.0.1:1",
                       "--set=threads=1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: all(map(listens, (self.port, self.publish_port))))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def pids(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def memory(self):
        """KiB."""
        return memory(*self.pids())

    def cpu(self):
        """Microseconds."""
        return cpu(*self.pids())

    def publish(self, channel, body):
        url = f"http://127.0.0.1:{self.publish_port}/pub/{channel}"
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=60).read()

    def subscribers(self, channel):
        url = f"http://127.0.0.1:{self.publish_port}/pub/{channel}"
        try:
            request = urllib.request.Request(url, headers={"Accept": "text/json"})
            return json.loads(urllib.request.urlopen(request, timeout=60).read())["subscribers"]
        except urllib.error.HTTPError:
            return 0


class Client:
    """One subscriber. `take` reads what there is and returns the bodies of whole messages."""

    MESSAGE = {
        "eventsource": re.compile(rb"id: ([^\n]+)\ndata: ([^\n]*)\n\n"),
        "websocket": re.compile(rb"id: ([^\n]+)\ncontent-type: [^\n]+\n\n(#[0-9]+#x*)"),
    }

    def __init__(self, server, transport, channel, source):
        self.server, self.transport, self.channel, self.source = server, transport, channel, source
        self.id, self.place, self.held = None, "", b""
        self.connect()

    def connect(self):
        self.held = b""
        self.socket = socket.socket()
        self.socket.bind((f"127.0.0.{2 + self.source % 32}", 0))
        self.socket.connect(("127.0.0.1", self.server.port))
        self.ask()
        self.socket.setblocking(False)

    def ask(self):
        last = f"?last_event_id={self.id}" if self.id and self.transport != "longpoll" else ""
        extra = {
            "longpoll": self.place,
            "eventsource": "Accept: text/event-stream\r\n",
            "websocket": f"{UPGRADE}Sec-WebSocket-Protocol: ws+meta.nchan\r\n",
        }[self.transport]
        head = f"GET /sub/{self.channel}{last} HTTP/1.1\r\nHost: bench\r\n{extra}\r\n"
        self.socket.setblocking(True)
        self.socket.sendall(head.encode())
        self.socket.setblocking(False)

    def take(self):
        """The messages, or None where the connection has ended."""
        try:
            piece = self.socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not piece:
            return None
        self.held += piece
        return self.polled() if self.transport == "longpoll" else self.streamed()

    def polled(self):
        head, mark, body = self.held.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        length = int(fields.get(b"content-length", 0))
        if not mark or len(body) < length:
            return []
        values = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        values = {name.lower(): value.decode() for name, value in values.items()}
        if b"last-modified" not in values:
            raise SystemExit(f"{self.server.name} says {self.held[:300]}")
        self.place = (f"If-Modified-Since: {values[b'last-modified']}\r\n"
                      f"If-None-Match: {values[b'etag']}\r\n")
        self.held = b""
        self.ask()
        return [body[:length]]

    def streamed(self):
        found, end = [], 0
        for match in self.MESSAGE[self.transport].finditer(self.held):
            # A frame's or a chunk's body may not be whole yet.
            if len(match[2]) < len(BODY):
                break
            self.id = match[1].decode()
            found.append(match[2])
            end = match.end()
        self.held = self.held[end:]
        return found


def numbered(number):
    return f"#{number:010d}#".ljust(len(BODY), "x")


def crowd(server, transport, folder):
    """Memory of a held client in KiB, CPU of a delivery in microseconds."""
    server.publish("wide", numbered(1))
    before = server.memory()
    eyes = selectors.DefaultSelector()
    for index in range(CLIENTS):
        client = Client(server, transport, "wide", index)
        eyes.register(client.socket, selectors.EVENT_READ, client)
    until(lambda: server.subscribers("wide") >= CLIENTS)
    memory = (server.memory() - before) / CLIENTS
    costs = []
    for number in range(2, 2 + PUBLISHES):
        spent, got = server.cpu(), 0
        server.publish("wide", numbered(number))
        while got < CLIENTS:
            for key, _ in eyes.select(10):
                messages = key.data.take()
                if messages is None:
                    raise SystemExit(f"{server.name} has closed a connection")
                got += len(messages)
        until(lambda: server.subscribers("wide") >= CLIENTS)
        costs.append((server.cpu() - spent) / CLIENTS)
    return memory, sorted(costs)[len(costs) // 2]


def cuts(server, transport, seconds=8):
    """Messages lost and doubled by clients that are cut off and come back."""
    rng = random.Random(7)
    eyes = selectors.DefaultSelector()
    clients = [Client(server, transport, f"c{index % 10}", index) for index in range(200)]
    seen = {client: {} for client in clients}
    for client in clients:
        eyes.register(client.socket, selectors.EVENT_READ, client)
    for channel in range(10):
        until(lambda: server.subscribers(f"c{channel}") >= 20)
    newest = dict.fromkeys(range(10), 0)

    def look(wait):
        for key, _ in eyes.select(wait):
            messages = key.data.take()
            if messages is None:
                again(key.data)
                continue
            for message in messages:
                number = int(message[1:11])
                seen[key.data][number] = seen[key.data].get(number, 0) + 1

    def again(client):
        eyes.unregister(client.socket)
        client.socket.close()
        client.connect()
        eyes.register(client.socket, selectors.EVENT_READ, client)

    deadline = time.time() + seconds
    while time.time() < deadline:
        channel = rng.randrange(10)
        newest[channel] += 1
        server.publish(f"c{channel}", numbered(newest[channel]))
        look(0.002)
        # A client that has had a message has a place; without one, nothing is promised to it.
        if rng.random() < 0.3:
            cut = rng.choice(clients)
            if seen[cut]:
                again(cut)
    quiet = time.time() + 3
    while time.time() < quiet:
        look(0.1)
    lost = doubled = 0
    for client in clients:
        got, channel = seen[client], int(client.channel[1:])
        first = min(got, default=newest[channel] + 1)
        lost += sum(number not in got for number in range(first, newest[channel] + 1))
        doubled += sum(times - 1 for times in got.values())
    return sum(newest.values()), lost, doubled


def main():
    allow_open_files(40_000)
    if not os.path.exists(MODULE):
        raise SystemExit("Nchan is missing: apt-get install nginx libnginx-mod-nchan")
    print(f"{CLIENTS:,} clients, {PUBLISHES} publishes of {len(BODY)} bytes")
    print("| transport | server | KiB per client | µs per delivery | published | lost | doubled |")
    print("|---|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for transport in TRANSPORTS:
            for name in ("pollgate", "nchan"):
                with Server(name, folder) as server:
                    memory, cost = crowd(server, transport, folder)
                with Server(name, folder) as server:
                    published, lost, doubled = cuts(server, transport)
                print(f"| {transport} | {name} | {memory:.1f} | {cost:.1f} | {published} | {lost} | "
                      f"{doubled} |", flush=True)


main()
