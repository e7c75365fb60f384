#!/usr/bin/env python3
"""GRIP beside Pushpin: benches/grip.py BINARY [CLIENTS] [PUBLISHES]

Both servers run on this machine, one worker each, and take turns before the same site. CLIENTS are
held on one channel, as a response and as a stream; pollgate also holds as many native polls, for
comparison. The table has the memory of one of them, and the server's CPU time for each message
delivered. For a response that includes the next request, which goes to the site again and is held.
Refused are requests that the server answered with 502; their clients ask again.

Memory is the proportional set size of all of a server's processes, less what they had before. CPU
time is what the scheduler counted for their threads. The clients and the site share the machine.
"""
import asyncio
import json
import pathlib
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from programs import allow_open_files, cpu, free_port, listens, memory, until

BINARY = sys.argv[1]
CLIENTS = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
PUBLISHES = int(sys.argv[3]) if len(sys.argv) > 3 else 5
BODY = "x" * 200
# Requests that are at the site at once.
BURST = 40

PUSHPIN = """[global]
include=/usr/lib/pushpin/internal.conf
rundir={at}
ipc_prefix=b-
port_offset=0
stats_connection_ttl=120
[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={at}
log_level=0
client_buffer_size=8192
client_maxconn=50000
condure_bin=condure
[proxy]
routesfile={at}/routes
sig_iss=pushpin
sig_key=secret
zurl_out_specs=ipc://{at}/zurl-in
zurl_out_stream_specs=ipc://{at}/zurl-in-stream
zurl_in_specs=ipc://{at}/zurl-out
[handler]
push_in_spec=tcp://127.0.0.1:{push}
push_in_sub_specs=tcp://127.0.0.1:{subscribe}
push_in_sub_connect=false
push_in_http_addr=127.0.0.1
push_in_http_port={publish}
push_in_http_max_headers_size=10000
push_in_http_max_body_size=1000000
stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats
command_spec=tcp://127.0.0.1:{command}
message_rate=1000000
message_hwm=100000
message_wait=5000
id_cache_ttl=60
connection_subscription_max=20
subscription_linger=60
stats_report_interval=10
stats_format=tnetstring
"""
ZURL = """[General]
in_spec=ipc://{at}/zurl-in
in_stream_spec=ipc://{at}/zurl-in-stream
out_spec=ipc://{at}/zurl-out
in_req_spec=ipc://{at}/zurl-req
defpolicy=allow
allow=
deny=
max_open_requests=1000
buffer_size=200000
timeout=600
in_hwm=10000
out_hwm=10000
"""
POLLGATE = """[log]
level = "warn"
[hold]
timeout = "600s"
[limits]
per_address = 0
[grip]
enabled = true
key = "secret"
iss = "pushpin"
[[poll]]
path = "/native/*"
dialect = "native"
"""


class Site:
    """Answers every request with an instruction."""

    def __init__(self):
        self.port, self.answered = free_port(), 0
        threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True).start()
        until(lambda: listens(self.port), bound=120)

    async def serve(self):
        async with await asyncio.start_server(self.speak, "127.0.0.1", self.port, backlog=4096) as it:
            await it.serve_forever()

    async def speak(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                mode = b"stream" if b" /stream" in head else b"response"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nGrip-Hold: " + mode +
                             b"\r\nGrip-Channel: wide\r\nGrip-Timeout: 600\r\n"
                             b"Content-Length: 5\r\n\r\nnone\n")
                await writer.drain()
                self.answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


