#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What operators do to a running urd: every command and method for admins, good
and bad.

usage: check_admin.py BUILD_DIR [CHECK]...
"""
import json
import os
import stat
import subprocess
import sys
import threading

from looked_after import (ECHO, TIMEOUT, URD, Client, Daemon, check, error_of, refused, run_checks,
                          until)
from urd_client import ConnectionLost

# --- commands ------------------------------------------------------------------

COMMANDS = {
    "status": ([], [["x"]]),
    "workers": ([], [["a", "b"], ["a b"]]),
    "scale": (["default", "2"], [[], ["default"], ["default", "x"], ["default", "-1"],
                                 ["a/b", "1"], ["default", "1", "2"]]),
    "reload": ([], [["a", "b"], ["a b"]]),
    "recycle": (["default"], [[], ["default", "x"], ["default", "1", "2"], [""]]),
    "kill": (["1"], [[], ["x"], ["1", "2"]]),
    "drain": ([], [["x"], ["--timeout", "5"], ["--timeout"]]),
}


def check_usage(folder):
    nobody = "unix:" + os.path.join(folder, "nobody.sock")
    for cmd, (good, bad) in COMMANDS.items():
        run = subprocess.run([URD, cmd, "--help"], stdout=subprocess.PIPE, timeout=TIMEOUT)
        text = run.stdout.decode()
        check(cmd + " --help", run.returncode == 0 and text.startswith("usage: urd " + cmd) and
              max(map(len, text.splitlines())) <= 80, text)
        for args in bad + [["--jsn"]]:
            run = subprocess.run([URD, cmd, *args], stderr=subprocess.PIPE, timeout=TIMEOUT)
            check(" ".join([cmd, *args]) + " is wrong usage", run.returncode == 2 and
                  run.stderr.count(b"\n") == 1, run)
        run = subprocess.run([URD, cmd, "-s", nobody, *good], stderr=subprocess.PIPE,
                             timeout=TIMEOUT)
        check(cmd + ", nobody there", run.returncode == 5 and
              b"NO_CONNECT (executed: no)" in run.stderr, run)


def check_cli(folder):
    with Daemon(folder, [ECHO], min_workers=2, max_workers=4) as d:
        d.ready(2)
        d.client.call("echo", 1)
        run = d.cli("status")
        lines = run.stdout.decode().splitlines()
        row = next((x for x in lines if x.startswith("default")), "")
        check("urd status", run.returncode == 0 and max(map(len, lines)) <= 80 and
              row.split()[:4] == ["default", "ok", "2/2", "2-4"], run)
        run = d.cli("status", "--json")
        check("urd status --json", json.loads(run.stdout)["pools"][0]["outcomes"]["OK"] == 1, run)
        run = d.cli("workers")
        lines = run.stdout.decode().splitlines()
        check("urd workers", len(lines) == 3 and max(map(len, lines)) <= 80 and
              {int(x.split()[2]) for x in lines[1:]} == d.pids(), run)
        check("urd workers POOL", d.cli("workers", "default").stdout.count(b"\n") == 3)
        run = d.cli("workers", "--json", "default")
        check("urd workers --json", {w["pid"] for w in json.loads(run.stdout)} == d.pids(), run)
        run = d.cli("scale", "default", "9")
        check("urd scale", run.stdout == b"pool default: 4 workers, which is max_workers\n", run)
        d.ready(4)
        check("urd scale --json", d.cli("scale", "--json", "default", "4").stdout == b"4\n")
        mark = d.mark()
        check("urd reload", d.cli("reload").stdout == b"4 workers will be replaced\n")
        d.log.wait("reason: reload", 4, mark)
        mark, pid = d.mark(), min(d.pids("IDLE"))
        run = d.cli("recycle", "default", str(pid))
        check("urd recycle POOL PID", run.stdout == b"1 worker will be replaced\n", run)
        ended = d.log.wait("pid=(\\d+): worker ended.*asked by the operator", 1, mark)
        check("it was that one", int(ended[0][1]) == pid, ended)
        mark, pid = d.mark(), min(d.pids("IDLE"))
        run = d.cli("kill", str(pid))
        check("urd kill", run.stdout == b"worker %d killed\n" % pid, run)
        d.log.wait("pid=%d: worker ended: killed by signal 9" % pid, 1, mark)
        for args, words in ((["kill", "1"], b"there is no worker with pid 1"),
                            (["scale", "nope", "1"], b'there is no pool "nope"'),
                            (["scale", "default", "0"], b"at least 1 worker"),
                            (["recycle", "default", "1"], b"no worker with pid 1"),
                            (["workers", "nope"], b'there is no pool "nope"')):
            run = d.cli(*args)
            check("urd %s is refused" % " ".join(args), run.returncode == 3 and
                  words in run.stderr and run.stderr.count(b"\n") == 1, run)
        run = d.cli("drain", "--timeout", "5s")
        check("urd drain", run.stdout == b"urd drains and ends\n", run)
        check("urd run ends with 0", d.proc.wait(TIMEOUT) == 0)


# --- methods -------------------------------------------------------------------

BAD_PARAMS = {
    "urd.status": [[1], "x", 5],
    "urd.workers": [[1], ["default", 1], {}],
    "urd.scale": [None, [], ["default"], ["default", "2"], ["default", -1], ["default", 0],
                  [1, 2], ["default", 1, 2], {"default": 1}],
    "urd.reload": [[1], 1, ["default", "default"]],
    "urd.recycle": [None, [], [1], ["default", "x"], ["default", 1], ["default", 1, 1]],
    "urd.kill": [None, [], ["x"], [0], [1], [-1], [1, 1], 1],
    "urd.drain": [["x"], [-1], [1, 1], "x"],
}


def check_methods(folder):
    with Daemon(folder, [ECHO], workers=2) as d:
        d.ready(2)
        for method, params in BAD_PARAMS.items():
            for p in params:
                check("%s %r is refused" % (method, p), refused(d.admin, method, p))
            e = error_of(d.client.call, method)
            check(method + " is no method for clients", e and e.name == "BAD_REQUEST" and
                  e.detail == "no such method: " + method, e)
        for method, params in (("urd.scale", ["nope", 1]), ("urd.reload", "nope"),
                               ("urd.reload", ["nope"]), ("urd.recycle", ["nope"]),
                               ("urd.workers", ["nope"])):
            check("%s of no pool" % method, refused(d.admin, method, params, "NO_POOL"))
        check("nothing has come of it", d.pool()["exits"] == 0 and not d.status()["draining"])
        check("urd.ping for admins", d.admin.call("urd.ping", [1]) == [1])
        check("unknown method for admins", refused(d.admin, "urd.nope"))
        check("an admin may call workers", d.admin.call("default/echo", 5) == 5)
        mode = stat.S_IMODE(os.stat(d.admin_path).st_mode)
        check("the admin socket's mode is 0600", mode == 0o600, oct(mode))


def check_status(folder):
    with Daemon(folder, [ECHO], workers=2, queue_max=1) as d:
        d.ready(2)
        before = d.status()
        slow = [Client(d.path) for _ in range(3)]
        threads = [threading.Thread(target=c.call, args=("sleep", {"ms": 400})) for c in slow]
        for t in threads:
            t.start()
        until(d, lambda p: p["inflight"] == 2 and p["queued"] == 1, lambda p: None)
        busy = d.workers()
        check("busy workers are shown", {(w["state"], w["inflight"], w["given"]) for w in busy} ==
              {("BUSY", 1, 1)}, busy)
        check("a full queue", error_of(d.client.call, "echo", 1).name == "BUSY")
        e = error_of(d.client.call, "nopool/x")
        check("NO_POOL still", e.name == "NO_POOL")
        for t in threads:
            t.join(TIMEOUT)
        check("an error of a worker", error_of(d.client.call, "fail", None).name == "APP")
        s = d.status()
        p = s["pools"][0]
        check("status: outcomes", {k: v for k, v in p["outcomes"].items() if v} ==
              {"OK": 3, "APP": 1, "BUSY": 1}, p["outcomes"])
        check("status: states", p["states"]["IDLE"] == 2 and p["ready"] == 2 and p["queued"] == 0
              and p["inflight"] == 0 and p["queued_bytes"] == 0, p)
        check("status: pool", (p["name"], p["protocol"], p["want"], p["min_workers"],
                               p["max_workers"], p["failed"], p["spawns"], p["exits"]) ==
              ("default", "urd", 2, 2, 2, False, 2, 0), p)
        check("status: urd", s["pid"] == d.proc.pid and s["version"] and not s["draining"] and
              s["uptime_ms"] >= before["uptime_ms"] + 400 and s["connections"] == 4, s)
        check("status: memory and ring", 0 < s["memory"]["used"] <= s["memory"]["max_used"] <
              s["memory"]["size"] and s["ring"]["overflows"] == 0 and
              s["ring"]["sqes"] > before["ring"]["sqes"] > 0 and s["ring"]["enters"] > 0 and
              s["ring"]["cqes"] > 0, s)
        served = [(w["served"], w["rss"] > 0, w["age_ms"] >= 400, w["leaving"])
                  for w in d.workers()]
        check("workers: served, rss, age", sum(x[0] for x in served) == 4 and
              all(x[1:] == (True, True, None) for x in served), served)
        for c in slow:
            c.close()


def check_reserve(folder):
    with Daemon(folder, [ECHO], ["conns_max=1"], workers=1) as d:
        d.client.call("echo", 1)
        other = Client(d.path)
        check("one client too many is cut", isinstance(error_of(other.call, "echo", 1),
                                                       ConnectionLost))
        other.close()
        admins = [Client(d.admin_path) for _ in range(8)]
        check("admins get in all the same", all(a.call("urd.status") for a in admins))
        check("nine of them do not", isinstance(error_of(d.admin.call, "urd.status"),
                                                ConnectionLost))
        s = admins[0].call("urd.status")
        check("refusals are counted", s["refused"] >= 2 and s["connections"] == 1, s)
        for a in admins:
            a.close()


def check_drain(folder):
    with Daemon(folder, [ECHO], workers=1, stop_timeout="200ms") as d:
        d.ready(1)
        answers = []
        slow = Client(d.path)
        t = threading.Thread(target=lambda: answers.append(slow.call("sleep", {"ms": 700})))
        t.start()
        until(d, lambda p: p["inflight"] == 1, lambda p: None)
        check("urd.drain", d.admin.call("urd.drain", [20000]) is True)
        late = Client(d.admin_path)
        s = late.call("urd.status")
        check("an admin may look at a drain", s["draining"] and s["pools"][0]["inflight"] == 1, s)
        check("no orders while draining", refused(late, "urd.scale", ["default", 1], "DRAINING") is
              None and error_of(late.call, "urd.reload").name == "DRAINING")
        e = error_of(d.client.call, "echo", 1)
        check("nothing new is accepted", isinstance(e, ConnectionLost) or e.name == "DRAINING", e)
        t.join(TIMEOUT)
        check("what ran was finished", answers == ["slept"], answers)
        check("then urd ends with 0", d.proc.wait(TIMEOUT) == 0)
        slow.close()
        late.close()
    with Daemon(folder, [ECHO], workers=1, stop_timeout="200ms") as d:
        errors = []
        slow = Client(d.path)
        t = threading.Thread(
            target=lambda: errors.append(error_of(slow.call, "sleep", {"ms": 60000})))
        t.start()
        until(d, lambda p: p["inflight"] == 1, lambda p: None)
        d.admin.call("urd.drain")
        check("drain_timeout counts if no time is given", d.status()["draining"])
        d.admin.call("urd.drain", [0])
        t.join(TIMEOUT)
        check("a second, shorter drain cuts", errors and errors[0] is not None, errors)
        check("and urd ends with 0", d.proc.wait(TIMEOUT) == 0)
        slow.close()


def check_kill(folder):
    with Daemon(folder, [ECHO], workers=1) as d:
        d.ready(1)
        errors = []
        slow = Client(d.path)
        t = threading.Thread(
            target=lambda: errors.append(error_of(slow.call, "sleep", {"ms": 60000})))
        t.start()
        until(d, lambda p: p["inflight"] == 1, lambda p: None)
        (pid,) = d.pids()
        check("urd.kill", d.admin.call("urd.kill", [pid]) is True)
        t.join(TIMEOUT)
        check("its caller is told", errors[0].name == "WORKER_DIED" and
              "asked by the operator" in errors[0].detail, errors[0].detail)
        d.ready(2)
        check("another one serves", d.client.call("pid") != pid)
        p = d.pool()
        check("it is counted", p["exits_by"]["forced"] == 1 and p["failures"] == 0, p)
        slow.close()


if __name__ == "__main__":
    sys.exit(run_checks([check_usage, check_cli, check_methods, check_status, check_reserve,
                         check_drain, check_kill]))
