#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Lives and deaths: of urd, of its workers, of requests whose time is up.

usage: check_life.py BUILD_DIR [CHECK...]

URD_IDLE_SECONDS sets how long an idle urd is watched (5).
"""

import glob
import os
import signal
import socket
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from daemon import (BAD, ECHO, PYTHON, SLOWNESS, WORKERS, Daemon, children, lives,  # noqa: E402
                    must, run, same, stat, until)

SOON = 0.5 * SLOWNESS  # what must happen at once, on a machine with other things to do
ECHO_PY = [PYTHON, WORKERS + "/echo.py"]


def marked(marker):
    """Living processes with the marker among their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and lives(int(name)):
            try:
                with open("/proc/%s/cmdline" % name, "rb") as f:
                    if marker.encode() in f.read():
                        found.append(int(name))
            except OSError:
                pass
    return found


def killed(state, how, prepare, workers=4, *sets):
    marker = "marker-%s-%d" % (state, os.getpid())
    with Daemon([BAD, how, marker], "workers=%d" % workers, *sets) as d:
        prepare(d)
        d.proc.kill()
        d.proc.wait()
        until(lambda: not marked(marker), "no worker is left: " + state, 2)


def no_preparation(d):
    pass


def have_workers(d):
    until(lambda: len(d.workers()) == 4, "four workers")


def ready(d):
    until(lambda: d.text().count("worker ready") == 4, "four are ready")
    same(d.client().ok("echo", 1), 1)


def busy(d):
    ready(d)
    client = d.busy = d.client()
    for _ in range(4):
        client.send("hang")
    d.client().ok("urd.ping")


def stopped(d):
    busy(d)
    for pid in d.workers():
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(stat(p)[0] == "T" for p in d.workers()), "they stand still")


def stopping(d):
    ready(d)
    d.proc.send_signal(signal.SIGTERM)
    until(lambda: not os.path.exists(d.sock), "urd drains")
    same(len(d.workers()), 4)


def check_kill_9_of_urd_leaves_no_worker():
    killed("booting", "never", have_workers)
    killed("idle", "ok", ready)
    killed("busy", "ok", busy)
    killed("stopped", "ok", stopped)
    killed("stubborn", "stubborn", busy)
    killed("stopping", "stubborn", stopping)


def check_kill_9_of_urd_while_it_spawns():
    for ms in range(0, 40, 4):
        killed("spawning%d" % ms, "never", lambda d: time.sleep(ms / 1000), 48)


def switches(pid):
    """Context switches of all threads: each system call that waits is one."""
    n = 0
    for path in glob.glob("/proc/%d/task/*/status" % pid):
        with open(path) as f:
            n += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
    return n


def check_idle_urd_does_nothing():
    seconds = float(os.environ.get("URD_IDLE_SECONDS", "5"))
    with Daemon([ECHO], "workers=8") as d:
        client = d.client()
        until(lambda: len(d.workers()) == 8, "eight workers")
        same(client.ok("echo", 1), 1)
        last = [switches(d.pid), time.monotonic()]

        def settled():
            now = switches(d.pid)
            if now != last[0]:
                last[:] = [now, time.monotonic()]
            return time.monotonic() - last[1] > 0.3
        until(settled, "urd comes to rest")
        before = switches(d.pid)
        time.sleep(seconds)
        same(switches(d.pid) - before, 0, "context switches in %g s" % seconds)


def victim(d):
    pids = until(d.workers, "a worker")
    same(len(pids), 1)
    return pids[0]


def check_kill_9_of_a_worker_at_every_step():
    slowest = 0
    for how, method, params in (("ok", "hang", None), ("ok", "halfhang", None),
                                ("ok", "freeze", None), ("deaf", "echo", b"x" * (8 << 20)),
                                ("ok", "slow", 60000), ("stubborn", "hang", None)):
        with Daemon([BAD, how], "workers=1", "backoff_min=10ms", "stop_timeout=200ms") as d:
            client = d.client()
            if how != "deaf":
                client.ok("echo", 1)
            msgid = client.send(method, params)
            d.client().ok("urd.ping")
            pid = victim(d)
            if method == "freeze":
                until(lambda: stat(pid)[0] == "T", "it stands still")
            begun = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            error, _ = client.answer(msgid)
            took = time.monotonic() - begun
            slowest = max(slowest, took)
            same((error["name"], error["executed"]), ("WORKER_DIED", "maybe"), method)
            must(took < SOON, "%s: told after %.3f s" % (method, took))
            until(lambda: d.workers() and victim(d) != pid, "another worker")
            if how != "deaf":
                same(d.client().ok("echo", "on"), "on")
    return "told within %.1f ms" % (slowest * 1000)


