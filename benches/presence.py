#!/usr/bin/env python3
"""What sites and presence add to a poll: benches/presence.py [--cpu] BINARY

The instructions in user space for a delivery and the next poll, as benches/instructions.py counts
them: without anything, in a `[[site]]`, and with presence off, on for another channel, on for
clients without a user, and on for users, who need a token. Needs valgrind.

With --cpu, the CPU time in user space and in the kernel: each row and the one it is compared with run
in turn, nine times, and the medians are compared. Wants a calm machine.
"""
import base64
import hashlib
import hmac
import statistics
import subprocess
import sys

from instructions import CLIENTS, Gate, deliver, per_request, site

SITE = """
[publish]
token = "abcdefghijk"
[[site]]
name = "shop"
hosts = ["localhost"]
[site.upstream]
servers = ["127.0.0.1:1"]
[site.publish]
token = "abcdefgh"
[[site.poll]]
path = "/comet/*"
dialect = "native"
"""
OPEN = """
[[poll]]
path = "/comet/*"
dialect = "native"
"""
SIGNED = OPEN + 'auth = { kind = "signed", keys = { k1 = "a long random secret" } }\n'


def presence(channel):
    return f'[[channel]]\nmatch = "{channel}"\npresence = true\n'


def token(client):
    def encoded(text):
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    signed = f"k1.99999999999.{encoded('news')}.{encoded(str(client))}"
    mac = hmac.new(b"a long random secret", signed.encode(), hashlib.sha256).hexdigest()
    return f"&token={signed}.{mac}"


def of_site(gate, rounds):
    deliver(gate, rounds, hook_headers="Authorization: Bearer abcdefgh\r\n")


def with_token(gate, rounds):
    deliver(gate, rounds, query=token)


ROWS = [
    ("no site, no presence", OPEN, deliver, None),
    ("in a site", SITE, of_site, 0),
    ("presence on another channel", presence("other") + OPEN, deliver, 0),
    ("presence, clients without a user", presence("news") + OPEN, deliver, 0),
    ("signed tokens, no presence", SIGNED, with_token, None),
    ("signed tokens, presence on another channel", presence("other") + SIGNED, with_token, 4),
    ("signed tokens, presence of the users", presence("news") + SIGNED, with_token, 4),
]


def count(binary):
    counts = []
    for name, config, work, base in ROWS:
        counts.append(per_request(binary, work, CLIENTS, config))
        change = "" if base is None else f" ({100 * (counts[-1] / counts[base] - 1):+.1f} %)"
        print(f"{name}: {counts[-1]:,.0f}{change}", flush=True)


def cpu(binary, upstream, config, work):
    """Microseconds of CPU time for a delivery and the next poll."""
    times = []
    for rounds in (5, 105):
        gate = Gate(binary, upstream, config, counted=False)
        try:
            work(gate, rounds)
            times.append(gate.cpu())
        finally:
            gate.process.terminate()
            try:
                gate.process.wait(5)
            except subprocess.TimeoutExpired:
                gate.process.kill()
                gate.process.wait()
    return (times[1] - times[0]) * 1e6 / (100 * CLIENTS)


def compare(binary):
    upstream = site()
    for name, config, work, base in ROWS:
        if base is None:
            continue
        others = []
        bases = []
        for _ in range(9):
            bases.append(cpu(binary, upstream, *ROWS[base][1:3]))
            others.append(cpu(binary, upstream, config, work))
        before, after = statistics.median(bases), statistics.median(others)
        print(f"{name}: {before:.2f} -> {after:.2f} us ({100 * (after / before - 1):+.1f} %)",
              flush=True)


if sys.argv[1] == "--cpu":
    compare(sys.argv[2])
else:
    count(sys.argv[1])
