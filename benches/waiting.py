#!/usr/bin/env python3
"""An old site with and without the gate: benches/waiting.py BINARY

The seed of such sites (tests/sites/backend) runs on PHP-FPM with five workers behind nginx, as it is,
and then with the gate in front and the config that `pollgate adopt` prints. Two figures for both:
how many visitors may wait before an ordinary page takes longer than a second, and how long it takes
from a file's writing until a waiting visitor has the message.
"""
import glob
import http.client
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from programs import end, end_all, start, wait_for

BINARY = sys.argv[1]
WORKERS, MOST, WRITES = 5, 5_000, 200
FOLDER = pathlib.Path(tempfile.mkdtemp())
SITE, NGINX, GATE, INTERNAL = FOLDER / "site", 18500, 18501, 18502


def start_site():
    shutil.copytree(pathlib.Path(__file__).parent.parent / "tests/sites/backend", SITE)
    (SITE / "page.php").write_text("<?php echo 'an ordinary page';")
    (SITE / "data.txt").write_text("")
    for path in (FOLDER, SITE, *SITE.iterdir()):
        path.chmod(0o777)
    (FOLDER / "fpm.conf").write_text(
        f"[global]\nerror_log = {FOLDER}/fpm.log\ndaemonize = no\n[site]\nlisten = {FOLDER}/fpm.sock\n"
        f"listen.mode = 0666\nuser = nobody\npm = static\npm.max_children = {WORKERS}\n"
    )
    (FOLDER / "nginx.conf").write_text(
        f"daemon off; pid {FOLDER}/nginx.pid; error_log {FOLDER}/nginx.log;\n"
        "worker_rlimit_nofile 20000; events { worker_connections 10000; }\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{NGINX}; root {SITE};\n"
        "location ~ \\.php$ { fastcgi_read_timeout 300s; include /etc/nginx/fastcgi_params;\n"
        "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n"
        f"fastcgi_pass unix:{FOLDER}/fpm.sock; }} }} }}\n"
    )
    if not glob.glob("/usr/sbin/php-fpm*") or not shutil.which("nginx"):
        sys.exit("php-fpm and nginx are needed (Debian: php-fpm nginx)")
    fpm = start_fpm()
    start("nginx", "-c", f"{FOLDER}/nginx.conf")
    wait_for(NGINX)
    return fpm


def start_gate():
    config = subprocess.run([BINARY, "adopt", SITE], capture_output=True, text=True, check=True)
    (FOLDER / "gate.toml").write_text(config.stdout)
    settings = ("hold.timeout=300s", "log.level=warn")
    start(BINARY, "--config", f"{FOLDER}/gate.toml", "--listen", f"127.0.0.1:{GATE}", "--internal",
          f"127.0.0.1:{INTERNAL}", "--upstream", f"127.0.0.1:{NGINX}",
          *(flag for setting in settings for flag in ("--set", setting)))
    wait_for(GATE)


def visitor(port):
    """Sends a poll for what comes after the file as it is now."""
    stream = socket.create_connection(("127.0.0.1", port))
    stamp = time.time() + 1 if port == NGINX else time.time()
    target = f"/backend.php?timestamp={int(stamp) if port == NGINX else stamp}"
    stream.sendall(f"GET {target} HTTP/1.1\r\nHost: site\r\n\r\n".encode())
    return stream


def page(port):
    """How long an ordinary page takes, in seconds; 2 = longer than that."""
    began = time.time()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        client.request("GET", "/page.php")
        answer = client.getresponse().read()
    except OSError:
        return 2.0
    finally:
        client.close()
    if b"an ordinary page" not in answer:
        sys.exit(f"no page: {answer!r}")
    return time.time() - began


def waiting(port):
    """How many visitors wait when an ordinary page first takes longer than a second."""
    visitors, slowest = [], 0.0
    while len(visitors) < MOST:
        step = 1 if len(visitors) < 20 else 100
        visitors += [visitor(port) for _ in range(step)]
        time.sleep(0.05)
        took = page(port)
        if took > 1:
            return f"{len(visitors)}", slowest
        slowest = max(slowest, took)
    return f"more than {len(visitors)}", slowest


def latencies(port):
    """Milliseconds from a write to the answer, sorted."""
    found = []
    for number in range(WRITES):
        if port == NGINX:
            # PHP counts in whole seconds: a write within the poll's own second is never seen.
            time.sleep(1.05 - time.time() % 1)
        stream = visitor(port)
        if port == NGINX:
            time.sleep(2.1)
        else:
            time.sleep(0.02)
        began = time.time()
        (SITE / "data.txt").write_text(f"message {number}")
        stream.settimeout(10)
        if f"message {number}".encode() not in stream.recv(4096):
            sys.exit(f"port {port}: not the message that was written")
        found.append((time.time() - began) * 1e3)
        stream.close()
        if port == NGINX and number >= 15:
            break
    return sorted(found)


def start_fpm():
    socket_file = FOLDER / "fpm.sock"
    socket_file.unlink(missing_ok=True)
    fpm = start(sorted(glob.glob("/usr/sbin/php-fpm*"))[-1], "-n", "-F", "-y", f"{FOLDER}/fpm.conf")
    until = time.time() + 20
    while not socket_file.exists() and time.time() < until:
        time.sleep(0.05)
    return fpm


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    fpm = start_site()
    start_gate()
    print(f"| PHP-FPM with {WORKERS} workers | alone | with the gate |\n|---|--:|--:|")
    counts, times = [], []
    for port in (NGINX, GATE):
        times.append(latencies(port))
        count, slowest = waiting(port)
        counts.append(f"{count} (page before that: {slowest * 1e3:.0f} ms at most)")
        # Its workers keep waiting for clients that have gone.
        end(fpm)
        fpm = start_fpm()
    print(f"| waiting visitors when a page takes over 1 s | {counts[0]} | {counts[1]} |")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        cells = [f"{found[int((len(found) - 1) * share)]:.1f}" for found in times]
        print(f"| file written to answer read, {name} (ms) | {cells[0]} | {cells[1]} |")


try:
    main()
finally:
    end_all()
    shutil.rmtree(FOLDER, ignore_errors=True)