class Server:
    def __init__(self, name, site, folder):
        self.name, self.port, self.publish_port = name, free_port(), free_port()
        self.folder = pathlib.Path(folder, name + str(self.port))
        self.folder.mkdir()
        ports = {"port": self.port, "publish": self.publish_port, "at": self.folder}
        if name == "pushpin":
            ports |= {"push": free_port(), "subscribe": free_port(), "command": free_port()}
            (self.folder / "routes").write_text(f"* 127.0.0.1:{site.port}\n")
            (self.folder / "pushpin.conf").write_text(PUSHPIN.format(**ports))
            (self.folder / "zurl.conf").write_text(ZURL.format(**ports))
            commands = [["zurl", f"--config={self.folder}/zurl.conf", "--loglevel=0"],
                        ["pushpin", "--config", f"{self.folder}/pushpin.conf"]]
        else:
            config = self.folder / "config"
            config.write_text(POLLGATE)
            commands = [[BINARY, "run", "--config", str(config), f"--listen=127.0.0.1:{self.port}",
                         f"--internal=127.0.0.1:{self.publish_port}",
                         f"--upstream=127.0.0.1:{site.port}", "--set=threads=1"]]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes = [subprocess.Popen(command, **quiet) for command in commands]
        until(lambda: all(map(listens, (self.port, self.publish_port))), bound=120)
        # Pushpin's parts find each other only after a while, and a request before that is lost.
        def warm():
            answered = site.answered
            with socket.create_connection(("127.0.0.1", self.port)) as one:
                one.sendall(b"GET /warm HTTP/1.1\r\nHost: bench\r\n\r\n")
                time.sleep(0.3)
            return site.answered > answered
        until(warm, bound=120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def pids(self):
        pids = [process.pid for process in self.processes]
        for pid in pids:
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        return pids

    def memory(self):
        """KiB."""
        return memory(*self.pids())

    def cpu(self):
        """Microseconds."""
        return cpu(*self.pids())

    def settle(self):
        """Waits until the server is idle."""
        spent = self.cpu()
        while True:
            time.sleep(0.5)
            now = self.cpu()
            if now - spent < 10_000:
                return
            spent = now

    def post(self, path, body, kind):
        request = urllib.request.Request(f"http://127.0.0.1:{self.publish_port}{path}", body.encode(),
                                         {"Content-Type": kind})
        urllib.request.urlopen(request, timeout=60).read()

    def publish(self, mode):
        if mode == "native":
            return self.post("/channels/wide", BODY, "text/plain")
        formats = {"http-response": {"body": BODY}, "http-stream": {"content": BODY}}
        path = "/publish/" if self.name == "pushpin" else "/grip/publish/"
        item = {"channel": "wide", "formats": formats}
        self.post(path, json.dumps({"items": [item]}), "application/json")


def measure(server, site, mode):
    """Memory of a held client in KiB, CPU of a delivery in microseconds, requests refused."""
    request = f"GET /{mode}/wide HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n\r\n".encode()
    server.settle()
    before, answered = server.memory(), site.answered
    eyes, refused = selectors.DefaultSelector(), 0

    def ask(source):
        one = socket.socket()
        one.bind((f"127.0.0.{2 + source % 32}", 0))
        one.connect(("127.0.0.1", server.port))
        one.sendall(request)
        one.setblocking(False)
        eyes.register(one, selectors.EVENT_READ, [source, b""])

    def read(key):
        """True if the client has got the whole message; one that is refused asks again."""
        nonlocal refused
        piece = key.fileobj.recv(1 << 16)
        key.data[1] += piece
        if not piece or b"HTTP/1.1 502" in key.data[1]:
            refused += 1
            eyes.unregister(key.fileobj)
            key.fileobj.close()
            ask(key.data[0])
        elif key.data[1].count(b"x") >= len(BODY):
            key.data[1] = b""
            return True
        return False

    for index in range(CLIENTS):
        ask(index)
        if mode != "native":
            until(lambda: site.answered >= answered + index - BURST, bound=120)
    server.settle()
    while mode != "native" and (early := eyes.select(0)):
        if all([read(key) or b"none" in key.data[1] for key, _ in early]):
            break
        server.settle()
    memory = (server.memory() - before) / CLIENTS
    costs = []
    for _ in range(PUBLISHES):
        spent, got, answered = server.cpu(), 0, site.answered
        server.publish(mode)
        again, asked = [], 0
        deadline = time.time() + 60
        while (got < CLIENTS or again) and time.time() < deadline:
            for key, _ in eyes.select(0.01):
                if read(key):
                    got += 1
                    if mode != "stream":
                        again.append(key.fileobj)
            # A burst of requests is more than Pushpin takes.
            while again and (mode == "native" or asked - (site.answered - answered) < BURST):
                again.pop().send(request)
                asked += 1
        server.settle()
        for key, _ in eyes.select(0) if mode == "response" else []:
            read(key)
        server.settle()
        costs.append((server.cpu() - spent) / max(got, 1))
        if got < CLIENTS:
            print(f"  {server.name} has delivered {got} of {CLIENTS}", file=sys.stderr)
    return memory, sorted(costs)[len(costs) // 2], refused


def main():
    allow_open_files()
    print(f"{CLIENTS:,} clients, {PUBLISHES} publishes of {len(BODY)} bytes")
    print("| hold | server | KiB per client | µs per delivery | refused |")
    print("|---|---|--:|--:|--:|")
    site = Site()
    with tempfile.TemporaryDirectory() as folder:
        for mode, names in (("response", ("pollgate", "pushpin")), ("stream", ("pollgate", "pushpin")),
                            ("native", ("pollgate",))):
            for name in names:
                with Server(name, site, folder) as server:
                    memory, cost, refused = measure(server, site, mode)
                print(f"| {mode} | {name} | {memory:.1f} | {cost:.1f} | {refused} |", flush=True)


main()