def check_kill_9_between_requests():
    with Daemon([BAD, "ok"], "workers=1", "backoff_min=10ms") as d:
        client = d.client()
        client.ok("echo", 1)
        pid = victim(d)
        os.kill(pid, signal.SIGKILL)
        until(lambda: stat(pid) is None, "it was reaped")
        same(client.ok("echo", "on"), "on")
        same(client.ok("answerdie", "right"), "right")
        until(lambda: client.call("echo", 2)[1] == 2, "another worker")
    with Daemon([BAD, "slow", "60000"], "workers=1", "backoff_min=10ms",
                "queue_timeout=20s") as d:
        pid = victim(d)
        os.kill(pid, signal.SIGKILL)  # while it boots
        until(lambda: d.workers() and victim(d) != pid, "another worker")


def check_worker_ends_in_every_way():
    with Daemon([BAD, "ok"], "workers=1", "backoff_min=10ms") as d:
        client = d.client()
        for method, params, text in (("exit", 0, "exit status 0"), ("exit", 3, "exit status 3"),
                                     ("half", None, "exit status 0"), ("halfhead", None, "status"),
                                     ("orphan", None, "exit status 5"),
                                     ("signal", signal.SIGSEGV, "signal 11"),
                                     ("signal", signal.SIGTERM, "signal 15"),
                                     ("complain", None, "the last words")):
            client.ok("echo", 1)
            error = client.fails("WORKER_DIED", method, params)
            must(text in error["detail"], "%s: %r" % (method, error["detail"]))
            must(len(children(d.pid)) <= 2)
        begun = time.monotonic()
        client.call("close")
        must(time.monotonic() - begun < 2 * SLOWNESS, "it closed its pipe and was waited for")
        same(client.ok("echo", "on"), "on")


def check_orphans_do_not_hide_the_end():
    """A grandchild holds every descriptor; the pidfd tells of the end all the same."""
    with Daemon([BAD, "ok"], "workers=1", "backoff_min=10ms") as d:
        client = d.client()
        orphan = client.ok("child")
        try:
            begun = time.monotonic()
            error = client.fails("WORKER_DIED", "exit", 6)
            must(time.monotonic() - begun < SOON, "seen late")
            must("6" in error["detail"], error)
            same(client.ok("echo", "on"), "on")
        finally:
            if lives(orphan):
                os.kill(orphan, signal.SIGKILL)


def check_bytewise_worker():
    with Daemon([BAD, "bytewise"], "workers=1") as d:
        client = d.client()
        for n in (0, 1, 1000, 200000):
            same(client.ok("echo", "b" * n), "b" * n)


def check_floods_at_the_end():
    with Daemon([BAD, "lastflood"], "workers=2") as d:
        d.client().ok("echo", 1)
        until(lambda: len(d.workers()) == 2, "two workers")


def check_term_finishes_what_runs():
    for sig in (signal.SIGTERM, signal.SIGINT):
        with Daemon([BAD, "ok"], "workers=2") as d:
            client, other = d.client(), d.client()
            running = client.send("slow", 600 * SLOWNESS)
            other.ok("echo", 1)
            d.proc.send_signal(sig)
            until(lambda: not os.path.exists(d.sock), "urd drains")
            same(client.answer(running), (None, 600 * SLOWNESS))
            must(client.recv() is None)
            same(d.wait(), 0)


def check_term_refuses_new_requests():
    with Daemon([BAD, "ok"], "workers=1") as d:
        client = d.client()
        running = client.send("slow", 600 * SLOWNESS)
        client.notify("nothing", None)
        d.client().ok("urd.ping")
        d.proc.send_signal(signal.SIGTERM)
        until(lambda: not os.path.exists(d.sock), "urd drains")
        late = client.send("echo", "too late")
        tag, msgid, error, _ = client.recv()
        same((msgid, error["name"], error["executed"]), (late, "DRAINING", "no"))
        same(client.answer(running)[0], None)
        same(d.wait(), 0)


