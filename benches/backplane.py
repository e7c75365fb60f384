#!/usr/bin/env python3
"""What sharing channels over Redis costs: benches/backplane.py BINARY

Starts redis-server, two gates that share it, one over a cluster of three, and one that is alone, and
prints publishes a second, delivery latency, CPU per delivery, and how long gates take to catch up
after Redis was restarted.
"""
import asyncio
import json
import subprocess
import sys
import tempfile
import time

from programs import end_all, start

BINARY = sys.argv[1]
FOLDER = tempfile.mkdtemp()
REDIS, LISTEN, INTERNAL = 17998, 18300, 18400
ALONE, FIRST, SECOND, CLUSTERED = 3, 1, 2, 4
NODES = [17995, 17996, 17997]


def redis():
    return start("redis-server", "--port", str(REDIS), "--save", "", "--dir", FOLDER)


def cluster():
    for port in NODES:
        start("redis-server", "--port", str(port), "--save", "", "--dir", FOLDER, "--cluster-enabled",
              "yes", "--cluster-config-file", f"nodes-{port}.conf")
    time.sleep(1)
    subprocess.run(["redis-cli", "--cluster", "create", *(f"127.0.0.1:{port}" for port in NODES),
                    "--cluster-yes"], stdout=subprocess.DEVNULL, check=True)


def gate(number):
    settings = ["log.level=off", "history.channels=200000", "hold.timeout=120s",
                "limits.channels_per_poll=0", "limits.head_bytes=1MiB"]
    if number == CLUSTERED:
        settings.append(f"backplane.redis=redis-cluster://127.0.0.1:{NODES[0]}")
    elif number != ALONE:
        settings.append(f"backplane.redis=redis://127.0.0.1:{REDIS}")
    flags = [flag for setting in settings for flag in ("--set", setting)]
    return start(BINARY, "--listen", f"127.0.0.1:{LISTEN + number}", "--internal",
                 f"127.0.0.1:{INTERNAL + number}", "--upstream", "127.0.0.1:1", *flags)


async def connect(port):
    return await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)


def send(wire, method, path, body=b"", kind="text/plain"):
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if method == "POST":
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    wire[1].write(head.encode() + b"\r\n" + body)


async def answer(wire):
    head = (await wire[0].readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    return json.loads(await wire[0].readexactly(length))


async def ask(wire, *request):
    send(wire, *request)
    return await answer(wire)


def cpu_ms(process):
    fields = open(f"/proc/{process.pid}/stat").read().split()
    return (int(fields[13]) + int(fields[14])) * 10


async def publishes(number, count=3000, publishers=8):
    async def publish(which):
        wire = await connect(INTERNAL + number)
        for at in range(count // publishers):
            await ask(wire, "POST", f"/channels/c{(which * 991 + at) % 500}", b"x" * 100)

    began = time.time()
    await asyncio.gather(*map(publish, range(publishers)))
    return round(count / (time.time() - began))


async def latency(poll_at, publish_at, count=400):
    poll, publish = await connect(LISTEN + poll_at), await connect(INTERNAL + publish_at)
    cursor = (await ask(poll, "GET", "/comet/latency?timeout=0"))["cursor"]
    times = []
    for _ in range(count):
        send(poll, "GET", f"/comet/latency?cursor={cursor}")
        await asyncio.sleep(0.004)
        began = time.perf_counter()
        published = asyncio.ensure_future(ask(publish, "POST", "/channels/latency", b"x"))
        cursor = (await answer(poll))["cursor"]
        times.append((time.perf_counter() - began) * 1000)
        await published
    times.sort()
    return f"p50 {times[count // 2]:.2f} ms, p99 {times[count * 99 // 100]:.2f} ms"


async def fan_out(number, process, clients=500, rounds=20):
    polls = [await connect(LISTEN + number) for _ in range(clients)]
    for poll in polls:
        cursor = (await ask(poll, "GET", "/comet/fan?timeout=0"))["cursor"]
    publish = await connect(INTERNAL + number)
    before = cpu_ms(process)
    for _ in range(rounds):
        for poll in polls:
            send(poll, "GET", f"/comet/fan?cursor={cursor}")
        while (await ask(publish, "GET", "/status"))["held"] < clients:
            await asyncio.sleep(0.02)
        await ask(publish, "POST", "/channels/fan", b"x")
        cursor = (await asyncio.gather(*map(answer, polls)))[0]["cursor"]
    return round((cpu_ms(process) - before) * 1000 / (clients * rounds))


async def catch_up(server, channels=10_000):
    publish = await connect(INTERNAL + SECOND)
    names = [f"k{number}" for number in range(channels)]
    for at in range(0, channels, 1000):
        body = json.dumps({"channels": names[at:at + 1000], "data": "x" * 100}).encode()
        await ask(publish, "POST", "/publish", body, "application/json")
    polls = []
    for at in range(0, channels, 100):
        poll, path = await connect(LISTEN + FIRST), "/comet/" + ",".join(names[at:at + 100])
        cursor = (await ask(poll, "GET", f"{path}?timeout=0"))["cursor"]
        send(poll, "GET", f"{path}?cursor={cursor}")
        polls.append(poll)
    await asyncio.sleep(1)
    server.kill()
    server.wait()
    await asyncio.sleep(0.5)
    redis()
    began = time.time()
    await asyncio.wait_for(asyncio.gather(*map(answer, polls)), 60)
    return f"{time.time() - began:.2f} s"


async def main():
    server = redis()
    cluster()
    gates = {number: gate(number) for number in (FIRST, SECOND, ALONE, CLUSTERED)}
    await asyncio.sleep(3)
    print("publishes/s: alone", await publishes(ALONE), "shared", await publishes(FIRST),
          "over a cluster of three", await publishes(CLUSTERED))
    print("publish to answer, alone:", await latency(ALONE, ALONE))
    print("publish to answer, across gates:", await latency(FIRST, SECOND))
    print("CPU per delivery and re-poll (µs): alone", await fan_out(ALONE, gates[ALONE]),
          "shared", await fan_out(FIRST, gates[FIRST]))
    print("Redis restarted, 10,000 channels: all polls answered after", await catch_up(server))


try:
    asyncio.run(main())
finally:
    end_all()
