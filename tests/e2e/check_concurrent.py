#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Workers with several requests at once, deadlines, and cancelling.

usage: check_concurrent.py BUILD_DIR [CHECK...]
"""

import os
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from caller import ASYNC, MIB, SDK, STREAM, STREAMED, Caller  # noqa: E402
from daemon import Daemon, must, run, same, until  # noqa: E402


# ---- concurrent workers ----

def concurrent(lang, *sets):
    command, method = ASYNC[lang]
    return Daemon(command, "backoff_min=10ms", *sets), method


def check_four_at_once():
    for lang in ASYNC:
        d, method = concurrent(lang, "workers=1")
        with d:
            c = Caller(d)
            c.ok("pid")
            begun = time.monotonic()
            ids = [c.send(method, {"ms": 400}) for _ in range(4)]
            for msgid in ids:
                same(c.answer(msgid), (None, "slept"), lang)
            took = time.monotonic() - begun
            must(0.4 <= took < 1.2, "%s: %.2f s" % (lang, took))
            # the later, the shorter: answers come from the last to the first
            ids = [c.send(method, {"ms": 900 - 200 * i}) for i in range(4)]
            same([c.recv()[1] for _ in ids], ids[::-1], lang)
            # a fifth waits for one of the four
            ids = [c.send(method, {"ms": 300}) for _ in range(5)]
            last = [c.recv()[1] for _ in ids][-1]
            same(last, ids[4], lang)


def check_deadline_of_each():
    for lang in ASYNC:
        d, method = concurrent(lang, "workers=1", "cancel_grace=10s")
        with d:
            c = Caller(d)
            pid = c.ok("pid")
            begun = time.monotonic()
            ids = [c.send(method, {"ms": 800}) for _ in range(3)]
            due = c.send(method, {"ms": 60000}, {"deadline_ms": 200})
            same(c.name(due), ("EXEC_TIMEOUT", "maybe"), lang)
            must(0.2 <= time.monotonic() - begun < 0.8, lang + ": not by its own deadline")
            for msgid in ids:
                same(c.answer(msgid), (None, "slept"), lang)
            same(c.ok("pid"), pid, lang + ": the worker is kept")


def check_death_of_a_concurrent_worker():
    """It takes its own requests with it, no other's, and none that waits."""
    for lang in ASYNC:
        d, method = concurrent(lang, "workers=2")
        with d:
            c = Caller(d)
            until(lambda: len({c.ok("pid") for _ in range(1)} | set(d.workers())) == 2,
                  "both workers")
            until(lambda: d.text().count("worker ready") == 2, "both are ready")
            ids = [c.send(method, {"ms": 1500}) for _ in range(7)]
            die = c.send("die")
            waits = c.send("echo", "later")
            outcomes = [c.answer(msgid) for msgid in ids + [die]]
            lost = [e for e, _ in outcomes if e is not None]
            same(len(lost), 4, lang + ": lost")
            same({(e["name"], e["executed"]) for e in lost}, {("WORKER_DIED", "maybe")}, lang)
            same([r for e, r in outcomes if e is None], ["slept"] * 4, lang)
            same(c.answer(waits), (None, "later"), lang)


def check_cancel_one_of_four():
    for lang in ASYNC:
        d, method = concurrent(lang, "workers=1", "cancel_grace=10s")
        with d:
            c = Caller(d)
            pid = c.ok("pid")
            ids = [c.send(method, {"ms": 700}) for _ in range(3)]
            stop = c.send(method, {"ms": 60000})
            c.cancel(stop)
            same(c.name(stop)[0], "CANCELLED", lang)
            for msgid in ids:
                same(c.answer(msgid), (None, "slept"), lang)
            same(c.ok("pid"), pid, lang)


# ---- deadlines and cancelling ----

def check_deadline_that_the_worker_sees():
    for lang, command in SDK.items():
        with Daemon(command, "workers=1", "exec_timeout=5s") as d:
            c, busy = Caller(d), Caller(d)
            for meta, least, most in ((None, 2000, 5000), ({"deadline_ms": 60000}, 2000, 5000),
                                      ({"deadline_ms": 1500}, 1, 1500)):
                left = c.ok("meta", None, meta)["deadline"]
                must(least <= left <= most, "%s: %r for %r" % (lang, left, meta))
            held = busy.send("sleep", {"ms": 500})
            msgid = c.send("meta", None, {"deadline_ms": 4000})
            same(busy.answer(held), (None, "slept"))
            left = c.answer(msgid)[1]["deadline"]
            must(left <= 3600, "%s: %r left after it had waited" % (lang, left))