def check_second_term_is_fast():
    with Daemon([BAD, "stubborn"], "workers=2", "stop_timeout=1s") as d:
        client = d.client()
        client.ok("echo", 1)
        msgid = client.send("hang")
        d.client().ok("urd.ping")
        d.proc.send_signal(signal.SIGTERM)
        until(lambda: not os.path.exists(d.sock), "urd drains")
        must(d.proc.poll() is None)
        begun = time.monotonic()
        d.proc.send_signal(signal.SIGTERM)
        same(client.answer(msgid)[0]["name"], "WORKER_DIED")
        same(d.wait(), 0)
        must(time.monotonic() - begun < 2 * SLOWNESS, "%g s" % (time.monotonic() - begun))


def check_stale_socket_is_taken_over():
    with Daemon([BAD, "ok"], "workers=1") as d:
        d.proc.kill()
        d.proc.wait()
        must(os.path.exists(d.sock))
        with Daemon([BAD, "ok"], "workers=1", directory=d.dir) as again:
            same(again.client().ok("echo", 1), 1)
            # a live one is not
            other = Daemon([BAD, "ok"], directory=d.dir, wait=False, name="s")
            must(other.wait() != 0)
            must("in use" in other.text(), other.text())
            same(again.client().ok("echo", 2), 2)
        must(not os.path.exists(d.sock))


def check_file_in_the_way_is_left_alone():
    with Daemon([BAD, "ok"], "workers=1") as d:
        path = os.path.join(d.dir, "t")
        with open(path, "w") as f:
            f.write("precious")
        other = Daemon([BAD, "ok"], directory=d.dir, wait=False, name="t")
        must(other.wait() != 0)
        must("no socket" in other.text(), other.text())
        with open(path) as f:
            same(f.read(), "precious")


def check_socket_mode():
    with Daemon([BAD, "ok"], "workers=1") as d:
        same(oct(os.stat(d.sock).st_mode & 0o777), oct(0o660))
        second = os.path.join(d.dir, "m")
        with Daemon([BAD, "ok"], "workers=1",
                    "@listen=unix:%s?mode=0602" % second, wait=False) as e:
            until(lambda: os.path.exists(second) and
                  os.stat(second).st_mode & 0o777 == 0o602, "its mode")
            until(lambda: socket.socket(socket.AF_UNIX).connect_ex(second) == 0, "it listens")
            e.stop()


def check_failing_pool_says_so_and_recovers():
    flag = "/tmp/urd-e2e-flag-%d" % os.getpid()
    config = """
    pool "good" { command = { "%s" } workers = 1 }
    pool "bad" { command = { "%s", "missing", "%s" } workers = 2
                 backoff_min = "20ms" backoff_max = "300ms" queue_timeout = "20s" }
    """ % (BAD, BAD, flag)
    try:
        with Daemon(config=config) as d:
            client = d.client()
            good = client.ok("good/pid")
            error = client.fails("POOL_FAILED", "bad/echo", 1)
            same(error["executed"], "no")
            begun = time.monotonic()
            error = client.fails("POOL_FAILED", "bad/echo", 1)
            must(time.monotonic() - begun < SOON, "not at once")
            must(0 < error["retry_after_ms"] <= 400, error)
            same(client.ok("good/pid"), good, "the other pool")
            # 20 40 80 160 300 300 ...: two workers come to fewer than 20 starts in a second
            before = d.text().count("exit status 3")
            time.sleep(1)
            must(1 <= d.text().count("exit status 3") - before < 20, "backoff")
            must("it is not there" in d.text(), "stderr is in the log")
            open(flag, "w").close()
            until(lambda: client.call("bad/echo", 1)[1] == 1, "recovery")
            same(client.ok("good/pid"), good)
    finally:
        if os.path.exists(flag):
            os.unlink(flag)


def check_command_that_does_not_exist():
    with Daemon(["/nonexistent/worker"], "workers=1", "backoff_min=10ms") as d:
        error = d.client().fails("POOL_FAILED", "echo", 1)
        same(error["executed"], "no")
        must("No such file" in d.text(), d.text())


def check_boot_timeout():
    with Daemon([BAD, "never"], "workers=1", "boot_timeout=50ms", "backoff_min=10ms") as d:
        d.client().fails("POOL_FAILED", "echo", 1)
        must("boot_timeout" in d.text(), d.text())


def check_queue_is_bounded_in_number_and_time():
    with Daemon([BAD, "ok"], "workers=1", "queue_max=2", "queue_timeout=300ms",
                "exec_timeout=20s") as d:
        client = d.client()
        client.ok("echo", 1)
        begun = time.monotonic()
        client.send("hang")
        queued = [client.send("echo", i) for i in range(2)]
        full = client.send("echo", "one too many")
        error, _ = client.answer(full)
        same((error["name"], error["executed"]), ("BUSY", "no"))
        must(time.monotonic() - begun < 0.25 * SLOWNESS, "BUSY took its time")
        for msgid in queued:
            error, _ = client.answer(msgid)
            same((error["name"], error["executed"]), ("QUEUE_TIMEOUT", "no"))
        must(0.3 <= time.monotonic() - begun < 0.3 + SOON, "%g s" % (time.monotonic() - begun))
        os.kill(victim(d), signal.SIGKILL)


