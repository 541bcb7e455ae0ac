#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Workers that come, go and are replaced while requests go on: scaling, reload, and
each reason to replace a worker.

usage: check_recycle.py BUILD_DIR [CHECK]...
"""
import asyncio
import os
import signal
import sys
import time

from looked_after import (ECHO, PYTHON, Daemon, Load, check, error_of, run_checks, stamp, until)
from urd_client import AsyncClient

# --- scale and reload ----------------------------------------------------------

def check_scale(folder):
    with Daemon(folder, [ECHO], min_workers=1, max_workers=5) as d:
        d.ready(1)
        check("urd.scale up", d.admin.call("urd.scale", ["default", 4]) == 4)
        d.ready(4)
        check("four workers", len(d.pids("IDLE")) == 4, d.workers())
        check("urd.scale down", d.admin.call("urd.scale", ["default", 1]) == 1)
        d.log.wait("reason: scaled down", 3)
        check("one worker", len(d.workers()) == 1, d.workers())
        check("at most max_workers", d.admin.call("urd.scale", ["default", 2**40]) == 5)
        d.ready(8)
        p = d.pool()
        check("it is the new minimum", (p["min_workers"], p["want"], p["ready"]) == (5, 5, 5), p)
        with Load(d) as load:
            for n in (1, 5, 2, 4, 1):
                mark = d.mark()
                before = d.pool()["want"]
                d.admin.call("urd.scale", ["default", n])
                if n > before:
                    d.ready(n - before, mark)
                else:
                    d.log.wait("reason: scaled down", before - n, mark)
        check("no error while scaling under load", not load.errors and load.done > 0,
              load.errors[:3])


def check_scale_busy(folder):
    with Daemon(folder, [ECHO], min_workers=4, max_workers=4, scale_after="off") as d:
        d.ready(4)
        with Load(d, 12, "sleep", {"ms": 20}) as load:
            until(d, lambda p: p["queued"] >= 4, lambda p: None)
            d.admin.call("urd.scale", ["default", 1])
            d.log.wait("worker ended: exit status 0; reason: scaled down", 3)
        check("scale down, though no worker is ever idle", d.pool()["ready"] == 1)
        check("and without an error", not load.errors and load.done > 0, load.errors[:3])


def reload_all(d, n, order):
    old, mark = d.pids(), d.mark()
    with Load(d) as load:
        count = order()
        d.log.wait("reason: reload", n, mark)
        until(d, lambda p: p["ready"] == n and p["states"]["STOPPING"] == 0, lambda p: None)
    return count, old & d.pids(), load


def check_reload(folder):
    with Daemon(folder, [ECHO], workers=3) as d:
        d.ready(3)
        for name, order in (("urd.reload", lambda: d.admin.call("urd.reload")),
                            ("urd.reload POOL", lambda: d.admin.call("urd.reload", "default")),
                            ("SIGHUP", lambda: d.proc.send_signal(signal.SIGHUP) or 3)):
            count, left, load = reload_all(d, 3, order)
            check(name + " replaces every worker", count == 3 and not left, (count, left))
            check(name + " without an error", not load.errors and load.done > 0, load.errors[:3])
        check("reload is counted", d.pool()["exits_by"]["reload"] == 9)
        mark = d.mark()
        check("urd.recycle POOL", d.admin.call("urd.recycle", ["default"]) == 3)
        d.log.wait("asked by the operator", 3, mark)


def check_broken_reload(folder):
    flag = os.path.join(folder, "broken")
    with Daemon(folder, [PYTHON, "worker.py"], workers=2, backoff_min="20ms",
                backoff_max="50ms") as d:
        d.ready(2)
        old = d.pids("IDLE")
        open(flag, "w").close()
        mark = d.mark()
        with Load(d, 2) as load:
            d.admin.call("urd.reload")
            d.log.wait("worker ended: exit status 1; reason: boot failed", 5, mark)
        check("new workers fail, callers see nothing", not load.errors and load.done > 0,
              load.errors[:3])
        kept = [w for w in d.workers() if w["pid"] in old]
        check("old workers stay", len(kept) == 2 and {w["leaving"] for w in kept} == {"reload"},
              d.workers())
        check("the pool has not failed", not d.pool()["failed"])
        os.unlink(flag)
        d.log.wait("reason: reload", 2, mark)
        until(d, lambda p: p["ready"] == 2, lambda p: None)
        check("mended, they are replaced", not old & d.pids())


def check_surge(folder):
    for surge, recycle, lowest in ((0, 1, 3), (0, 2, 2), (1, 1, 4), (1, 4, 4), (2, 2, 4)):
        with Daemon(folder, [ECHO], workers=4, max_surge=surge, recycle_max=recycle) as d:
            d.ready(4)
            seen = []
            d.admin.call("urd.reload")
            until(d, lambda p: p["exits_by"]["reload"] == 4 and p["ready"] == 4, seen.append)
            name = "max_surge=%d, recycle_max=%d" % (surge, recycle)
            ready = [p["ready"] for p in seen]
            check(name + ": never too few", min(ready) >= lowest, ready)
            both = [p["ready"] + p["states"]["SPAWNING"] + p["states"]["BOOTING"] for p in seen]
            check(name + ": never too many", max(both) <= 4 + surge, both)


async def burst(path, n, ms):
    """Slow requests, all at once: answers, and when the first went out."""
    async with AsyncClient(path) as client:
        await client.call("echo", 1)  # connected
        begun = time.time()
        got = await asyncio.gather(*(client.call("sleep", {"ms": ms}) for _ in range(n)),
                                   return_exceptions=True)
        return got, begun


def check_autoscale(folder):
    with Daemon(folder, [ECHO], min_workers=1, max_workers=8, scale_after="50ms",
                idle_timeout="300ms") as d:
        d.ready(1)
        got, begun = asyncio.run(burst(d.path, 10, 300))
        check("a burst of ten times the minimum has no error", got == ["slept"] * 10, got)
        grown = d.log.wait("scaling from 1 to ")[0]
        after_ms = (stamp(grown) - begun) * 1000
        check("the pool grows after scale_after", 48 <= after_ms <= 150, after_ms)
        spawns = d.pool()["spawns"]
        check("to no more than max_workers", 2 <= spawns <= 8, spawns)
        d.log.wait("reason: idle_timeout", spawns - 1)
        p = d.pool()
        check("and shrinks to the minimum", (p["want"], len(d.workers())) == (1, 1), p)
        check("shrinking is counted", p["exits_by"]["idle"] == spawns - 1, p["exits_by"])
        # the first was idle 300 ms after the first request went out, at the earliest
        left_ms = (stamp(d.log.wait("reason: idle_timeout")[0]) - begun) * 1000
        check("not before idle_timeout", left_ms >= 598, left_ms)
        check("it still serves", d.client.call("echo", 2) == 2)
    with Daemon(folder, [ECHO], min_workers=1, max_workers=8, scale_after="off") as d:
        got, _ = asyncio.run(burst(d.path, 4, 100))
        check("scale_after=off: none is started", got == ["slept"] * 4 and
              d.pool()["spawns"] == 1, got)


# --- reasons to be replaced ----------------------------------------------------

def check_ttl(folder):
    with Daemon(folder, [ECHO], workers=1, ttl="500ms", jitter=0) as d:
        ready = d.log.wait("worker ready after (\\d+) ms")[0]
        ended = d.log.wait("worker ended: exit status 0; reason: ttl")[0]
        age = stamp(ended) - stamp(ready) + int(ready[1]) / 1000
        check("ttl: replaced at that age, though idle", 0.49 <= age <= 1.5, age)
        mine = d.mark()
        d.log.wait("reason: ttl", 2)
        check("ttl: and the next one too", d.client.call("echo", mine) == mine)


def check_max_jobs(folder):
    with Daemon(folder, [ECHO], workers=1, max_jobs=5, jitter=0) as d:
        pids = [d.client.call("pid") for _ in range(23)]
        counts = [pids.count(p) for p in dict.fromkeys(pids)]
        check("max_jobs: exactly so many", counts == [5, 5, 5, 5, 3], counts)
    with Daemon(folder, [ECHO], workers=4, max_jobs=7, jitter=0, recycle_max=4) as d:
        d.ready(4)
        with Load(d) as load:
            d.log.wait("reason: max_jobs", 40)
        served = [int(m[1]) for m in d.log.matches("reason: max_jobs; served (\\d+)")]
        check("max_jobs: exactly so many under load", set(served) == {7}, served)
        check("max_jobs: without an error", not load.errors and load.done > 0, load.errors[:3])
        check("max_jobs: no overrun", d.pool()["overruns"] == 0)
    with Daemon(folder, [ECHO], workers=1, max_jobs=20, jitter=50, max_surge=0) as d:
        with Load(d, 1) as load:
            d.log.wait("reason: max_jobs", 20)
        served = [int(m[1]) for m in d.log.matches("reason: max_jobs; served (\\d+)")]
        check("jitter: shortened by half at most", 10 <= min(served) and max(served) <= 20, served)
        check("jitter: not all alike", len(set(served)) > 1, served)
        check("jitter: without an error", not load.errors and load.done > 0, load.errors[:3])


def check_memory(folder):
    command = [PYTHON, "worker.py"]
    with Daemon(folder, command, workers=1, memory_soft="64MiB") as d:
        d.ready(1)
        (pid,) = d.pids()
        d.client.call("echo", 1)
        check("memory_soft: a lean worker stays", d.pool()["exits"] == 0 and
              d.workers()[0]["leaving"] is None)
        check("memory_soft: the request is answered", d.client.call("grow", {"mib": 80}) is None)
        ended = d.log.wait("pid=(\\d+): worker ended: exit status 0; reason: memory_soft")[0]
        check("memory_soft: then it is replaced", int(ended[1]) == pid and
              d.client.call("echo", 1) == 1)
    with Daemon(folder, command, workers=1, memory_soft="1MiB") as d:
        d.log.wait("which is above memory_soft")
        for i in range(5):
            d.client.call("echo", i)
        check("memory_soft: no spin if it begins above", d.pool()["exits"] == 0 and
              d.workers()[0]["leaving"] is None)
    with Daemon(folder, command, workers=1, memory_hard="100MiB") as d:
        d.ready(1)
        e = error_of(d.client.call, "grow", {"mib": 150, "hold": 60})
        check("memory_hard: killed in its request", e and e.name == "WORKER_DIED" and
              "memory_hard" in e.detail, e and e.detail)
        check("memory_hard: another one serves", d.client.call("echo", 3) == 3)
        check("memory_hard: counted", d.pool()["exits_by"]["memory_hard"] == 1)


def check_heartbeat(folder):
    with Daemon(folder, [PYTHON, "worker.py"], workers=1, heartbeat_timeout="300ms") as d:
        d.ready(1)
        check("heartbeat: who beats may take longer",
              d.client.call("beats", {"s": 0.9}) == "beaten")
        begun = time.monotonic()
        e = error_of(d.client.call, "grow", {"mib": 0, "hold": 60})
        took = time.monotonic() - begun
        check("heartbeat: who does not is killed", e and e.name == "WORKER_DIED" and
              "heartbeat_timeout" in e.detail and 0.29 <= took < 5, (e and e.detail, took))
        d.ready(2)
        mark = d.mark()
        check("heartbeat: idle workers need not beat", d.client.call("echo", 4) == 4 and
              not d.log.matches("worker ended", mark))


def check_retire(folder):
    with Daemon(folder, [ECHO], workers=1) as d:
        first = d.client.call("pid")
        check("its own wish: the request is answered", d.client.call("retire") is None)
        ended = d.log.wait("pid=(\\d+): worker ended: exit status 0; reason: its own wish")[0]
        check("its own wish: it is replaced", int(ended[1]) == first and
              d.client.call("pid") != first)


if __name__ == "__main__":
    sys.exit(run_checks([check_scale, check_scale_busy, check_reload, check_broken_reload,
                         check_surge, check_autoscale, check_ttl, check_max_jobs, check_memory,
                         check_heartbeat, check_retire]))
