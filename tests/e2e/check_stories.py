#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Stories of pools that failed elsewhere, and weaknesses of folk 0.1 that no other
test is named after: each check tells what must be true instead.

usage: check_stories.py BUILD_DIR [CHECK...]
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

from daemon import (BAD, SLOWNESS, Daemon, lives, must, run, same, until)  # noqa: E402
from watched import STORM, Load, Watched, clean, outcomes  # noqa: E402

SOON = 0.5 * SLOWNESS
PROTOCOLS = ("protocol=folk", "protocol=urd")


def inflight(d, n):
    until(lambda: d.pool()["inflight"] == n, "%d requests are with workers" % n)


def pids_that_serve(d, n):
    """The pids that answer n requests at once, in which each worker is busy."""
    client = d.client()
    for _ in range(n):
        client.send("slow", 100)
    inflight(d, n)
    busy = {w["pid"] for w in d.all_workers() if w["inflight"]}
    same([client.recv()[2] for _ in range(n)], [None] * n)
    return busy


# --- weaknesses ----------------------------------------------------------------

def check_f07_waiting_takes_nothing_from_idle_workers():
    """Nine or fewer workers, as many requests as there are permits elsewhere."""
    for protocol in PROTOCOLS:
        with Watched([BAD, "ok"], "workers=4", protocol, "exec_timeout=20s") as d:
            d.ready(4)
            slow, client = d.client(), d.client()
            for _ in range(3):
                slow.send("hang")
            inflight(d, 3)
            begun = time.monotonic()
            for i in range(200):
                client.send("echo", i)
            same([client.recv()[3] for _ in range(200)], list(range(200)), protocol)
            must(time.monotonic() - begun < SOON * 2, "they waited for the slow ones")
            same(d.pool()["inflight"], 3)
            for w in d.all_workers():
                if w["inflight"]:
                    d.admin.ok("urd.kill", [w["pid"]])


def check_f08_who_gives_up_leaves_nothing_behind():
    for protocol in PROTOCOLS:
        with Watched([BAD, "ok"], "workers=1", protocol, "exec_timeout=20s") as d:
            d.ready(1)
            first, second, third = d.client(), d.client(), d.client()
            pid = first.ok("pid")
            first.send("slow", 400 * SLOWNESS)
            inflight(d, 1)
            # these two never reach a worker: one is cancelled, of one the caller leaves
            cancelled = second.send("exit", 1)
            second.notify("urd.cancel", [cancelled])
            error, _ = second.answer(cancelled)
            same((error["name"], error["executed"]), ("CANCELLED", "no"))
            third.send("exit", 1)
            until(lambda: d.pool()["queued"] == 1, "it waits")
            third.close()
            until(lambda: d.pool()["queued"] == 0, "it is withdrawn")
            # the caller of the running one leaves: its worker is busy all the same
            first.close()
            until(lambda: d.status()["connections"] == 1, "it is gone")
            begun = time.monotonic()
            msgid = second.send("pid")
            until(lambda: d.pool()["queued"] == 1, "the next waits, though nobody does for "
                  "the one that runs")
            same(d.pool()["inflight"], 1)
            same(second.answer(msgid), (None, pid))
            must(time.monotonic() - begun > 0.05, "it did not wait")
            same(d.all_workers()[0]["given"], 3, "requests given to the worker")


def check_f15_no_gap_while_a_worker_is_replaced():
    """One worker, slow to start, is replaced again and again: nobody waits for a start."""
    boot_ms, longest = 400, 0
    with Watched([STORM, "-b", str(boot_ms)], "workers=1", "ttl=900ms", "jitter=0") as d:
        d.ready(1)
        client = d.client()
        while d.pool()["exits_by"]["ttl"] < 2:
            begun = time.monotonic()
            client.ok("echo", 1)
            longest = max(longest, time.monotonic() - begun)
            must(d.pool()["ready"] >= 1, "none is ready")
    must(longest < boot_ms / 1000 * 0.7, "a request took %.3f s" % longest)
    return "longest request %.1f ms, a start takes %d ms" % (longest * 1000, boot_ms)


