#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Check the Python clients against docs/client-protocol.md.

Plays a daemon of a few lines on a socket of its own.  Prints a line per check
and exits with a status other than 0 if one failed.
"""

import asyncio
import os
import queue
import socket
import struct
import sys
import tempfile
import threading

import msgpack

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "src", "sdk", "python"))

import urd_client  # noqa: E402
from peer import PATIENCE, Score, same, values  # noqa: E402


class Daemon:
    """A daemon of a few lines, as the clients see one."""

    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="urd-sdk-")
        self.path = os.path.join(self.dir.name, "s")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.seen = queue.Queue()  # cancels
        self.credits = queue.Queue()
        self.conns = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.conns.append(conn)
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        stream = conn.makefile("rb")
        while header := stream.read(4):
            body = stream.read(struct.unpack(">I", header)[0])
            message = msgpack.unpackb(body, raw=False, strict_map_key=False)
            if message[0] == 2:
                (self.credits if message[1] == "urd.credit" else self.seen).put(message[1:])
            else:
                # of its own, as a stream waits for credit that is read here
                threading.Thread(target=self.answer, args=(conn, *message[1:]),
                                 daemon=True).start()

    def send(self, conn, message):
        body = msgpack.packb(message, use_bin_type=True)
        conn.sendall(struct.pack(">I", len(body)) + body)

    def answer(self, conn, msgid, method, params, meta=None):
        if method == "echo":
            self.send(conn, [1, msgid, None, params])
        elif method == "meta":
            self.send(conn, [1, msgid, None, meta])
        elif method == "fail":
            error = {"code": 1, "name": "APP", "message": "m", "executed": "yes",
                     "detail": {"code": 7}}
            self.send(conn, [1, msgid, error, None])
        elif method == "busy":
            error = {"code": 2, "name": "BUSY", "message": "m", "executed": "no",
                     "retry_after_ms": 50}
            self.send(conn, [1, msgid, error, None])
        elif method == "stream":
            for i in range(params):
                if i >= 16 and i % 8 == 0:
                    name, given = self.credits.get(timeout=PATIENCE)
                    if given != [msgid, 8]:
                        return
                self.send(conn, [3, msgid, i])
            self.send(conn, [1, msgid, None, "end"])
        elif method == "drop":
            conn.shutdown(socket.SHUT_RDWR)
        elif method == "late":
            threading.Timer(params, self.send, (conn, [1, msgid, None, "late"])).start()
        elif method == "garbage":
            conn.sendall(b"\0\0\0\1\xc1")

    def close(self):
        self.listener.close()
        for conn in self.conns:
            conn.close()
        self.dir.cleanup()


def raises(kind, fn, *args, **kwargs):
    try:
        fn(*args, **kwargs)
    except kind as exc:
        return exc
    raise AssertionError("%s was not raised" % kind.__name__)


def check_client(daemon, mod):
    with mod.Client("unix:" + daemon.path) as client:
        for value in values("python"):
            assert same(client.call("echo", value), value), str(value)[:80]
        big = b"x" * (8 << 20)
        assert client.call("echo", big) == big
        assert client.call("meta", deadline=1.5, traceparent="t") == {"deadline_ms": 1500,
                                                                     "traceparent": "t"}
        assert client.call("meta") is None
        exc = raises(mod.AppError, client.call, "fail")
        assert (exc.code, exc.executed, exc.detail) == (1, "yes", {"code": 7})
        exc = raises(mod.UrdError, client.call, "busy")
        assert (exc.name, exc.executed, exc.retry_after_ms) == ("BUSY", "no", 50)
        exc = raises(mod.UrdError, client.call, "echo", b"x" * (16 << 20))
        assert (exc.name, exc.executed) == ("TOO_LARGE", "no")


def check_client_timeout(daemon, mod):
    client = mod.Client(daemon.path)
    exc = raises(mod.UrdTimeout, client.call, "late", 0.2, deadline=0.05)
    assert exc.executed == "maybe" and isinstance(exc, TimeoutError)
    assert daemon.seen.get(timeout=PATIENCE)[0] == "urd.cancel"
    # the late answer must not become that of the next call
    assert client.call("late", 0.3) == "late"
    assert client.call("echo", 5) == 5


def check_client_reconnects(daemon, mod):
    client = mod.Client(daemon.path)
    assert client.call("echo", 1) == 1
    exc = raises(mod.ConnectionLost, client.call, "drop")
    assert exc.executed == "maybe", exc.executed
    assert client.call("echo", 2) == 2
    raises(mod.ConnectionLost, client.call, "garbage")
    assert client.call("echo", 3) == 3
    daemon.conns[-1].shutdown(socket.SHUT_RDWR)  # as a restart does to an idle connection
    assert client.call("echo", 4) == 4
    exc = raises(mod.ConnectionLost, mod.Client("/nonexistent").call, "echo")
    assert exc.executed == "no"
    raises(ValueError, mod.Client, "http://x")


def check_client_fork(daemon, mod):
    client = mod.Client(daemon.path)
    assert client.call("echo", 1) == 1
    pid = os.fork()
    if pid == 0:
        os._exit(0 if client.call("echo", 2) == 2 and client.call("echo", 3) == 3 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert client.call("echo", 4) == 4
    assert len(daemon.conns) == 2, "the child has a connection of its own"


def check_client_stream(daemon, mod):
    client = mod.Client(daemon.path)
    assert list(client.stream("stream", 40)) == list(range(40))
    for chunk in client.stream("stream", 10):
        if chunk == 3:
            break
    assert client.call("echo", 1) == 1
    assert daemon.seen.get(timeout=PATIENCE)[0] == "urd.cancel"


def check_async_client(daemon, mod):
    async def main():
        async with mod.AsyncClient(daemon.path) as client:
            calls = [client.call("late", 0.2)] + [client.call("echo", i) for i in range(50)]
            assert await asyncio.gather(*calls) == ["late"] + list(range(50))
            assert len(daemon.conns) == 1
            assert [c async for c in client.stream("stream", 40)] == list(range(40))
            for kind, method in ((mod.AppError, "fail"), (mod.ConnectionLost, "drop"),
                                 (mod.ConnectionLost, "garbage")):
                try:
                    await client.call(method)
                except kind:
                    pass
                else:
                    raise AssertionError(method)
                assert await client.call("echo", 1) == 1
            try:
                await client.call("late", 0.3, deadline=0.05)
            except mod.UrdTimeout as exc:
                assert exc.executed == "maybe"
            else:
                raise AssertionError("no timeout")
            assert daemon.seen.get(timeout=PATIENCE)[0] == "urd.cancel"
            task = asyncio.ensure_future(client.call("late", 5))
            await client.call("echo", 1)  # sent after it, so it went out
            task.cancel()
            await asyncio.wait([task])
            await client.call("echo", 1)
            assert daemon.seen.get(timeout=PATIENCE)[0] == "urd.cancel"
        try:
            await mod.AsyncClient("/nonexistent").call("echo")
        except mod.ConnectionLost as exc:
            assert exc.executed == "no"

    asyncio.run(main())


def check_async_client_fork(daemon, mod):
    client = mod.AsyncClient(daemon.path)

    async def once(value):
        return await client.call("echo", value) == value

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(once(1))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if asyncio.run(once(2)) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert loop.run_until_complete(once(3))
    loop.run_until_complete(client.close())
    loop.close()


CLIENT = [check_client, check_client_timeout, check_client_reconnects, check_client_fork,
          check_client_stream, check_async_client, check_async_client_fork]


def main():
    score = Score()
    for check in CLIENT:
        daemon = Daemon()
        score.run("client", check, daemon, urd_client)
        daemon.close()
    return score.total()


if __name__ == "__main__":
    sys.exit(main())
