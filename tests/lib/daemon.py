# SPDX-License-Identifier: MIT
"""A urd of one's own for a check: started, asked in both dialects, watched, stopped."""

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import msgpack

PATIENCE = 20.0
PYTHON = "/usr/bin/python3"
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
URD = os.path.join(BUILD, "urd")
WORKERS = os.path.join(ROOT, "tests", "workers")
BAD = os.path.join(BUILD, "tests", "workers", "bad")
ECHO = os.path.join(BUILD, "tests", "workers", "echo")
# sanitizers make everything slower
SLOWNESS = 4 if "asan" in BUILD else 1


class Failed(Exception):
    pass


def must(truth, text="not so"):
    if not truth:
        raise Failed(text)


def same(got, want, what=""):
    if got != want:
        raise Failed("%s: got %.200r instead of %.200r" % (what, got, want))


def until(cond, what, patience=PATIENCE):
    """Poll until it holds; what it was."""
    end = time.monotonic() + patience
    while True:
        value = cond()
        if value:
            return value
        must(time.monotonic() < end, "waited in vain: " + what)
        time.sleep(0.002)


def stat(pid):
    """(state, parent) of a process; None if there is none."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def lives(pid):
    got = stat(pid)
    return got is not None and got[0] not in "ZX"


def children(parent):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            got = stat(int(name))
            if got and got[1] == parent and got[0] not in "ZX":
                found.append(int(name))
    return found


class Client:
    """One connection; framed, or plain MessagePack-RPC values one after the other."""

    def __init__(self, address, plain=False):
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX)
        else:
            self.sock = socket.socket(socket.AF_INET)
        self.sock.connect(address)
        self.sock.settimeout(PATIENCE)
        self.plain = plain
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False,
                                         max_buffer_size=1 << 28)
        self.buf = b""
        self.msgid = 0

    def fileno(self):
        return self.sock.fileno()

    def pack(self, message):
        body = msgpack.packb(message, use_bin_type=True)
        return body if self.plain else struct.pack(">I", len(body)) + body

    def send(self, method, params=None, meta=None):
        self.msgid += 1
        message = [0, self.msgid, method, params] + ([meta] if meta is not None else [])
        self.sock.sendall(self.pack(message))
        return self.msgid

    def notify(self, method, params):
        self.sock.sendall(self.pack([2, method, params]))

    def recv(self):
        """The next message; None at the end."""
        while True:
            if self.plain:
                for message in self.unpacker:
                    return message
            elif len(self.buf) >= 4:
                (size,) = struct.unpack(">I", self.buf[:4])
                if len(self.buf) >= 4 + size:
                    body = self.buf[4:4 + size]
                    self.buf = self.buf[4 + size:]
                    return msgpack.unpackb(body, raw=False, strict_map_key=False)
            data = self.sock.recv(1 << 20)
            if not data:
                return None
            if self.plain:
                self.unpacker.feed(data)
            else:
                self.buf += data

    def answer(self, msgid):
        """(error, result) of one request, which must be the next answer."""
        message = self.recv()
        must(message is not None, "the connection ended")
        same(message[:2], [1, msgid], "answer")
        return message[2], message[3]

    def call(self, method, params=None, meta=None):
        return self.answer(self.send(method, params, meta))

    def ok(self, method, params=None, meta=None):
        error, result = self.call(method, params, meta)
        must(error is None, "%s: %r" % (method, error))
        return result

    def fails(self, name, method, params=None, meta=None):
        error, result = self.call(method, params, meta)
        must(error is not None, "%s: a success: %.100r" % (method, result))
        same(error["name"], name, method)
        return error

    def ended(self):
        """Has the other side closed?  Waits for it."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.sock.close()


class Daemon:
    """urd run -o KEY=VALUE... -- COMMAND...; or with a configuration file's text."""

    def __init__(self, command=None, *sets, config=None, wait=True, directory=None,
                 prefix=(), name="s"):
        self.dir = directory or tempfile.mkdtemp(prefix="urd-e2e-")
        self.own = directory is None
        self.sock = os.path.join(self.dir, name)
        self.log = open(os.path.join(self.dir, name + ".log"), "w+b")
        argv = list(prefix) + [URD, "run", "-o", "listen=unix:" + self.sock]
        if config is not None:
            path = os.path.join(self.dir, "conf")
            with open(path, "w") as f:
                f.write(config)
            argv += ["-c", path]
        for text in sets:
            argv += ["-o", text if text.startswith(("pool.", "log.", "@"))
                     else "pool.default." + text]
        argv = [a[1:] if a.startswith("@") else a for a in argv]
        if command:
            argv += ["--"] + list(command)
        self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log,
                                     stderr=self.log)
        self.pid = self.proc.pid
        if wait:
            try:
                until(self.is_up, "urd listens: " + " ".join(argv))
            except Failed:
                self.destroy()
                raise

    def is_up(self):
        must(self.proc.poll() is None, "urd ended: " + self.text()[-500:])
        try:
            client = Client(self.sock)
        except OSError:
            return False
        # the listener of one that was just killed may take connections a little longer
        peer = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        client.close()
        return struct.unpack("3i", peer)[0] == self.pid

    def text(self):
        with open(self.log.name, errors="replace") as f:
            return f.read()

    def client(self, plain=False):
        return Client(self.sock, plain)

    def workers(self):
        return children(self.pid)

    def wait(self, patience=PATIENCE):
        try:
            return self.proc.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failed("urd does not end") from None

    def stop(self, sig=signal.SIGTERM):
        """An orderly end: status 0, no worker and no socket left."""
        pids = self.workers()
        self.proc.send_signal(sig)
        same(self.wait(), 0, "exit status; log: " + self.text()[-300:])
        must(not any(map(lives, pids)), "a worker is left")
        must(not os.path.exists(self.sock), "the socket file is left")

    def destroy(self):
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        self.log.close()
        if self.own:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        try:
            if kind is None and self.proc.poll() is None:
                self.stop()
        finally:
            if kind is not None and self.proc.poll() not in (None, 0):
                print("    log: " + self.text()[-600:].replace("\n", "\n    "))
            self.destroy()


def median(values):
    return sorted(values)[len(values) // 2]


def run(checks):
    """One line per check, the sum, and the exit status."""
    passed = failed = 0
    only = sys.argv[2:]
    for fn in checks:
        name = fn.__name__[len("check_"):]
        if only and name not in only:
            continue
        begun = time.monotonic()
        try:
            note = fn()
        except Exception as exc:
            failed += 1
            print("FAIL %s: %s: %s" % (name, type(exc).__name__, exc))
        else:
            passed += 1
            print("ok   %s (%.1f s)%s" % (name, time.monotonic() - begun,
                                         ": " + note if note else ""))
        sys.stdout.flush()
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0
