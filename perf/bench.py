# SPDX-License-Identifier: MIT
"""What the measuring scripts share: daemons under test, the load generator, /proc.

Nothing here measures by itself; compare.py and mixed.py do.
"""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 15
STOP_SECONDS = 5


class Failure(Exception):
    """A run that cannot be had: a program is missing, does not start, or died."""


def daemon_argv(kind, build, urd, path, workers, depth=1, urd_options=()):
    """The command line of a contestant that listens at PATH."""
    worker = [str(build / "echo_pipe")]
    if depth > 1:
        worker += ["-k", str(depth)]
    if kind == "relay2":
        return [str(build / "relay2"), "-s", path, "--", *worker]
    if kind == "eprelay":
        return [str(build / "eprelay"), "-s", path, "-w", str(workers), "-k", str(depth),
                "--", *worker]
    if kind == "urd":
        options = [f"listen=unix:{path}", f"pool.default.workers={workers}", *urd_options]
        return [str(urd), "run", *(a for o in options for a in ("-o", o)), "--", *worker]
    raise Failure(f"{kind}: no such contestant")


class Daemon:
    """A daemon under test, from its first accepted connection to its end."""

    def __init__(self, argv, path, log):
        self.path = path
        self.log = log
        with open(log, "wb") as out:
            try:
                self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out,
                                                stderr=out)
            except OSError as e:
                raise Failure(f"{argv[0]}: {e.strerror}") from e
        self.pid = self.process.pid

    def __enter__(self):
        try:
            self.wait_listening()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_listening(self):
        """A listener has no event that an outsider could wait for, so it is asked again."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket(socket.AF_UNIX) as s:
                try:
                    s.connect(self.path)
                    return
                except OSError:
                    pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = Path(self.log).read_text(errors="replace")[-2000:]
                raise Failure(f"{self.process.args[0]} does not listen:\n{text}")
            time.sleep(0.005)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def workers(self):
        """Pids of the direct children."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            found += (task / "children").read_text().split()
        return [int(pid) for pid in found]


def load_argv(build, path, seconds=None, requests=None, connections=1, pipeline=1, payload="64",
              warmup=0.1, method="echo", seed=1, stall=30):
    argv = [str(build / "load"), "-s", path, "-m", method, "-c", str(connections),
            "-p", str(pipeline), "-b", str(payload), "-w", str(warmup), "-r", str(seed),
            "-T", str(stall), "--json"]
    if seconds is not None:
        argv += ["-t", str(seconds)]
    if requests is not None:
        argv += ["-n", str(requests)]
    return argv


def result_read(argv, done):
    """The JSON line of load or floor1; its exit status 1 means wrong answers, not no answers."""
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise Failure(f"{argv[0]} failed with {done.returncode}: {done.stderr.strip()}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if done.stderr.strip():
        result["complaint"] = done.stderr.strip()
    return result


def run_json(argv):
    return result_read(argv, subprocess.run(argv, capture_output=True, text=True, check=False))


def cpu_us(pid):
    """CPU time of all threads of a process so far, to the nanosecond, in microseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1000


def switches(pid):
    """Voluntary and forced context switches of all threads of a process so far."""
    voluntary = forced = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                voluntary += int(line.split()[1])
            elif line.startswith("nonvoluntary_ctxt_switches:"):
                forced += int(line.split()[1])
    return voluntary, forced


def spin_us(build):
    """The calibrator: microseconds that a fixed piece of work took on the slowest CPU."""
    done = subprocess.run([str(build / "spin")], capture_output=True, text=True, check=True)
    return int(done.stdout)


def environment():
    """What a reader of the numbers must know of the machine."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                         check=False)
    return {
        "kernel": platform.release(),
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "commit": git.stdout.strip() if git.returncode == 0 else "",
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def cpus_pin(text):
    """Keep this process, and so everything it starts, on the CPUs of a list such as 0,1."""
    os.sched_setaffinity(0, {int(cpu) for cpu in text.split(",")})


def programs_check(build, names):
    missing = [name for name in names if not os.access(build / name, os.X_OK)]
    if missing:
        sys.exit(f"not built in {build}: {', '.join(missing)}")
