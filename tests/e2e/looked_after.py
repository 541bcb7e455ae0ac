# SPDX-License-Identifier: MIT
"""A running urd with a socket for clients and one for admins, for the checks that
look after it: what happens is awaited in the log, then looked at with urd.status
and urd.workers."""
import calendar
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SDK = os.path.join(ROOT, "src", "sdk", "python")
sys.path.insert(0, SDK)

from urd_client import Client, UrdError  # noqa: E402

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
URD = os.path.join(BUILD, "urd")
ECHO = os.path.join(BUILD, "tests", "workers", "echo")
PYTHON = "/usr/bin/python3"
TIMEOUT = 30
passed = failed = 0

WORKER = r'''
import os, sys, time
if os.path.exists("broken"):
    sys.exit(1)
sys.path.insert(0, %r)
from urd_worker import worker
kept = []

@worker.method("echo")
def echo(params, ctx):
    return params

@worker.method("grow")
def grow(params, ctx):
    """Keep so many MiB and, if told to, hold on to the request."""
    kept.append(b"x" * (params["mib"] << 20))
    time.sleep(params.get("hold", 0))

@worker.method("beats")
def beats(params, ctx):
    end = time.monotonic() + params["s"]
    while time.monotonic() < end:
        ctx.heartbeat()
        time.sleep(0.02)
    return "beaten"

worker.run()
''' % SDK


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL " + name + (": " + str(why) if why != "" else ""))
    sys.stdout.flush()


class Log:
    """The daemon's log, read as it comes; whoever awaits a line is woken by it."""

    def __init__(self, stream):
        self.lines = []
        self.over = False
        self.cond = threading.Condition()
        self.thread = threading.Thread(target=self.read, args=(stream,), daemon=True)
        self.thread.start()

    def read(self, stream):
        for line in stream:
            with self.cond:
                self.lines.append(line.decode("utf-8", "replace"))
                self.cond.notify_all()
        with self.cond:
            self.over = True
            self.cond.notify_all()

    def matches(self, pattern, since=0):
        return [m for m in (re.search(pattern, line) for line in self.lines[since:]) if m]

    def wait(self, pattern, count=1, since=0):
        """The first @count matches in lines from @since on."""
        with self.cond:
            found = self.cond.wait_for(
                lambda: len(self.matches(pattern, since)) >= count or self.over, TIMEOUT)
            got = self.matches(pattern, since)
        if not found or len(got) < count:
            raise RuntimeError("log: %d of %d times %r in:\n%s" % (
                len(got), count, pattern, "".join(self.lines[since:])))
        return got[:count]


def stamp(match):
    """Seconds since the epoch of the line that was matched."""
    text, ms = match.string[:19], match.string[20:23]
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) + int(ms) / 1000


class Daemon:
    """One pool behind one socket for clients and one for admins."""

    def __init__(self, folder, command, top=(), **pool):
        self.folder = folder
        self.path = os.path.join(folder, "u.sock")
        self.admin_path = os.path.join(folder, "a.sock")
        opts = ["listen=unix:" + self.path, "admin=unix:" + self.admin_path, *top]
        opts += ["pool.default.%s=%s" % item for item in pool.items()]
        args = [x for o in opts for x in ("-o", o)]
        self.proc = subprocess.Popen([URD, "run", *args, "--", *command], cwd=folder,
                                     stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.log = Log(self.proc.stderr)
        self.log.wait("listening on ")
        self.client = Client(self.path)
        self.admin = Client(self.admin_path)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def ready(self, n, since=0):
        self.log.wait("worker ready", n, since)
        return self

    def mark(self):
        return len(self.log.lines)

    def status(self):
        return self.admin.call("urd.status")

    def pool(self):
        return self.status()["pools"][0]

    def workers(self):
        return self.admin.call("urd.workers")

    def pids(self, state=None):
        return {w["pid"] for w in self.workers() if state in (None, w["state"])}

    def stop(self, sig=signal.SIGTERM):
        self.client.close()
        self.admin.close()
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        try:
            self.proc.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
        self.log.thread.join(TIMEOUT)
        return self.proc.returncode

    def cli(self, *args):
        return subprocess.run([URD, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=TIMEOUT, env={"URD_ADMIN": "unix:" + self.admin_path})


def error_of(fn, *args, **kw):
    """The error that a call ends with, or None."""
    try:
        fn(*args, **kw)
    except UrdError as e:
        return e
    return None


def refused(client, method, params=None, name="BAD_REQUEST"):
    e = error_of(client.call, method, params)
    return e is not None and e.name == name and e.executed == "no" and e.detail


class Load:
    """Clients that call without a pause until told to stop."""

    def __init__(self, d, clients=4, method="echo", params="x"):
        self.d, self.method, self.params = d, method, params
        self.over = threading.Event()
        self.errors, self.done = [], 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        client = Client(self.d.path)
        n = 0
        try:
            while not self.over.is_set():
                client.call(self.method, self.params)
                n += 1
        except (UrdError, OSError) as e:
            self.errors.append(e)
        finally:
            client.close()
        with self.lock:
            self.done += n

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        for t in self.threads:
            t.join(TIMEOUT)


def until(d, done, look):
    """Ask for the pool's status again and again, give it to @look, until @done."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        pool = d.pool()
        look(pool)
        if done(pool):
            return pool
    raise RuntimeError("never came: %r" % pool)


def run_checks(checks):
    """Each in a folder of its own; those named on the command line, or all. Exit status."""
    only = sys.argv[2:]
    for part in checks:
        if only and part.__name__ not in only:
            continue
        folder = tempfile.mkdtemp(prefix="urd-admin-")
        with open(os.path.join(folder, "worker.py"), "w") as f:
            f.write(WORKER)
        try:
            part(folder)
        except Exception as e:  # one that breaks off must not hide the others
            check(part.__name__, False, repr(e))
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
