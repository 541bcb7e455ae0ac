#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Streams and progress, as a caller sees them, and as urd call prints them.

usage: check_stream.py BUILD_DIR [CHECK...]
"""

import asyncio
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "src", "sdk", "python"))
import urd_client  # noqa: E402
from caller import ASYNC, CREDIT, ENDLESS, MIB, SDK, STREAM, STREAMED, Caller  # noqa: E402
from daemon import SLOWNESS, URD, Daemon, lives, must, run, same, until  # noqa: E402

F_GETPIPE_SZ = 1032


class Enough(Exception):
    pass


def rss_kib(pid):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def is_asleep(d):
    """Neither it nor its workers have anything to do, twice in a row."""
    def used():
        times = []
        for pid in [d.pid] + d.workers():
            with open("/proc/%d/stat" % pid) as f:
                times.append(f.read().rpartition(")")[2].split()[11:13])
        return times
    before = used()
    time.sleep(0.1 * SLOWNESS)
    return used() == before


def fill(i, size):
    return struct.pack(">I", i) * (size // 4)


# ---- streams ----

def streams(lang):
    with Daemon(SDK[lang], "workers=1") as d:
        c = Caller(d)
        pid = c.ok("pid")
        for n in (0, 1, CREDIT, CREDIT + 1, 10000 // SLOWNESS):
            out, result = c.all(c.send("stream", n, STREAMED))
            same(out, list(range(n)), "%s, %d chunks" % (lang, n))
            same(result, None)
        # credit in one piece, and more than is used
        msgid = c.send("stream", 500, STREAMED)
        c.grant(msgid, 900)
        same(c.chunks(msgid, 500), list(range(500)))
        same(c.answer(msgid), (None, None))
        same(c.ok("pid"), pid)


def check_stream_c():
    streams("c")


def check_stream_python():
    streams("py")


def check_stream_php():
    streams("php")


def check_stream_node():
    streams("node")


def check_stream_async_workers():
    """Four streams at once from one worker, each in its own order."""
    for command, _ in ASYNC.values():
        with Daemon(command, "workers=1") as d:
            c = Caller(d)
            ids = [c.send("stream", n, STREAMED) for n in (300, 17, 1, 200)]
            for msgid, n in zip(ids, (300, 17, 1, 200)):
                same(c.all(msgid)[0], list(range(n)), command[0])


def check_python_clients():
    told = []

    def tell(value):
        told.append(value)
        if len(told) == 3:
            raise Enough

    with Daemon(STREAM, "workers=2") as d:
        with urd_client.Client(d.sock) as client:
            for n in (0, 1, CREDIT, CREDIT + 1, 1000):
                same(list(client.stream("chunks", {"n": n})), list(range(n)))
            for _ in range(2):
                try:
                    client.call("report", ["a", {"b": 1}, None], progress=tell)
                except Enough:
                    pass
                same(told, ["a", {"b": 1}, None])
                told.clear()
            for _ in client.stream("chunks", ENDLESS):
                break
            same(client.call("echo", 1), 1)
            same(client.call("misreport", progress=told.append), None)
            same(told, [])

        async def main():
            async with urd_client.AsyncClient(d.sock) as client:
                async def whole(n):
                    return [chunk async for chunk in client.stream("chunks", {"n": n})]
                same(await asyncio.gather(whole(100), whole(1000)),
                     [list(range(100)), list(range(1000))])
                try:
                    await client.call("report", ["a", {"b": 1}, None], progress=tell)
                except Enough:
                    same(told, ["a", {"b": 1}, None])
                    told.clear()
                same(await client.call("misreport", progress=told.append), None)
                same(await client.call("echo", 2), 2)
        asyncio.run(main())
        same(told, [])


def check_wrong_params():
    """A stream of something that is no number is an error, and soon."""
    for lang in ("c", "py", "php"):
        with Daemon(SDK[lang], "workers=1", "exec_timeout=10s") as d:
            c = Caller(d)
            pid = c.ok("pid")
            for meta in (STREAMED, None):
                same(c.name(c.send("stream", {"n": 3}, meta)), ("APP", "yes"), lang)
            same(c.ok("pid"), pid, lang)


def check_slow_consumer():
    """It holds up neither the others on its connection nor the memory."""
    with Daemon(STREAM, "workers=2") as d:
        c = Caller(d)
        c.ok("echo", 1)
        before = rss_kib(d.pid)
        msgid = c.send("chunks", {"n": 200, "size": MIB}, STREAMED)
        got = c.chunks(msgid, CREDIT)
        for i in range(200):
            same(c.ok("echo", i), i)
        must(not c.kept[msgid], "a chunk came without credit")
        grown = rss_kib(d.pid) - before
        must(grown < (CREDIT + 8) * 1024 * SLOWNESS, "grew by %d KiB" % grown)
        while len(got) < 200:
            c.grant(msgid, 1)
            got += c.chunks(msgid, 1)
        same(got, [fill(i, MIB) for i in range(200)], "chunks")
        same(c.answer(msgid), (None, 200))
        # one that does not even read: what is on its way is all that is kept
        lazy = Caller(d)
        lazy.send("chunks", {"n": 200, "size": MIB}, STREAMED)
        for i in range(200):
            same(c.ok("echo", i), i)
        grown = rss_kib(d.pid) - before
        must(grown < (CREDIT + 8) * 1024 * SLOWNESS, "grew by %d KiB" % grown)
        lazy.close()


def check_idle_consumer_holds_its_worker():
    with Daemon(STREAM, "workers=2") as d:
        c, other = Caller(d), Caller(d)
        msgid = c.send("chunks", {"n": 40}, STREAMED)
        same(c.chunks(msgid, CREDIT), list(range(CREDIT)))
        pids = {other.ok("pid") for _ in range(50)}
        same(len(pids), 1, "workers that go on")
        same(c.all(msgid) if c.grant(msgid, 1) is None else None, (list(range(CREDIT, 40)), 40))


def check_stream_gap():
    gap = 0.3 * SLOWNESS
    with Daemon(STREAM, "workers=1", "stream_gap=%dms" % (gap * 1000), "exec_timeout=20s") as d:
        c = Caller(d)
        pid = c.ok("pid")
        begun = time.monotonic()
        msgid = c.send("chunks", {"n": 9, "stall": 3}, STREAMED)
        same(c.chunks(msgid, 3), [0, 1, 2])
        same(c.name(msgid), ("EXEC_TIMEOUT", "maybe"))
        must(gap <= time.monotonic() - begun < 15, "not by stream_gap")
        same(c.ok("pid"), pid, "it honoured the cancel")
        # the caller is slow, not the worker
        msgid = c.send("chunks", {"n": 50}, STREAMED)
        same(c.chunks(msgid, CREDIT), list(range(CREDIT)))
        must(c.silent(3 * gap), "the worker was blamed for its caller")
        c.grant(msgid, 10)
        same(c.chunks(msgid, 10), list(range(CREDIT, 26)))
        must(c.silent(2 * gap), "the same again")
        c.grant(msgid, 24)
        same(c.chunks(msgid, 24), list(range(26, 50)))
        same(c.answer(msgid), (None, 50))
        # a gap shorter than that is none, however long the whole takes
        pause = {"n": 8, "pause_ms": int(gap * 500)}
        same(c.all(c.send("chunks", pause, STREAMED)), (list(range(8)), 8))
        # requests without a stream do not know of it
        msgid = c.send("late", None)
        must(c.silent(2 * gap), "a gap where there is no stream")
        c.cancel(msgid)
        same(c.name(msgid), ("CANCELLED", "maybe"))


def check_exec_timeout_is_the_total():
    with Daemon(STREAM, "workers=1", "exec_timeout=600ms", "stream_gap=20s") as d:
        c = Caller(d)
        begun = time.monotonic()
        msgid = c.send("chunks", dict(ENDLESS, pause_ms=20), STREAMED)
        n = 0
        while (message := c.next(msgid))[0] == 3:
            same(message[2], n)
            n += 1
            c.grant(msgid, 1)
        same(message[2]["name"], "EXEC_TIMEOUT")
        must(0.6 <= time.monotonic() - begun < 10, "not by exec_timeout")
        must(n > 2, "%d chunks" % n)


def check_cancel_in_mid_stream():
    for lang, command in list(SDK.items()) + [("py", ASYNC["py"][0]), ("node", ASYNC["node"][0])]:
        with Daemon(command, "workers=1", "cancel_grace=10s") as d:
            c = Caller(d)
            pid = c.ok("pid")
            for stalled in (False, True):
                msgid = c.send("stream", 1 << 30, STREAMED)
                same(c.chunks(msgid, CREDIT), list(range(CREDIT)))
                if not stalled:
                    c.grant(msgid, 1000)
                c.cancel(msgid)
                while (message := c.next(msgid))[0] == 3:
                    pass
                same((message[2]["name"], message[2]["executed"]), ("CANCELLED", "maybe"), lang)
                same(c.ok("pid"), pid, lang + ": the worker is kept")
                must(not c.kept[msgid], "something after the answer")


def check_cancel_without_effect():
    """A worker that sends on is heard no more; one that cannot be told goes on."""
    with Daemon(STREAM, "workers=1", "cancel_grace=10s") as d:
        c = Caller(d)
        pid = c.ok("pid")
        msgid = c.send("late", None, STREAMED)
        c.cancel(msgid)
        same(c.name(msgid), ("CANCELLED", "maybe"))
        same(c.ok("pid"), pid)
        must(not c.kept[msgid], "something after the answer")
    with Daemon(STREAM + ["deaf"], "workers=1") as d:
        c = Caller(d)
        msgid = c.send("chunks", {"n": 30}, STREAMED)
        same(c.chunks(msgid, CREDIT), list(range(CREDIT)))
        c.cancel(msgid)
        c.grant(msgid, 14)
        same(c.chunks(msgid, 14), list(range(CREDIT, 30)))
        same(c.answer(msgid), (None, 30), "a worker without the feature")


def gone(policy, command, n):
    """Leave in mid stream; pids of the worker before and after."""
    with Daemon(command, "workers=1", "cancel_grace=10s", "exec_timeout=30s",
                "on_client_gone=" + policy) as d:
        c = Caller(d)
        pid = c.ok("pid")
        gone_c = Caller(d)
        same(gone_c.chunks(gone_c.send("chunks", {"n": n}, STREAMED), CREDIT),
             list(range(CREDIT)))
        gone_c.close()
        begun = time.monotonic()
        after = c.ok("pid", None, {"deadline_ms": 20000})
        must(time.monotonic() - begun < 15, "it waited for the time to be up")
        if pid != after:
            until(lambda: not lives(pid), "the old worker is dead")
        return pid, after


def check_client_gone():
    """ignore: the rest goes to nobody, and the worker needs no credit from him."""
    for policy, command, n, kept in (
            ("ignore", STREAM, 500, True), ("ignore", STREAM + ["deaf"], 500, True),
            ("notify", STREAM, 1 << 30, True), ("notify", STREAM + ["deaf"], 500, True),
            ("kill", STREAM, 1 << 30, True), ("kill", STREAM + ["deaf"], 1 << 30, False)):
        pid, after = gone(policy, command, n)
        same(pid == after, kept, "%s, %s: worker kept" % (policy, command[2:]))


def broken(method, params, meta, before):
    """The worker breaks the rules: it alone is replaced, and its caller alone is told."""
    with Daemon(STREAM, "workers=1", "backoff_min=10ms") as d:
        c, other = Caller(d), Caller(d)
        pid = c.ok("pid")
        msgid = c.send(method, params, meta)
        waiting = other.send("pid", None)
        same(c.chunks(msgid, before), list(range(before)), method)
        same(c.name(msgid), ("PROTOCOL", "maybe"), method)
        error, after = other.answer(waiting)
        same(error, None, method)
        must(pid != after, method + ": the worker lives on")
        must(not lives(pid), method)


def check_chunk_without_asking():
    broken("flood", {"n": 1}, None, 0)
    broken("flood", {"n": 1}, {"stream": False}, 0)


def check_chunk_beyond_credit():
    broken("flood", {"n": CREDIT + 1}, STREAMED, CREDIT)


def check_chunk_of_no_request():
    broken("foreign", 1, STREAMED, 0)


def check_large_chunks():
    with Daemon(STREAM, "workers=1") as d:
        c = Caller(d)
        msgid = c.send("chunks", {"n": 50, "size": MIB}, STREAMED)
        out, result = c.all(msgid)
        same(result, 50)
        same(out, [fill(i, MIB) for i in range(50)], "chunks")


def check_chunk_pool_exhausted():
    """More chunks than there is room for, for one who does not read: he waits, the
    others do not."""
    config = """