def check_f17_failed_starts_are_told_and_do_not_hold_up_a_stop():
    for how, state in (("exit", "BACKOFF"), ("never", "BOOTING")):
        for protocol in PROTOCOLS:
            with Watched([BAD, how, "3"], "workers=2", protocol, "backoff_min=20s",
                         "backoff_max=20s", "boot_timeout=20s", "stop_timeout=300ms") as d:
                until(lambda: d.pool()["states"][state] == 2, state)
                client = d.client()
                if how == "never":
                    client.send("echo", 1)  # waits for a worker, and must not be waited for
                    until(lambda: d.pool()["queued"] == 1, "it waits")
                begun = time.monotonic()
                d.proc.send_signal(signal.SIGTERM)
                if how == "never":
                    # a second one hurries: what waits is not waited for
                    until(lambda: not os.path.exists(d.sock), "urd drains")
                    d.proc.send_signal(signal.SIGTERM)
                d.wait()
                must(time.monotonic() - begun < 2 * SLOWNESS, "%s: the stop took %.2f s" % (
                    how, time.monotonic() - begun))
                same(d.proc.returncode, 0)


def check_f23_no_place_is_lost_for_good():
    """Whatever ended its workers, each of four places has one again and uses it."""
    for protocol in PROTOCOLS:
        with Watched([BAD, "ok"], "workers=4", protocol, "exec_timeout=150ms",
                     "cancel_grace=50ms", "stop_timeout=100ms", "backoff_min=5ms") as d:
            d.ready(4)
            for method in ("exit", "garbage", "foreign", "half", "hang", "close", "oversize"):
                old = set(d.workers())
                client = d.client()
                for _ in range(4):
                    client.send(method, 1)
                same([client.recv()[2] is not None for _ in range(4)], [True] * 4, method)
                until(lambda: d.pool()["states"]["IDLE"] == 4 and not old & set(d.workers()),
                      "four new workers after " + method)
                client.close()
            same(len(pids_that_serve(d, 4)), 4, protocol)
            same([d.client().ok("echo", i) for i in range(100)], list(range(100)))


def check_f26_what_was_not_sent_goes_to_another_worker():
    """A worker that is ready but reads no more is found out by a write of no byte."""
    for n in (1, 3):
        with Watched([STORM], "workers=%d" % n, "backoff_min=10ms", "queue_timeout=20s") as d:
            d.ready(n)
            client = d.client()
            for i in range(1, 6):
                shut = set(d.workers())
                client.ok("shut", i)
                for k in range(n):
                    same(client.ok("echo", [i, k]), [i, k])
                until(lambda: d.pool()["states"]["IDLE"] == n and shut - set(d.workers()),
                      "another worker")
            p = d.pool()
            same(outcomes(p), {"OK": 5 + 5 * n})
            same(p["retried"], 5, "retried")
    return "5 of 5 given to another worker"


def check_f28_only_what_was_sent_counts_as_a_job():
    with Watched([STORM, "-w", "100000"], "workers=1", "queue_max=1", "max_jobs=5", "jitter=0",
                 "queue_timeout=20s") as d:
        d.ready(1)
        client = d.client()
        for _ in range(2):
            running = client.send("echo", "runs")
            inflight(d, 1)
            queued = client.send("echo", "waits")
            until(lambda: d.pool()["queued"] == 1, "one waits")
            busy = [client.send("echo", i) for i in range(20)]
            for msgid in busy:
                same(client.answer(msgid)[0]["name"], "BUSY")
            client.send("echo", "late", {"deadline_ms": 0})
            same(client.recv()[2]["name"], "QUEUE_TIMEOUT")
            same(client.answer(running), (None, "runs"))
            same(client.answer(queued), (None, "waits"))
        (w,) = d.all_workers()
        same((w["given"], w["served"]), (4, 4), "jobs of the worker")
        same(d.pool()["outcomes"]["BUSY"], 40)
        same(d.pool()["outcomes"]["QUEUE_TIMEOUT"], 2)
        first = client.ok("pid")  # its fifth, and last
        until(lambda: d.pool()["exits_by"]["max_jobs"] == 1, "it is replaced after five")
        must(client.ok("pid") != first)


