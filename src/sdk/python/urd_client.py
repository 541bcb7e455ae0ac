# SPDX-License-Identifier: MIT
"""Call a running urd from Python.

    from urd_client import Client, UrdError

    urd = Client("/run/urd/urd.sock")
    urd.call("images/resize", {"width": 100}, deadline=2.0)

    for line in urd.stream("images/report", progress=print):
        ...

    async with AsyncClient("/run/urd/urd.sock") as urd:
        await urd.call("images/resize", {"width": 100}, deadline=2.0)

progress, where given, is called with each value that the worker reports.  A
stream has at most 16 chunks on their way: whoever takes his time holds the
worker up, and nobody else.

One file; it needs Python 3.9 and the msgpack module (Debian: python3-msgpack).
Both clients connect when they are first used, again when urd was restarted, and
again in a forked child, which leaves the parent's connection alone.  A Client
may be shared by threads, one call at a time; an AsyncClient belongs to one
event loop and has any number of calls outstanding.
"""

import asyncio
import itertools
import os
import select
import socket
import struct
import threading
import time

import msgpack

__all__ = ["Client", "AsyncClient", "UrdError", "AppError", "UrdTimeout", "ConnectionLost"]

REQUEST_MAX = 16 << 20
ANSWER_MAX = 128 << 20
CREDIT_START = 16
# urd counts a deadline from arrival: its answer, which says more, comes a moment later.
ANSWER_GRACE = 0.05


class UrdError(Exception):
    """An answer that is an error.

    code and name as docs/client-protocol.md lists them; executed is "no",
    "maybe" or "yes"; retry_after_ms and detail may be None.
    """

    def __init__(self, code, name, message, executed, retry_after_ms=None, detail=None):
        super().__init__("%s: %s" % (name, message))
        self.code = code
        self.name = name
        self.message = message
        self.executed = executed
        self.retry_after_ms = retry_after_ms
        self.detail = detail


class AppError(UrdError):
    """The worker answered with an error; detail is what it said."""


class UrdTimeout(UrdError, TimeoutError):
    """The time was up, in the queue, in the worker or here."""


class ConnectionLost(UrdError, ConnectionError):
    """No answer will come; executed says whether the request got out."""


def _lost(executed, reason):
    return ConnectionLost(14, "IO", "connection to urd lost: %s" % reason, executed)


def _timeout(executed):
    return UrdTimeout(4, "EXEC_TIMEOUT", "no answer in time", executed)


def _error(value):
    if not isinstance(value, dict):
        return UrdError(0, "?", str(value), "maybe")
    name = value.get("name", "?")
    kind = UrdError
    if name == "APP":
        kind = AppError
    elif name in ("QUEUE_TIMEOUT", "EXEC_TIMEOUT"):
        kind = UrdTimeout
    return kind(value.get("code", 0), name, value.get("message", ""),
                value.get("executed", "maybe"), value.get("retry_after_ms"), value.get("detail"))


def _frame(message):
    body = msgpack.packb(message, use_bin_type=True, unicode_errors="surrogateescape")
    if len(body) > REQUEST_MAX:
        raise UrdError(7, "TOO_LARGE", "a request of %d bytes" % len(body), "no")
    return struct.pack(">I", len(body)) + body


def _request(msgid, method, params, deadline, traceparent, stream, progress):
    meta = {}
    if deadline is not None:
        meta["deadline_ms"] = max(1, int(deadline * 1000))
    if traceparent is not None:
        meta["traceparent"] = traceparent
    if stream:
        meta["stream"] = True
    if progress:
        meta["progress"] = True
    message = [0, msgid, method, params]
    if meta:
        message.append(meta)
    return _frame(message)


def _progress(message):
    """The [msgid, value] of a notification of progress, else None."""
    if message[0] == 2 and message[1] == "urd.progress":
        params = message[2]
        if isinstance(params, list) and len(params) == 2:
            return params
    return None


def _split(address):
    """What connect() takes: ("unix", path) or ("tcp", host, port)."""
    if address.startswith("unix:"):
        return ("unix", address[5:])
    if address.startswith(("/", "./")):
        return ("unix", address)
    if address.startswith("tcp:"):
        host, _, port = address[4:].rpartition(":")
        if host and port:
            return ("tcp", host.strip("[]"), port)
    raise ValueError("address %r is neither unix:/path, /path nor tcp:host:port" % address)


