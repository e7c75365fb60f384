#!/usr/bin/env python3
"""Quiet visitors before a script that waits in a loop: benches/held_loop.py BINARY [VISITORS] [SECONDS]

The site (tests/sites/held-loop) runs on PHP's own server with four workers behind the gate. Every
visitor gets the content there is and then polls on. Measured meanwhile: connections of the gate at
PHP, without those for the page itself; how long an ordinary page takes; how long a new visitor
waits for its first content, with the gate and from PHP alone; the gate's memory.
"""
import http.client
import json
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import threading
import time

from programs import end, end_all, start, wait_for

BINARY = sys.argv[1]
VISITORS = int(sys.argv[2]) if len(sys.argv) > 2 else 500
SECONDS = int(sys.argv[3]) if len(sys.argv) > 3 else 180
FOLDER = pathlib.Path(tempfile.mkdtemp())
SITE, PHP, GATE, INTERNAL = FOLDER / "site", 18510, 18511, 18512
CONFIG = """
[[poll]]
path     = "/poll.php"
dialect  = "replay"
channel  = "talk"
cursor   = "last"
max_wait = "3s"
%s
[[capture]]
path    = "/say.php"
channel = "talk"
data    = "{form.text}"
"""


def ask(port, method, target, body=None):
    """The answer, and how long it took in milliseconds."""
    began = time.time()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    form = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    client.request(method, target, body, form)
    answer = client.getresponse().read()
    client.close()
    return answer, (time.time() - began) * 1e3


class Visitor(threading.Thread):
    """Gets what there is, and polls on with it until there is more."""

    def __init__(self, number):
        super().__init__(daemon=True)
        self.who = {"Cookie": f"PHPSESSID={number}"}
        self.ready, self.quiet, self.heard = threading.Event(), 0, None
        self.start()

    def run(self):
        client, last = http.client.HTTPConnection("127.0.0.1", GATE, timeout=300), 0
        while last < 2:
            client.request("GET", f"/poll.php?last={last}", headers=self.who)
            answer = json.loads(client.getresponse().read())
            self.quiet += not answer["messages"]
            last = answer["last"]
            self.ready.set()
        self.heard = time.time()


def at_php():
    """Open connections from the gate to PHP."""
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(f[2] == f"0100007F:{PHP:04X}" and f[3] == "01" for f in fields)


def memory(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def share(found, part):
    return sorted(found)[int((len(found) - 1) * part)]


def measure(name, more):
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(pathlib.Path(__file__).parent.parent / "tests/sites/held-loop", SITE)
    (SITE / "messages.txt").write_text("hello\n")
    (FOLDER / "gate.toml").write_text(CONFIG % more)

    env = dict(os.environ, PHP_CLI_SERVER_WORKERS="4")
    php = start("php", "-S", f"127.0.0.1:{PHP}", "-t", SITE, env=env)
    wait_for(PHP)
    alone = [ask(PHP, "GET", "/poll.php?last=0")[1] for _ in range(50)]
    gate = start(BINARY, "--config", f"{FOLDER}/gate.toml", "--listen", f"127.0.0.1:{GATE}",
                 "--internal", f"127.0.0.1:{INTERNAL}", "--upstream", f"127.0.0.1:{PHP}",
                 "--set", "log.level=warn")
    wait_for(GATE)
    before = memory(gate)
    visitors = [Visitor(number) for number in range(VISITORS)]
    for one in visitors:
        one.ready.wait()
    pages, firsts, most = [], [], 0
    until = time.time() + SECONDS
    while time.time() < until:
        most = max(most, at_php())
        pages.append(ask(GATE, "GET", "/page.php")[1])
        if len(pages) % 10 == 0:
            target = f"/poll.php?last=0&visitor={len(pages)}"
            firsts.append(ask(GATE, "GET", target)[1])
        time.sleep(0.1)
    used = memory(gate)
    quiet = sum(one.quiet for one in visitors)
    began = time.time()
    ask(GATE, "POST", "/say.php", "text=again")
    for one in visitors:
        one.join()
    lag = [(one.heard - began) * 1e3 for one in visitors]
    print(f"| {name} | {most} | {share(pages, .5):.1f} / {share(pages, .99):.1f} / {max(pages):.1f} "
          f"| {share(alone, .5):.1f} / {max(alone):.1f} | {share(firsts, .5):.1f} / {max(firsts):.1f} "
          f"| {min(lag):.0f} / {max(lag):.0f} | {quiet} | {used - before} |", flush=True)
    end(php)
    end(gate)


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    print(f"{VISITORS} visitors, {SECONDS} s, PHP with 4 workers; times in ms")
    print("| rule | most at PHP | page p50 / p99 / max | first content, PHP alone p50 / max "
          "| with the gate p50 / max | news to first / last visitor | quiet answers | MB |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    measure("`max_wait`", "")
    measure("`max_wait`, `on_timeout`", "on_timeout = '{\"messages\":[],\"last\":1}'")


try:
    main()
finally:
    end_all()
    shutil.rmtree(FOLDER, ignore_errors=True)