conn_inflight_max = 2000
client_write_timeout = "60s"
pool "flood" { command = { "%s", "%s", "512" }
	workers = 1
	queue_max = 1000 }
pool "calm" { command = { "%s", "%s" }
	workers = 1 }
""" % (tuple(STREAM) * 2)
    with Daemon(config=config) as d:
        lazy, c = Caller(d), Caller(d)
        c.ok("calm/echo", 1)
        flood = {"n": CREDIT, "size": 4096}
        ids = [lazy.send("flood/flood", flood, STREAMED) for _ in range(400)]
        # nothing of it is read until the daemon has no room for one chunk more
        until(lambda: is_asleep(d), "urd waits")
        for i in range(300):
            same(c.ok("calm/echo", i, {"deadline_ms": 5000}), i)
        for msgid in ids:
            same(lazy.chunks(msgid, CREDIT), [fill(i, 4096) for i in range(CREDIT)])
            same(lazy.answer(msgid), (None, CREDIT))
        same(c.all(c.send("calm/chunks", {"n": 100}, STREAMED)), (list(range(100)), 100))
        same(c.all(c.send("flood/chunks", {"n": 100}, STREAMED)), (list(range(100)), 100))


def check_credit_while_queued():
    """What is granted before a worker has the request counts as well."""
    with Daemon(STREAM, "workers=1") as d:
        c, holder = Caller(d), Caller(d)
        held = holder.hold()
        msgid = c.send("chunks", {"n": 100}, STREAMED)
        c.grant(msgid, 84)
        same(c.ok("urd.ping", 1), 1)  # the grant was read before it
        holder.let_go(held)
        same(c.chunks(msgid, 100), list(range(100)))
        same(c.answer(msgid), (None, 100))


def check_grants_of_nonsense():
    with Daemon(STREAM, "workers=1") as d:
        c = Caller(d)
        msgid = c.send("chunks", {"n": 2000}, STREAMED)
        for params in ([msgid], [msgid, -1], [msgid, "x"], [msgid + 1, 5], [], None, [msgid, 0],
                       [msgid, 1, 2], {"a": 1}, [msgid, 1.5]):
            c.notify("urd.credit", params)
            c.notify("urd.cancel", params if params != [msgid] else [msgid, 1])
        same(c.chunks(msgid, CREDIT), list(range(CREDIT)))
        same(c.ok("urd.ping", 1), 1)
        must(not c.kept[msgid], "nonsense was credit")
        c.grant(msgid, 1 << 60)  # never more than a window
        got = c.chunks(msgid, 1000)
        c.grant(msgid, 1000)
        got += c.chunks(msgid, 2000 - CREDIT - 1000)
        same(got, list(range(CREDIT, 2000)))
        same(c.answer(msgid), (None, 2000))


# ---- progress ----

def check_progress():
    """Whoever asked for it has all of it, and nobody else any."""
    with Daemon(STREAM, "workers=3") as d:
        asks, mute, other = Caller(d), Caller(d), Caller(d)
        values = [0, "half", {"done": [1, None]}, b"\x00\xff", 1.5]
        first = asks.send("report", values, {"stream": True, "progress": True})
        second = mute.send("report", values, STREAMED)
        third = asks.send("report", ["x"], STREAMED)
        same([asks.next(first) for _ in values],
             [[2, "urd.progress", [first, v]] for v in values])
        for c, msgid, n in ((mute, second, 5), (asks, third, 1), (asks, first, 5)):
            c.grant(msgid, 1)
            same(c.answer(msgid), (None, n))
        same(other.ok("echo", 1), 1)
        same(other.ok("misreport", None, {"progress": True}), None)
        for c in (asks, mute, other):
            same(c.ok("urd.ping", 2), 2)
            must(not any(c.kept.values()), "stray messages: %r" % c.kept)


def check_progress_of_the_sdks():
    """Before the answer, in order; what the answer overtakes may be lost."""
    for lang, command in SDK.items():
        with Daemon(command, "workers=1") as d:
            c = Caller(d)
            msgid = c.send("progress", 50, {"progress": True})
            last = -1
            while (message := c.next(msgid))[0] == 2:
                must(last < message[2][1] < 50, lang)
                last = message[2][1]
            same(message[2:], [None, 50], lang)
            same(c.ok("progress", 50), 50, lang)


# ---- the command ----

def call(d, *args, **kwargs):
    return subprocess.Popen([URD, "call", "-s", d.sock, *args], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def check_call_stream():
    with Daemon(STREAM, "workers=1") as d:
        for args, want in ((["--stream"], 0), (["--stream", "--with-result"], 1)):
            out, err = call(d, *args, "chunks", '{"n": 100}').communicate(timeout=60)
            same(out, "".join("%d\n" % i for i in list(range(100)) + [100] * want), args)
            same(err, "")
        # each line as it comes: the next chunk waits for us to read this one's line
        p = call(d, "--stream", "chunks", '{"n": 3, "stall": 2}')
        same([p.stdout.readline() for _ in range(2)], ["0\n", "1\n"])
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        same((p.returncode, out), (4, ""), err)
        must("CANCELLED" in err, err)
        p = call(d, "--with-result", "chunks", '{"n": 1}')
        same(p.wait(60), 2)
        out, err = call(d, "echo", '{"n": 3}').communicate(timeout=60)
        same(json.loads(out), {"n": 3}, err)


def check_call_progress():
    with Daemon(STREAM, "workers=1") as d:
        for more, line in (([], 'urd: progress: {"at":1}\n'),
                           (["--json-errors"], '{"progress":{"at":1}}\n')):
            p = call(d, "--stream", "--progress", *more, "report", '[{"at": 1}]')
            same(p.stderr.readline(), line)
            p.terminate()
            same(p.wait(60), 4)


def check_call_interrupted():
    """Ctrl-C: the worker hears of it; if it does not, the wait is a second."""
    with Daemon(STREAM, "workers=1", "cancel_grace=10s") as d:
        c = Caller(d)
        pid = c.ok("pid")
        p = call(d, "--stream", "chunks", json.dumps(ENDLESS))
        for i in range(100):
            same(p.stdout.readline(), "%d\n" % i)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        same(p.returncode, 4)
        must("CANCELLED" in err, err)
        same(c.ok("pid"), pid)
        # the reader stands still, and so do we, within a write
        p = call(d, "--stream", "chunks", json.dumps({"n": 1 << 30, "size": 65536}))
        must(select.select([p.stdout], [], [], 20)[0])
        until(lambda: pipe_is_full(p.stdout), "it cannot write on")
        p.send_signal(signal.SIGINT)
        p.wait(20)
        same(p.returncode, 4)
        p.communicate()
        same(c.ok("pid"), pid)
    with Daemon(STREAM + ["deaf"], "workers=2", "exec_timeout=5s") as d:
        p = call(d, "--stream", "chunks", '{"n": 3, "stall": 1}')
        same(p.stdout.readline(), "0\n")
        begun = time.monotonic()
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        must(1 <= time.monotonic() - begun < 10, "a second")
        same(p.returncode, 4)
        must("INTERRUPTED (executed: maybe)" in err, err)
        p = call(d, "--stream", "--progress", "report", "[1]")
        same(p.stderr.readline(), "urd: progress: 1\n")
        d.proc.kill()
        same(p.wait(60) in (4, 5), True, "urd has gone")


def pipe_is_full(pipe):
    """Less than a page is free."""
    waits = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
    return waits > fcntl.fcntl(pipe, F_GETPIPE_SZ) - 2 * 4096


if __name__ == "__main__":
    sys.exit(run([fn for name, fn in list(globals().items()) if name.startswith("check_")]))
