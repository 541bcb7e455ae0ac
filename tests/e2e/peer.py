# SPDX-License-Identifier: MIT
"""What the checks of the SDKs share: a worker with its pipes, values, the score."""

import fcntl
import os
import select
import struct
import subprocess
import sys
import threading
import time

import msgpack

PATIENCE = 20.0


class Peer:
    """One end of the four pipes, with the worker at the other."""

    def __init__(self, argv, env=None):
        task = os.pipe()
        answer = os.pipe()
        down = os.pipe()
        up = os.pipe()
        theirs = (task[0], answer[1], down[0], up[1])
        self.task, self.answers, self.down, self.up = task[1], answer[0], down[1], up[0]

        def place():
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 40) for fd in theirs]
            for want, fd in zip((3, 4, 5, 6), high):
                os.dup2(fd, want)

        full = dict(os.environ, URD_PROTOCOL="1", URD_TASK_IN_FD="3", URD_TASK_OUT_FD="4",
                    URD_CONTROL_IN_FD="5", URD_CONTROL_OUT_FD="6", URD_PID=str(os.getpid()),
                    URD_POOL="test", URD_WORKER="0")
        full.update(env or {})
        self.proc = subprocess.Popen(argv, env=full, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     preexec_fn=place, pass_fds=(3, 4, 5, 6),
                                     start_new_session=True)
        for fd in theirs:
            os.close(fd)
        self.bufs = {self.answers: b"", self.up: b""}
        self.text = {"out": [], "err": []}
        self.drains = [threading.Thread(target=self.drain, args=pair, daemon=True)
                       for pair in (("out", self.proc.stdout), ("err", self.proc.stderr))]
        for thread in self.drains:
            thread.start()
        self.msgid = 0

    def drain(self, name, stream):
        for line in stream:
            self.text[name].append(line)

    def stderr(self):
        return b"".join(self.text["err"]).decode(errors="replace")

    def recv(self, fd, patience=PATIENCE):
        """The next message; None at the end of file."""
        end = time.monotonic() + patience
        while True:
            buf = self.bufs[fd]
            if len(buf) >= 4:
                (size,) = struct.unpack(">I", buf[:4])
                if len(buf) >= 4 + size:
                    self.bufs[fd] = buf[4 + size:]
                    return msgpack.unpackb(buf[4:4 + size], raw=False, strict_map_key=False)
            if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("nothing from the worker; stderr: " + self.stderr()[-2000:])
            data = os.read(fd, 1 << 16)
            if not data:
                assert not buf, "end of file within a frame"
                return None
            self.bufs[fd] += data

    def quiet(self, fd, seconds):
        """Nothing comes within the time?"""
        return not self.bufs[fd] and not select.select([fd], [], [], seconds)[0]

    def write(self, fd, data):
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]

    def send_raw(self, fd, body):
        self.write(fd, struct.pack(">I", len(body)) + body)

    def send(self, fd, message):
        self.send_raw(fd, msgpack.packb(message, use_bin_type=True))

    def request(self, method, params=None, meta=None):
        self.msgid += 1
        message = [0, self.msgid, method, params] + ([meta] if meta is not None else [])
        self.send(self.task, message)
        return self.msgid

    def call(self, method, params=None, meta=None):
        """(error, result)"""
        msgid = self.request(method, params, meta)
        tag, got, error, result = self.recv(self.answers)
        assert (tag, got) == (1, msgid), (tag, got, msgid)
        return error, result

    def ready(self):
        tag, method, params = self.recv(self.up)
        assert (tag, method) == (2, "control.ready"), (tag, method)
        return params

    def wait(self, patience=PATIENCE):
        return self.proc.wait(patience)

    def eof(self):
        os.close(self.task)
        self.task = -1

    def close(self):
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        for fd in (self.task, self.answers, self.down, self.up):
            if fd >= 0:
                os.close(fd)


def same(a, b):
    """Equal in type as well, as far as MessagePack tells types apart."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    return a == b


def values(lang):
    out = [None, True, False, "", "x", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "a" * 65536]
    for bits in (5, 7, 8, 15, 16, 31, 32, 52):
        out += [1 << bits, (1 << bits) - 1, -(1 << bits), -(1 << bits) - 1]
    out += [0, (1 << 63) - 1, -(1 << 63), 1.5, -2.25, 1e300, float("inf")]
    out += [[], [1, [2, [3]]], list(range(15)), list(range(16)), list(range(70000))]
    out += [{"a": 1}, {"k%d" % i: i for i in range(16)}, {"a": {"b": [{"c": None}]}}]
    out += ["\u00e4\u20ac\U0001f600 \u0000 \ufffd", "\u00fc" * 1000, "m" * (1 << 20)]
    nested = 0
    for _ in range(40):
        nested = [nested]
    out.append(nested)
    if lang != "php":  # one type of string, one of array, no unsigned 64 bit, no integral float
        out += [b"", b"\x00\xff", bytes(range(256)) * 4096, {}, [b"x", {}], 2.0,
                (1 << 64) - 1, {1: "int key"}, {"__proto__": 1}, msgpack.ExtType(5, b"abc"),
                msgpack.ExtType(100, b"12345678"), msgpack.Timestamp(1, 2)]
    if lang == "node":
        out.remove(2.0)  # a number without a fraction is packed as an integer
    return out


class Score:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def run(self, lang, fn, *args):
        name = fn.__name__[len("check_"):]
        try:
            fn(*args)
        except Exception as exc:
            self.failed += 1
            print("FAIL %-13s %s: %s: %s" % (lang, name, type(exc).__name__, exc))
        else:
            self.passed += 1
            print("ok   %-13s %s" % (lang, name))
        sys.stdout.flush()

    def total(self):
        """Print the sum; the exit status."""
        print("%d passed, %d failed" % (self.passed, self.failed))
        return 1 if self.failed or not self.passed else 0
