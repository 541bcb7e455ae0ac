# SPDX-License-Identifier: MIT
"""A urd with a socket for admins, put under load and looked at from outside: what
urd.status says, what /proc says, and what the clients got."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile

from daemon import BUILD, Client, Daemon, must, stat, until  # noqa: E402

STORM = os.path.join(BUILD, "tests", "workers", "storm")
# builds of other kinds may do with the load generator of the plain one
LOAD = next(filter(os.path.exists, (os.path.join(folder, "perf", "load")
                                    for folder in (BUILD, os.path.dirname(BUILD)))), None)


class Watched(Daemon):
    """As Daemon, with a socket for admins and a folder of its own."""

    def __init__(self, command=None, *sets, **kw):
        self.made = tempfile.mkdtemp(prefix="urd-e2e-")
        self.admin_sock = os.path.join(self.made, "admin")
        super().__init__(command, "@admin=unix:" + self.admin_sock, *sets,
                         directory=self.made, **kw)
        self.admin = until(self.connect_admin, "urd listens for admins")

    def connect_admin(self):
        try:
            return Client(self.admin_sock)
        except OSError:
            return None

    def status(self):
        return self.admin.ok("urd.status")

    def pool(self, name="default"):
        return next(p for p in self.status()["pools"] if p["name"] == name)

    def all_workers(self):
        return self.admin.ok("urd.workers")

    def ready(self, n, name="default"):
        until(lambda: self.pool(name)["ready"] == n, "%d workers are ready" % n)
        return self

    def path(self, name):
        return os.path.join(self.made, name)

    def destroy(self):
        with contextlib.suppress(AttributeError):
            self.admin.close()
        super().destroy()
        shutil.rmtree(self.made, ignore_errors=True)


class Load:
    """build/perf/load at work; .result() waits for its end and gives its figures."""

    def __init__(self, d, *args):
        must(LOAD, "perf/load is not built; make perf")
        self.proc = subprocess.Popen([LOAD, "-s", d.sock, "--json", "-w", "0", *map(str, args)],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def running(self):
        return self.proc.poll() is None

    def result(self, patience=120):
        out, err = self.proc.communicate(timeout=patience)
        must(self.proc.returncode in (0, 1) and out, "load: %r" % err[-300:])
        figures = json.loads(out)
        figures["shown"] = err.decode("utf-8", "replace")[:300]
        return figures


def exact(figures):
    """Nothing was lost, doubled or somebody else's."""
    must(figures["mismatches"] == 0 and figures["missing"] == 0 and figures["requests_all"] > 0,
         "load: %r" % figures)


def clean(figures):
    """And nothing failed either."""
    exact(figures)
    must(figures["errors"] == 0, "load: %r" % figures)


def outcomes(pool):
    return {k: v for k, v in pool["outcomes"].items() if v}


def rss(pid):
    """Resident KiB."""
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def zombies(parent):
    found = [stat(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    return sum(1 for s in found if s and s[1] == parent and s[0] == "Z")


def signal_child(parent, pid, sig):
    """Send it only if that process is a living child of that parent: the number may have
    been given to a stranger meanwhile.  Was it sent?"""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        got = stat(pid)
        if not got or got[1] != parent or got[0] in "ZX":
            return False
        signal.pidfd_send_signal(fd, sig)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def fraction(values, part):
    """That quantile, of a list that is not empty."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]