def check_f30_admin_socket_listens_to_what_is_said():
    with Watched([STORM], "min_workers=1", "max_workers=4") as d:
        d.ready(1)
        same(d.admin.ok("urd.scale", ["default", 3]), 3, "params are passed")
        d.ready(3)
        codes = {d.admin.call(method, params)[0]["name"] for method, params in (
            ("urd.scale", ["nobody", 3]), ("urd.scale", ["default"]), ("nobody/echo", 1))}
        codes.add(d.client().fails("BAD_REQUEST", "urd.scale", ["default", 1])["name"])
        same(codes, {"NO_POOL", "BAD_REQUEST"})
        numbers = {d.admin.call("urd.scale", params)[0]["code"] for params in (["nobody", 3], [])}
        same(len(numbers), 2, "codes are distinct")
        # notifications are silent: the next answer is the one to the next request
        d.admin.notify("urd.status", [])
        d.admin.notify("urd.nothing", None)
        same(d.admin.ok("urd.ping", "next"), "next")
        # one who lives there is not thrown out
        other = Daemon([STORM], "@admin=unix:" + d.admin_sock, wait=False)
        try:
            must(other.wait() != 0)
            must("in use" in other.text(), other.text())
        finally:
            other.destroy()
        same(d.admin.ok("urd.ping", "still there"), "still there")
        same(d.connect_admin().ok("urd.ping", 1), 1)


TRACER = """
import ctypes, sys
seize, pid = 0x4206, int(sys.argv[1])
print("on" if ctypes.CDLL(None).ptrace(seize, pid, None, None) == 0 else "off", flush=True)
sys.stdin.read()
"""


