#!/usr/bin/env python3
"""Forwarded requests over HTTP/2 here and at nginx: benches/http2.py POLLGATE [REQUESTS]

Each gate, with one worker thread, forwards REQUESTS of h2load to an nginx that answers 200 bytes: over
one stream at a time, and over 64 streams of four connections. Printed is the CPU time of a request.

CPU time is what the scheduler counted for the gate's threads, the median of five runs in turn.

    apt install nginx nghttp2-client
"""
import pathlib
import subprocess
import sys
import tempfile

from programs import cpu, end_all, free_port, start, wait_for

POLLGATE = sys.argv[1]
REQUESTS = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
ROUNDS = 5
BODY = "x" * 200
NGINX = """daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    {rest}
}}
"""
SITE = 'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}'
GATE = """upstream site {{ server 127.0.0.1:{site}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} http2;
        location / {{ proxy_pass http://site; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}"""


def nginx(folder, name, rest):
    config = pathlib.Path(folder, f"{name}.conf")
    config.write_text(NGINX.format(folder=folder, name=name, rest=rest))
    return start("nginx", "-c", str(config))


def processes(process):
    """The process and its children, which do nginx's work."""
    pid = process.pid
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def load(port, connections, streams):
    done = subprocess.run(
        ["h2load", "-n", str(REQUESTS), "-c", str(connections), "-m", str(streams),
         f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
    if f"{REQUESTS} succeeded" not in done.stdout:
        sys.exit(done.stdout)


def main():
    with tempfile.TemporaryDirectory() as folder:
        site, ours, theirs = free_port(), free_port(), free_port()
        nginx(folder, "site", SITE.format(port=site, body=BODY))
        limits = [f"--set=limits.{name}=0" for name in ("requests_per_second", "connections_per_second")]
        gates = {
            "pollgate": (ours, start(
                POLLGATE, "run", f"--listen=127.0.0.1:{ours}",
                f"--internal=127.0.0.1:{free_port()}", f"--upstream=127.0.0.1:{site}",
                "--set=threads=1", "--set=log.level=warn", *limits)),
            "nginx": (theirs, nginx(folder, "gate", GATE.format(site=site, port=theirs))),
        }
        for port in (site, ours, theirs):
            wait_for(port)
        print(f"{REQUESTS:,} requests over HTTP/2, answers of {len(BODY)} bytes")
        print("| gate | µs per request, one stream | 64 streams |")
        print("|---|--:|--:|")
        costs = {name: ([], []) for name in gates}
        for _ in range(ROUNDS):
            for name, (port, process) in gates.items():
                for row, (connections, streams) in zip(costs[name], ((1, 1), (4, 16))):
                    pids = processes(process)
                    spent = cpu(*pids)
                    load(port, connections, streams)
                    row.append((cpu(*pids) - spent) / REQUESTS)
        for name, rows in costs.items():
            one, many = (sorted(row)[len(row) // 2] for row in rows)
            print(f"| {name} | {one:.1f} | {many:.1f} |")


try:
    main()
finally:
    end_all()