class _Frames:
    """Bytes in, whole messages out."""

    def __init__(self):
        self.buf = bytearray()

    def next(self):
        if len(self.buf) < 4:
            return None
        (length,) = struct.unpack_from(">I", self.buf)
        if not 0 < length <= ANSWER_MAX:
            raise ValueError("frame of %d bytes" % length)
        if len(self.buf) < 4 + length:
            return None
        message = msgpack.unpackb(bytes(memoryview(self.buf)[4:4 + length]), raw=False,
                                  strict_map_key=False, unicode_errors="surrogateescape")
        del self.buf[:4 + length]
        if not isinstance(message, list) or not message:
            raise ValueError("not a message")
        if len(message) != {1: 4, 2: 3, 3: 3}.get(message[0]):
            raise ValueError("not an answer")
        return message


class Client:
    """A blocking client."""

    def __init__(self, address, connect_timeout=5.0):
        self._address = _split(address)
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._sock = None
        self._pid = os.getpid()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Close the connection; the next call opens another."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def call(self, method, params=None, *, deadline=None, traceparent=None, progress=None):
        """The result of a method; raises UrdError.  deadline is in seconds."""
        with self._mine():
            msgid, until = self._send(method, params, deadline, traceparent, False,
                                      progress is not None)
            done = False
            try:
                while True:
                    tag, value = self._receive(msgid, until, progress)
                    if tag == 1:
                        done = True
                        return self._result(value)
            finally:
                if not done:
                    self._abandon(msgid)

    def stream(self, method, params=None, *, deadline=None, traceparent=None, progress=None):
        """Iterate over the chunks of an answer; the value of the generator is
        its result.  The connection is its own until it is exhausted or closed."""
        with self._mine():
            msgid, until = self._send(method, params, deadline, traceparent, True,
                                      progress is not None)
            done = False
            taken = 0
            try:
                while True:
                    tag, value = self._receive(msgid, until, progress)
                    if tag == 1:
                        done = True
                        return self._result(value)
                    yield value[2]
                    taken += 1
                    if taken >= CREDIT_START // 2:
                        self._write(_frame([2, "urd.credit", [msgid, taken]]), until)
                        taken = 0
            finally:
                if not done:
                    self._abandon(msgid)

    def _mine(self):
        # The lock, like the connection, may be in use in the parent just now.
        if os.getpid() != self._pid:
            self._lock = threading.Lock()
            self._pid = os.getpid()
            self.close()
        return self._lock

    def _connect(self):
        try:
            if self._address[0] == "unix":
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.settimeout(self._connect_timeout)
                try:
                    sock.connect(self._address[1])
                except BaseException:
                    sock.close()
                    raise
            else:
                sock = socket.create_connection(self._address[1:], self._connect_timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            raise _lost("no", exc) from exc
        sock.setblocking(False)
        self._sock = sock
        self._frames = _Frames()

    def _stale(self):
        """Has urd closed the connection while it was idle?"""
        try:
            return self._sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _send(self, method, params, deadline, traceparent, stream, progress):
        msgid = next(self._ids) & 0xffffffff
        data = _request(msgid, method, params, deadline, traceparent, stream, progress)
        until = None if deadline is None else time.monotonic() + deadline + ANSWER_GRACE
        if self._sock is not None and self._stale():
            self.close()
        if self._sock is None:
            self._connect()
        self._write(data, until)
        return msgid, until

    def _wait(self, until, events):
        poller = select.poll()
        poller.register(self._sock, events)
        left = None
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                return False
            left = left * 1000 + 1
        return bool(poller.poll(left))

    def _fill(self):
        """Read what is there."""
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as exc:
            self.close()
            raise _lost("maybe", exc) from exc
        if not data:
            self.close()
            raise _lost("maybe", "end of file")
        self._frames.buf += data

    def _write(self, data, until):
        """All of it.  Reads meanwhile, so that neither side waits for the other."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view):]
            except BlockingIOError:
                if not self._wait(until, select.POLLIN | select.POLLOUT):
                    self.close()  # a request that is cut off ends the connection
                    raise _timeout("no") from None
                self._fill()
            except OSError as exc:
                self.close()
                # urd runs a request only once it has all of it
                raise _lost("no", exc) from exc

    def _receive(self, msgid, until, progress):
        while True:
            try:
                message = self._frames.next()
            except Exception as exc:
                self.close()
                raise _lost("maybe", exc) from exc
            if message is None:
                if not self._wait(until, select.POLLIN):
                    raise _timeout("maybe")
                self._fill()
            elif message[0] in (1, 3):
                if message[1] == msgid:
                    return message[0], message
                # else: the late answer to a call that was given up
            elif progress is not None:
                told = _progress(message)
                if told is not None and told[0] == msgid:
                    progress(told[1])

    def _result(self, message):
        if message[2] is not None:
            raise _error(message[2])
        return message[3]

    def _abandon(self, msgid):
        """Nobody waits any more: say so, if the connection still stands."""
        if self._sock is None:
            return
        try:
            self._write(_frame([2, "urd.cancel", [msgid]]), time.monotonic() + 1)
        except UrdError:
            pass


class AsyncClient:
    """A client for asyncio.  Cancelling a call cancels the request."""

    def __init__(self, address):
        self._address = _split(address)
        self._ids = itertools.count(1)
        self._waiting = {}
        self._writer = None
        self._reading = None
        self._pid = os.getpid()
        self._opening = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        await self.close()

    async def close(self):
        """Close the connection; outstanding calls fail, the next one opens another."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._drop(_lost("maybe", "closed"))

    async def call(self, method, params=None, *, deadline=None, traceparent=None, progress=None):
        """The result of a method; raises UrdError.  deadline is in seconds."""
        msgid, queue, until = await self._send(method, params, deadline, traceparent, False,
                                               progress is not None)
        done = False
        try:
            while True:
                message = await self._receive(queue, until, progress)
                if message[0] == 1:
                    done = True
                    return self._result(message)
        finally:
            self._forget(msgid, done)

    async def stream(self, method, params=None, *, deadline=None, traceparent=None,
                     progress=None):
        """Iterate over the chunks of an answer."""
        msgid, queue, until = await self._send(method, params, deadline, traceparent, True,
                                               progress is not None)
        done = False
        taken = 0
        try:
            while True:
                message = await self._receive(queue, until, progress)
                if message[0] == 1:
                    done = True
                    self._result(message)
                    return
                yield message[2]
                taken += 1
                if taken >= CREDIT_START // 2:
                    self._post(_frame([2, "urd.credit", [msgid, taken]]))
                    taken = 0
        finally:
            self._forget(msgid, done)

    async def _connect(self):
        try:
            if self._address[0] == "unix":
                reader, self._writer = await asyncio.open_unix_connection(self._address[1])
            else:
                reader, self._writer = await asyncio.open_connection(*self._address[1:])
        except OSError as exc:
            raise _lost("no", exc) from exc
        self._reading = asyncio.ensure_future(self._read(reader, self._writer))

    async def _connected(self):
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            if self._writer is not None:
                # Closing through the transport would take it out of a selector that
                # the parent may share; the bare descriptor is this process's alone.
                os.close(self._writer.get_extra_info("socket").fileno())
            self._writer = self._reading = self._opening = None
            self._waiting = {}
        if self._writer is not None and self._writer.is_closing():
            self._drop(_lost("maybe", "closed"))
        if self._writer is None:
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._connect())
                self._opening.add_done_callback(self._opened)
            await asyncio.shield(self._opening)

    def _opened(self, future):
        self._opening = None
        if not future.cancelled():
            future.exception()  # whoever waits gets it; nobody may wait any more

    async def _send(self, method, params, deadline, traceparent, stream, progress):
        msgid = next(self._ids) & 0xffffffff
        data = _request(msgid, method, params, deadline, traceparent, stream, progress)
        until = None if deadline is None else time.monotonic() + deadline + ANSWER_GRACE
        await self._connected()
        queue = asyncio.Queue()
        self._waiting[msgid] = queue
        self._post(data)
        return msgid, queue, until

    def _post(self, data):
        if self._writer is not None:
            self._writer.write(data)

    async def _receive(self, queue, until, progress):
        while True:
            left = None if until is None else max(0, until - time.monotonic())
            try:
                message = await asyncio.wait_for(queue.get(), left)
            except asyncio.TimeoutError:
                raise _timeout("maybe") from None
            if isinstance(message, UrdError):
                raise message
            if message[0] != 2:
                return message
            if progress is not None:
                progress(message[2][1])

    def _result(self, message):
        if message[2] is not None:
            raise _error(message[2])
        return message[3]

    def _forget(self, msgid, done):
        if self._waiting.pop(msgid, None) is not None and not done:
            self._post(_frame([2, "urd.cancel", [msgid]]))

    async def _read(self, reader, writer):
        frames = _Frames()
        reason = "end of file"
        try:
            while True:
                data = await reader.read(1 << 16)
                if not data:
                    break
                frames.buf += data
                while True:
                    message = frames.next()
                    if message is None:
                        break
                    if message[0] != 2:
                        msgid = message[1]
                    else:
                        msgid = (_progress(message) or [None])[0]
                    queue = self._waiting.get(msgid)
                    if queue is not None:
                        queue.put_nowait(message)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            reason = exc
        if self._writer is writer:
            self._drop(_lost("maybe", reason))

    def _drop(self, exc):
        waiting, self._waiting = self._waiting, {}
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reading = None
        for queue in waiting.values():
            queue.put_nowait(exc)