def check_deadline_wins_if_shorter():
    for lang, command in SDK.items():
        with Daemon(command, "workers=1", "exec_timeout=30s", "cancel_grace=10s") as d:
            c = Caller(d)
            pid = c.ok("pid")
            begun = time.monotonic()
            same(c.name(c.send("sleep", {"ms": 20000}, {"deadline_ms": 300})),
                 ("EXEC_TIMEOUT", "maybe"), lang)
            must(0.3 <= time.monotonic() - begun < 8, lang)
            same(c.ok("pid"), pid, lang + ": it heard of the cancel")
    with Daemon(SDK["py"], "workers=1", "exec_timeout=300ms", "cancel_grace=10s") as d:
        c = Caller(d)
        begun = time.monotonic()
        same(c.name(c.send("sleep", {"ms": 20000}, {"deadline_ms": 15000}))[0], "EXEC_TIMEOUT")
        must(0.3 <= time.monotonic() - begun < 8)


def check_expired_requests_reach_no_worker():
    with Daemon(STREAM, "workers=1") as d:
        c, holder = Caller(d), Caller(d)
        held = holder.hold()
        ids = [c.send("note", i, {"deadline_ms": 100}) for i in range(20)]
        for msgid in ids:
            same(c.name(msgid), ("QUEUE_TIMEOUT", "no"))
        same(c.name(c.send("note", "at once", {"deadline_ms": 0})), ("QUEUE_TIMEOUT", "no"))
        holder.let_go(held)
        same(c.name(c.send("note", "free worker", {"deadline_ms": 0})), ("QUEUE_TIMEOUT", "no"))
        same(c.ok("note", "in time", {"deadline_ms": 10000}), "in time")
        same(c.ok("seen"), ["in time"])


def check_cancel_of_queued_and_running():
    with Daemon(STREAM, "workers=1", "cancel_grace=10s") as d:
        c, other = Caller(d), Caller(d)
        pid = c.ok("pid")
        other.ok("pid")
        same(c.msgid, other.msgid)
        # the same number on both connections: one runs, the other waits
        running, queued = c.hold(), other.send("note", "queued")
        same(running, queued)
        mine = c.send("note", "mine")
        other.cancel(queued)
        same(other.name(queued), ("CANCELLED", "no"))
        c.cancel(mine)
        same(c.name(mine), ("CANCELLED", "no"))
        other.cancel(queued)  # answered: of no effect on anybody
        other.cancel(running)
        same(other.ok("urd.ping", 1), 1)
        must(not c.kept[running], "another's request was cancelled")
        c.let_go(running)
        running = c.hold()
        c.cancel(running)
        same(c.name(running), ("CANCELLED", "maybe"))
        same(c.ok("seen"), [])
        same(c.ok("pid"), pid)


def check_cancel_twice_is_answered_once():
    with Daemon(STREAM, "workers=1", "cancel_grace=10s") as d:
        c = Caller(d)
        pid = c.ok("pid")
        msgid = c.hold()
        for _ in range(5):
            c.cancel(msgid)
        same(c.name(msgid), ("CANCELLED", "maybe"))
        same(c.ok("pid"), pid)
        must(not c.kept[msgid], "a second answer")


def check_large_both_ways():
    """Requests of 16 MiB and answers of 64 MiB at the same time."""
    request, response = 16 * MIB - 64, 64 * MIB - 64
    wrong = []

    def go(d, method, params, want):
        try:
            c = Caller(d)
            for _ in range(2):
                result = c.ok(method, params)
                must(result == want, "%s: %d bytes" % (method, len(result)))
            c.close()
        except Exception as exc:
            wrong.append(exc)

    with Daemon(STREAM, "workers=4", "queue_max_bytes=1GiB") as d:
        c = Caller(d)
        threads = []
        for i in range(2):
            params = bytes([i + 1]) * request
            threads.append(threading.Thread(target=go, args=(d, "echo", params, params)))
            threads.append(threading.Thread(target=go, args=(d, "zeros", response,
                                                             bytes(response))))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            same(c.ok("urd.ping", 1), 1)
            threads[0].join(0.05)
            threads = [t for t in threads if t.is_alive()] or threads
        must(not wrong, wrong)
        same(c.ok("echo", "after it"), "after it")


if __name__ == "__main__":
    sys.exit(run([fn for name, fn in list(globals().items()) if name.startswith("check_")]))