def check_queue_is_bounded_in_bytes():
    with Daemon([BAD, "ok"], "workers=1", "queue_max_bytes=100KiB", "exec_timeout=20s",
                "queue_timeout=20s") as d:
        client = d.client()
        client.ok("echo", 1)
        running = client.send("hang")
        first = client.send("echo", "q" * 60000)
        second = client.send("echo", "q" * 60000)
        same(client.answer(second)[0]["name"], "BUSY")
        os.kill(victim(d), signal.SIGKILL)
        same(client.answer(running)[0]["name"], "WORKER_DIED")
        same(client.answer(first), (None, "q" * 60000))


def check_exec_timeout_with_cancel_keeps_the_worker():
    with Daemon(ECHO_PY, "workers=1", "exec_timeout=200ms", "cancel_grace=10s") as d:
        client = d.client()
        pid = client.ok("pid")
        for _ in range(3):
            begun = time.monotonic()
            error = client.fails("EXEC_TIMEOUT", "sleep", {"ms": 30000})
            same(error["executed"], "maybe")
            must(0.2 <= time.monotonic() - begun < 0.2 + SOON)
            same(client.ok("echo", "mine"), "mine", "the late answer is nobody's")
        same(client.ok("pid"), pid)


def check_exec_timeout_without_cancel_replaces_it():
    for how in ("ok", "cancel"):  # the second offers to be cancelled, and does not care
        with Daemon([BAD, how], "workers=1", "exec_timeout=200ms", "cancel_grace=100ms") as d:
            client = d.client()
            pid = client.ok("pid")
            client.fails("EXEC_TIMEOUT", "slow", 700 * SLOWNESS)
            same(client.ok("echo", "mine"), "mine")
            must(client.ok("pid") != pid, how)
            until(lambda: not lives(pid), "it is gone")


def check_late_answer_in_grace_keeps_the_worker():
    with Daemon([BAD, "cancel"], "workers=1", "exec_timeout=100ms", "cancel_grace=20s") as d:
        client = d.client()
        pid = client.ok("pid")
        client.fails("EXEC_TIMEOUT", "slow", 500)
        same(client.ok("echo", "mine"), "mine")
        same(client.ok("pid"), pid)


def check_deadline_of_the_caller():
    with Daemon([BAD, "ok"], "workers=1", "exec_timeout=20s", "queue_timeout=20s") as d:
        client = d.client()
        pid = client.ok("pid")
        begun = time.monotonic()
        client.fails("EXEC_TIMEOUT", "hang", None, {"deadline_ms": 150})
        must(0.15 <= time.monotonic() - begun < 0.15 + SOON)
        must(client.ok("pid") != pid)
        client.send("slow", 600)
        error, _ = client.answer(client.send("echo", 1, {"deadline_ms": 100}))
        same((error["name"], error["executed"]), ("QUEUE_TIMEOUT", "no"))
        same(client.recv()[3], 600)
        same(client.fails("QUEUE_TIMEOUT", "echo", 1, {"deadline_ms": 0})["executed"], "no")


def check_cancel():
    with Daemon(ECHO_PY, "workers=1", "exec_timeout=20s") as d:
        client = d.client()
        pid = client.ok("pid")
        running = client.send("sleep", {"ms": 30000})
        queued = client.send("echo", 1)
        client.notify("urd.cancel", [queued])
        error, _ = client.answer(queued)
        same((error["name"], error["executed"]), ("CANCELLED", "no"))
        client.notify("urd.cancel", [running])
        error, _ = client.answer(running)
        same((error["name"], error["executed"]), ("CANCELLED", "maybe"))
        same(client.ok("pid"), pid)
        # both in one packet: the worker is told, although it has only just been asked
        client.msgid += 1
        client.sock.sendall(client.pack([0, client.msgid, "sleep", {"ms": 30000}]) +
                            client.pack([2, "urd.cancel", [client.msgid]]))
        same(client.answer(client.msgid)[0]["name"], "CANCELLED")
        same(client.ok("pid"), pid)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]

if __name__ == "__main__":
    sys.exit(run(CHECKS))