def check_death_of_a_worker_that_is_traced():
    """Somebody looks at a worker with a debugger; it dies, and he does not let go."""
    with Watched([BAD, "ok"], "workers=1", "backoff_min=10ms") as d:
        d.ready(1)
        client = d.client()
        pid = client.ok("pid")
        with subprocess.Popen([sys.executable, "-c", TRACER, str(pid)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as tracer:
            if tracer.stdout.readline() != b"on\n":
                tracer.stdin.close()
                return "SKIPPED: processes cannot be traced here"
            os.kill(pid, signal.SIGKILL)
            until(lambda: d.pool()["exits"] == 1, "its death is seen")
            must(client.ok("pid") != pid)
            tracer.stdin.close()
        same(client.ok("echo", "on"), "on")
    return None


# --- stories -------------------------------------------------------------------

def check_story04_a_crash_is_nobody_elses():
    sigs = (signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGFPE, signal.SIGBUS)
    with Watched([BAD, "ok"], "workers=5", "exec_timeout=20s", "rlimit_core=0B") as d:
        d.ready(5)
        for n, sig in enumerate(sigs, 1):
            slow, client = d.client(), d.client()
            ids = [slow.send("slow", 150 * SLOWNESS) for _ in range(4)]
            inflight(d, 4)
            before = set(d.workers())
            error = client.fails("WORKER_DIED", "signal", int(sig))
            must("signal %d" % sig in error["detail"], error)
            same(sorted(slow.recv()[:3] for _ in ids), [[1, i, None] for i in ids], sig.name)
            d.ready(5)
            same(len(before & set(d.workers())), 4, "workers that stayed")
            same(d.pool()["spawns"], 5 + n, "one start for one crash")


def check_story08_output_that_nobody_takes_blocks_nothing():
    """Workers print at every step, and whoever reads urd's log has stopped doing so."""
    reader, writer = os.pipe()
    try:
        with Watched([BAD, "flood"], "workers=2", "exec_timeout=20s",
                     prefix=("/bin/sh", "-c", "exec \"$@\" 2>/proc/%d/fd/%d" % (
                         os.getpid(), writer), "sh")) as d:
            d.ready(2)
            client = d.client()
            for i in range(5):
                same(client.ok("flood", i), i)
            begun = time.monotonic()
            same([client.ok("echo", i) for i in range(100)], list(range(100)))
            must(time.monotonic() - begun < SOON * 2, "slow")
            client.fails("WORKER_DIED", "floodexit")
            same(client.ok("echo", "on"), "on")
            d.ready(2)
            # the log ends with urd, which does not wait for its reader for ever
            d.stop()
    finally:
        os.close(reader)
        os.close(writer)


def check_story14_a_dead_pool_says_so_at_once():
    flag = "/tmp/urd-e2e-story-%d" % os.getpid()
    try:
        with Watched([BAD, "missing", flag], "workers=2", "backoff_min=20ms",
                     "backoff_max=100ms") as d:
            until(lambda: d.pool()["failed"], "the pool has failed")
            same(d.pool()["ready"], 0)
            d.client().fails("POOL_FAILED", "echo", 1)
            open(flag, "w").close()
            until(lambda: not d.pool()["failed"], "it has recovered")
            same(d.client().ok("echo", 1), 1)
            d.ready(2)
    finally:
        if os.path.exists(flag):
            os.unlink(flag)


def check_story18_a_backlog_does_not_outlast_the_stall():
    with Watched([BAD, "ok"], "workers=2", "exec_timeout=20s", "queue_timeout=20s") as d:
        d.ready(2)
        stall, crowd, fresh = d.client(), d.client(), d.client()
        for _ in range(2):
            stall.send("slow", 1000 * SLOWNESS)
        inflight(d, 2)
        for i in range(60):
            crowd.send("slow", 300, {"deadline_ms": 200})
        for _ in range(60):
            error = crowd.recv()[2]
            same((error["name"], error["executed"]), ("QUEUE_TIMEOUT", "no"))
        same([stall.recv()[2] for _ in range(2)], [None, None])
        begun = time.monotonic()
        for i in range(50):
            same(fresh.ok("echo", i, {"deadline_ms": 1000 * SLOWNESS}), i)
        must(time.monotonic() - begun < 1 * SLOWNESS, "recovery took its time")
        same(sum(w["given"] for w in d.all_workers()), 52, "requests that reached a worker")


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
/* The wall clock jumps by an hour and back, with each look at it. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	static int (*real)(clockid_t, struct timespec *);
	static _Atomic unsigned int looks;
	int ret;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	ret = real(id, ts);
	if (id == CLOCK_REALTIME)
		ts->tv_sec += looks++ % 2 ? 3600 : -3600;
	return ret;
}
"""


def check_story21_the_wall_clock_may_jump():
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or SLOWNESS > 1:
        return "SKIPPED: needs a compiler, and a build without sanitizers"
    with Watched([BAD, "ok"], wait=False) as spare:
        shim = spare.path("shim.so")
        got = subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, "-xc", "-", "-ldl"],
                             input=SHIM.encode(), stderr=subprocess.PIPE)
        must(got.returncode == 0, got.stderr.decode())
        with Watched([STORM, "-w", "2000"], "workers=4", "exec_timeout=500ms", "ttl=30m",
                     "queue_timeout=500ms", "heartbeat_timeout=5s", "idle_timeout=10m",
                     prefix=("env", "LD_PRELOAD=" + shim)) as d:
            d.ready(4)
            pids = set(d.workers())
            clean(Load(d, "-c", 4, "-p", 2, "-t", 1).result())
            hours = {m[1] for m in re.finditer(r"T(\d\d):", d.text())}
            must(len(hours) >= 2, "the clock of the log did not jump: %r" % hours)
            same(set(d.workers()), pids, "workers")
            same(d.pool()["exits"], 0)
            # and the time that counts goes on
            begun = time.monotonic()
            os.kill(min(pids), signal.SIGSTOP)
            client = d.client()
            for i in range(4):
                client.send("echo", i)
            same(sum(client.recv()[2] is not None for _ in range(4)), 1, "timeouts")
            must(0.5 <= time.monotonic() - begun < 0.5 + SOON, "not by exec_timeout")
    return None


def check_story22_a_reload_does_not_wait_for_who_hangs():
    with Watched([BAD, "stubborn"], "workers=3", "exec_timeout=1s", "cancel_grace=100ms",
                 "stop_timeout=200ms") as d:
        d.ready(3)
        old = set(d.workers())
        hung, client = d.client(), d.client()
        hung.send("hang")
        inflight(d, 1)
        begun = time.monotonic()
        d.admin.ok("urd.reload")
        until(lambda: len(old & set(d.workers())) == 1, "the others are new")
        must(lives(min(old & set(d.workers()))))
        same(client.ok("echo", 1), 1)
        same(hung.recv()[2]["name"], "EXEC_TIMEOUT")
        until(lambda: not old & set(d.workers()) and d.pool()["ready"] == 3, "all are new")
        must(time.monotonic() - begun < 1 + 0.1 + 0.2 + 2 * SLOWNESS, "it took its time")
        same(len(pids_that_serve(d, 3)), 3, "the load is on all of them")


def check_story25_a_signal_to_the_whole_group_cuts_nothing():
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with Watched([BAD, "ok"], "workers=2", "exec_timeout=20s", prefix=("setsid",)) as d:
            d.ready(2)
            same(os.getpgid(d.pid), d.pid)
            client = d.client()
            msgid = client.send("slow", 400 * SLOWNESS)
            inflight(d, 1)
            os.killpg(d.pid, sig)
            same(client.answer(msgid), (None, 400 * SLOWNESS), sig.name)
            if sig == signal.SIGHUP:
                d.proc.send_signal(signal.SIGTERM)
            same(d.wait(), 0, sig.name)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]

if __name__ == "__main__":
    sys.exit(run(CHECKS))
