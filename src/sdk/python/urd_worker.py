# SPDX-License-Identifier: MIT
"""Write a urd worker in Python.

    from urd_worker import worker

    @worker.setup
    def load():
        ...                                # runs before "ready"

    @worker.method("resize")
    def resize(params, ctx):               # or: async def
        return params["width"] // 2

    @worker.method("lines")
    def lines(params, ctx):                # a generator streams
        yield from open(params["path"])

    worker.run()

One file; it needs Python 3.9 and the msgpack module (Debian: python3-msgpack).
Synchronous handlers and a concurrency of 1 are served by a plain loop in the
calling thread; coroutines or more concurrency by an asyncio loop, in which
plain functions run in threads.  print() is harmless: stdout goes to urd's log.
"""

import asyncio
import inspect
import os
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import msgpack

__all__ = ["Worker", "worker", "Context", "Request", "Error", "Retry", "Fatal", "Cancelled"]

SDK = "python/0.1"
CONTROL_MAX = 64 << 10
CREDIT_START = 16
NO_METHOD = -32601
BAD_PARAMS = -32602
FAILED = -32603
# Written at once from the event loop: what fits a pipe next to what may be in it.
DIRECT_MAX = 32 << 10


class Error(Exception):
    """An error answer with a code of your own; more keys may be given."""

    retry = None

    def __init__(self, message="", code=FAILED, **more):
        super().__init__(message)
        self.code = code
        self.more = more


class Retry(Error):
    """Trying again may help."""

    retry = True


class Fatal(Error):
    """Trying again will not help."""

    retry = False


class Cancelled(Error):
    """Nobody waits for the answer."""


class _Gone(Exception):
    """urd has gone; there is nobody to tell."""


def _pack(value):
    # PHP packs any bytes as str: surrogateescape brings them back unharmed.
    return msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")


def _unpack(data):
    return msgpack.unpackb(data, raw=False, strict_map_key=False,
                           unicode_errors="surrogateescape")


def _error_value(exc):
    if isinstance(exc, Error):
        value = {"code": exc.code, "message": str(exc)}
        if exc.retry is not None:
            value["retry"] = exc.retry
        value.update(exc.more)
        return value
    text = str(exc) or type(exc).__name__
    return {"code": FAILED, "message": text, "type": type(exc).__name__}


class _Frames:
    """Bytes in, whole payloads out."""

    def __init__(self, limit):
        self.limit = limit
        self.buf = bytearray()

    def next(self):
        buf = self.buf
        if len(buf) < 4:
            return None
        (length,) = struct.unpack_from(">I", buf)
        if not 0 < length <= self.limit:
            raise ValueError("frame of %d bytes" % length)
        end = 4 + length
        if len(buf) < end:
            return None
        payload = bytes(memoryview(buf)[4:end])
        del buf[:end]
        return payload


class Context:
    """What is known of a request besides its params."""

    def __init__(self, owner, msgid, meta):
        self._worker = owner
        self._cancel = False
        self._credit = CREDIT_START
        self._beat = None
        self._task = None
        self.msgid = msgid
        self.meta = meta
        #: W3C traceparent or None
        self.trace = meta.get("traceparent")
        #: 1 for the first try
        self.attempt = meta.get("attempt", 1)
        #: does the caller take chunks?
        self.wants_stream = meta.get("stream") is True
        left = meta.get("deadline_ms")
        #: end of the time allowed, as time.monotonic() counts, or None
        self.deadline = None if left is None else time.monotonic() + left / 1000

    @property
    def remaining_ms(self):
        """Milliseconds left, None if there is no limit."""
        if self.deadline is None:
            return None
        return max(0, int((self.deadline - time.monotonic()) * 1000))

    @property
    def cancelled(self):
        """True once nobody waits for the answer."""
        if not self._cancel and self._worker._loop is None:
            self._worker._listen(0)
        return self._cancel

    def progress(self, value):
        """Tell the caller how far it is, if it asked."""
        self._worker._notify("control.progress", [self.msgid, value])

    def heartbeat(self, every=None):
        """Say "still alive" once or, given a period in seconds, from a thread
        until the request is answered.  The latter also speaks for a handler
        that hangs: use it only around calls that bound their own time."""
        self._worker._notify("control.heartbeat", None)
        if every is not None and self._beat is None:
            self._beat = threading.Event()
            threading.Thread(target=self._beat_run, args=(every,), daemon=True).start()

    def _beat_run(self, every):
        while not self._beat.wait(every):
            try:
                self._worker._notify("control.heartbeat", None)
            except (_Gone, OSError):
                return

    def _done(self):
        if self._beat is not None:
            self._beat.set()


class Request:
    """A request of the raw loop: answer it once, with reply() or fail()."""

    def __init__(self, owner, msgid, method, params, meta):
        self._worker = owner
        self.msgid = msgid
        self.method = method
        self.params = params
        self.ctx = Context(owner, msgid, meta)
        self.answered = False

    def _answer(self, error, result):
        if self.answered:
            raise RuntimeError("request %d is answered already" % self.msgid)
        data = _pack([1, self.msgid, error, result])
        self.answered = True
        return data

    def _pack_answer(self, error, result):
        try:
            return self._answer(error, result)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            text = "the answer cannot be packed: %s" % exc
            return self._answer({"code": FAILED, "message": text}, None)

    def reply(self, result):
        self._worker._send_task(self._pack_answer(None, result))
        self._finish()

    def fail(self, code, message, **more):
        self._worker._send_task(self._pack_answer(dict(more, code=code, message=message), None))
        self._finish()

    def _finish(self):
        self.ctx._done()
        self._worker._open.pop(self.msgid, None)


class Worker:
    """A worker; one per process is enough, the module's `worker`."""

    def __init__(self, request_max=64 << 20):
        self._methods = {}
        self._fallback = None
        self._setups = []
        self._request_max = request_max
        self._concurrency = 1
        self._open = {}
        self._queue = deque()
        self._loop = None
        self._attached = False
        self._said_ready = False
        self._term = False
        self._last = False
        self._eof = False
        self._lock = threading.Lock()
        #: has urd announced the end?
        self.stopping = False

    # Registration

    def setup(self, fn):
        """Decorator: run once before the worker says ready."""
        self._setups.append(fn)
        return fn

    def method(self, name):
        """Decorator: serve a method."""

        def register(fn):
            if name in self._methods:
                raise ValueError("method %r is served already" % name)
            self._methods[name] = fn
            return fn

        return register

    def fallback(self, fn):
        """Decorator: serve whatever has no handler; fn(method, params, ctx)."""
        self._fallback = fn
        return fn

    # Descriptors

    def _attach(self):
        if self._attached:
            return
        env = os.environ
        if "URD_TASK_IN_FD" in env:
            names = ("URD_TASK_IN_FD", "URD_TASK_OUT_FD", "URD_CONTROL_IN_FD",
                     "URD_CONTROL_OUT_FD")
            self._folk = False
        elif "FOLK_TASK_FD" in env and "FOLK_CONTROL_FD" in env:
            names = ("FOLK_TASK_FD", "FOLK_TASK_FD", "FOLK_CONTROL_FD", "FOLK_CONTROL_FD")
            self._folk = True
        else:
            raise RuntimeError("not started by urd: URD_TASK_IN_FD is not set")
        self._fds = [int(env[name]) for name in names]
        self._task_in, self._task_out, self._control_in, self._control_out = self._fds
        for fd in self._fds:
            os.set_inheritable(fd, False)
        self._pid = os.getpid()
        os.register_at_fork(after_in_child=self._forked)
        self._task = _Frames(self._request_max)
        self._control = _Frames(CONTROL_MAX)
        self._wake_in = -1
        if threading.current_thread() is threading.main_thread():
            self._wake_in, self._wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, self._on_term)
        try:
            sys.stdout.reconfigure(line_buffering=True)  # the log should not lag behind
        except (AttributeError, ValueError, OSError):
            pass
        self._attached = True

    def _forked(self):
        # A forked child that holds the pipes would hide the worker's end.
        if self._wake_in >= 0:
            signal.set_wakeup_fd(-1)
            self._fds += [self._wake_in, self._wake_out]
        for fd in set(self._fds):
            try:
                os.close(fd)
            except OSError:
                pass
        self._fds = []

    def _on_term(self, signum, frame):
        if os.getpid() != self._pid:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        self._term = True
        self.stopping = True

    # Sending

    def _write(self, fd, payload):
        data = memoryview(struct.pack(">I", len(payload)) + payload)
        try:
            with self._lock:
                while data:
                    try:
                        data = data[os.write(fd, data):]
                    except BlockingIOError:
                        select.select([], [fd], [])
        except (BrokenPipeError, ConnectionResetError):
            raise _Gone from None

    def _send_task(self, payload):
        self._write(self._task_out, payload)

    def _notify(self, method, params):
        if self._folk and method != "control.ready":
            return
        payload = _pack([2, method, params])
        if len(payload) > CONTROL_MAX:
            raise ValueError("more than the control channel takes: %d bytes" % len(payload))
        self._write(self._control_out, payload)

    def ready(self):
        """Say ready; run() and next() do it if you did not."""
        self._attach()
        if self._said_ready:
            return
        self._said_ready = True
        if self._folk:
            self._notify("control.ready", {"pid": os.getpid()})
            return
        hello = {
            "pid": os.getpid(),
            "protocol": 1,
            "concurrency": self._concurrency,
            "features": ["meta", "cancel", "stream", "shutdown"],
            "sdk": SDK,
        }
        if self._methods and self._fallback is None:
            hello["methods"] = list(self._methods)
        self._notify("control.ready", hello)

    def retire(self):
        """Ask urd to replace this worker."""
        self._notify("control.retire", None)

    def heartbeat(self):
        """Say "still alive"."""
        self._notify("control.heartbeat", None)

    # Receiving

    def _readable(self, timeout, *fds):
        poller = select.poll()
        for fd in fds:
            if fd >= 0:
                poller.register(fd, select.POLLIN)
        return {fd for fd, _ in poller.poll(timeout)}

    def _request(self, payload):
        """A Request, or None for what is not one."""
        try:
            message = _unpack(payload)
        except Exception as exc:
            message = self._salvage(payload, exc)
        if not isinstance(message, list) or not message:
            raise ValueError("not a message")
        if message[0] == 2:
            return None
        if message[0] != 0 or len(message) not in (4, 5):
            raise ValueError("not a request")
        meta = message[4] if len(message) == 5 else {}
        method = message[2]
        if isinstance(method, bytes):
            method = method.decode("utf-8", "surrogateescape")
        request = Request(self, message[1], method, message[3],
                          meta if isinstance(meta, dict) else {})
        self._open[request.msgid] = request
        return request

    def _salvage(self, payload, exc):
        """Params that Python has no type for are an error of their own."""
        unpacker = msgpack.Unpacker(raw=False, max_buffer_size=len(payload))
        unpacker.feed(payload)
        unpacker.read_array_header()
        if unpacker.unpack() != 0:
            raise exc
        msgid = unpacker.unpack()
        text = "params cannot be decoded: %s" % exc
        self._send_task(_pack([1, msgid, {"code": BAD_PARAMS, "message": text}, None]))
        return [2, "", None]

    def _pump_task(self):
        """Read what is there; False at the end of file."""
        data = os.read(self._task_in, 1 << 16)
        if not data:
            if self._task.buf:
                raise ValueError("end of file within a frame")
            return False
        self._task.buf += data
        while True:
            payload = self._task.next()
            if payload is None:
                return True
            request = self._request(payload)
            if request is not None:
                self._queue.append(request)

    def _read_control(self):
        data = os.read(self._control_in, 1 << 16) if self._control_in >= 0 else b""
        if not data:
            self._control_in = -1
        self._control.buf += data

    def _apply_control(self):
        while True:
            payload = self._control.next()
            if payload is None:
                return
            message = _unpack(payload)
            if not isinstance(message, list) or len(message) != 3 or message[0] != 2:
                continue
            method, params = message[1], message[2]
            if method == "control.shutdown":
                self.stopping = True
            elif isinstance(params, list) and params and isinstance(params[0], int):
                self._apply(method, params)

    def _apply(self, method, params):
        request = self._open.get(params[0])
        if request is None:
            return
        if method == "control.cancel":
            request.ctx._cancel = True
            if request.ctx._task is not None:
                request.ctx._task.cancel()
        elif method == "control.credit" and len(params) > 1:
            request.ctx._credit += params[1]

    def _listen(self, timeout):
        """Read the control channel; False if nothing came or will come."""
        if self._folk or self._control_in < 0:
            return False
        if not self._readable(timeout, self._control_in):
            return False
        self._read_control()
        self._apply_control()
        return self._control_in >= 0

    def _pump_control(self):
        """Control bytes while idle.  A cancel is written after its request, but
        on another pipe: look for the request once more before it is dropped."""
        self._read_control()
        more = True
        while more and self._readable(0, self._task_in):
            more = self._pump_task()
        self._apply_control()
        return more

    def next(self):
        """Raw loop: the next Request, None at the end."""
        self.ready()
        control = -1 if self._folk else self._control_in
        while not self._queue:
            if self._last or self._eof:
                return None
            # After SIGTERM only what is in the pipe already is served, once.
            idle = self._term and not self._task.buf
            there = self._readable(0 if idle else None, self._task_in, control, self._wake_in)
            if self._wake_in in there:
                os.read(self._wake_in, 512)
            if self._task_in in there:
                self._eof = not self._pump_task()
            elif control in there:
                self._eof = not self._pump_control()
                control = self._control_in
            elif idle:
                return None
        self._last = self._last or self._term
        return self._queue.popleft()

    # Serving

    def run(self, concurrency=1):
        """Set up, say ready, serve until the end.  Returns 0."""
        self._concurrency = concurrency
        handlers = list(self._methods.values()) + self._setups
        if self._fallback is not None:
            handlers.append(self._fallback)
        self._attach()
        if self._folk:
            self._concurrency = 1
        is_async = any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f)
                       for f in handlers)
        try:
            if is_async or self._concurrency > 1:
                asyncio.run(_Serve(self).run())
            else:
                self._run_plain()
        except _Gone:
            self._quiet()
        return 0

    def _quiet(self):
        # The reader of stdout went as well: keep the interpreter from complaining.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, ValueError, OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _run_plain(self):
        for fn in self._setups:
            fn()
        while True:
            request = self.next()
            if request is None:
                return
            try:
                result = self._find(request)()
                if inspect.isgenerator(result):
                    result = self._stream(request, result)
                data = request._pack_answer(None, result)
            except Exception as exc:
                if isinstance(exc, _Gone):
                    raise
                data = self._failed(request, exc)
            self._send_task(data)
            request._finish()

    def _find(self, request):
        fn = self._methods.get(request.method)
        if fn is not None:
            return lambda: fn(request.params, request.ctx)
        if self._fallback is not None:
            return lambda: self._fallback(request.method, request.params, request.ctx)
        raise Error("method not found: %s" % request.method, NO_METHOD)

    def _failed(self, request, exc):
        if not isinstance(exc, Error):
            traceback.print_exception(type(exc), exc, exc.__traceback__)
        return request._pack_answer(_error_value(exc), None)

    def _stream(self, request, generator):
        """Send what a generator yields.  Without a stream it is a list."""
        ctx = request.ctx
        if not ctx.wants_stream:
            return list(generator)
        while True:
            try:
                item = next(generator)
            except StopIteration as stop:
                return stop.value
            data = _pack([3, request.msgid, item])
            while not ctx.cancelled and not ctx._credit:
                if not self._listen(None) and self._control_in < 0:
                    raise _Gone
            if ctx.cancelled:
                generator.close()
                raise Cancelled("cancelled")
            ctx._credit -= 1
            self._send_task(data)


class _Serve:
    """The asyncio way of serving: coroutines, or more than one request at once."""

    def __init__(self, owner):
        self.w = owner
        self.tasks = set()
        self.order = asyncio.Lock()

    async def run(self):
        w = self.w
        w._loop = self.loop = asyncio.get_running_loop()
        self.pool = ThreadPoolExecutor(max_workers=w._concurrency)
        self.over = self.loop.create_future()
        self.credit = asyncio.Condition()
        for fn in w._setups:
            done = fn()
            if inspect.isawaitable(done):
                await done
        if threading.current_thread() is threading.main_thread():
            # The loop brings its own wakeup descriptor and gives signals to callbacks.
            self.loop.add_signal_handler(signal.SIGTERM, self.on_term)
        w.ready()
        self.loop.add_reader(w._task_in, self.guard, self.drain)
        if not w._folk:
            self.loop.add_reader(w._control_in, self.guard, self.on_control)
        if w._term:
            self.on_term()
        try:
            await self.over
            while self.tasks:
                await asyncio.wait(self.tasks)
        finally:
            self.loop.remove_reader(w._task_in)
            if w._control_in >= 0 and not w._folk:
                self.loop.remove_reader(w._control_in)
            self.pool.shutdown(wait=False)
        if self.over.result() is not None:
            raise self.over.result()

    def end(self, exc=None):
        if not self.over.done():
            self.over.set_result(exc)
        self.loop.remove_reader(self.w._task_in)

    def guard(self, fn):
        try:
            fn()
        except Exception as exc:
            self.end(exc)

    def on_term(self):
        self.w._term = self.w.stopping = True
        self.guard(self.drain)
        self.end()

    def drain(self):
        # The descriptor blocks, and another callback of the same turn may have read it.
        while not self.over.done() and self.w._readable(0, self.w._task_in):
            more = self.w._pump_task()
            self.start_all()
            if not more:
                self.end()

    def on_control(self):
        fd = self.w._control_in
        self.w._read_control()
        self.drain()
        self.w._apply_control()
        if self.w._control_in < 0:
            self.loop.remove_reader(fd)
        self.loop.create_task(self.wake())

    async def wake(self):
        async with self.credit:
            self.credit.notify_all()

    def start_all(self):
        while self.w._queue:
            request = self.w._queue.popleft()
            task = self.loop.create_task(self.serve(request))
            self.tasks.add(task)
            task.add_done_callback(self.done)

    def done(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.end(task.exception())

    async def serve(self, request):
        try:
            try:
                data = request._pack_answer(None, await self.call(request))
            except asyncio.CancelledError:
                data = self.w._failed(request, Cancelled("cancelled"))
            except _Gone:
                raise
            except Exception as exc:
                data = self.w._failed(request, exc)
            request.ctx._task = None  # from here on there is nothing to cancel
            await self.send(data)
        finally:
            request._finish()

    async def send(self, data):
        async with self.order:
            if len(data) <= DIRECT_MAX:
                self.w._send_task(data)
            else:
                await self.loop.run_in_executor(None, self.w._send_task, data)

    async def call(self, request):
        w = self.w
        fn = w._methods.get(request.method, w._fallback)
        call = w._find(request)
        if request.ctx._cancel:
            raise Cancelled("cancelled")
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            # A task that has not begun would be cancelled without an answer.
            request.ctx._task = asyncio.current_task()
            result = call()
        else:
            # A thread cannot be cancelled: it looks at ctx.cancelled.
            result = await self.loop.run_in_executor(self.pool, call)
        if inspect.isawaitable(result):
            result = await result
        if inspect.isasyncgen(result):
            return await self.stream(request, result)
        if inspect.isgenerator(result):
            return await self.stream(request, self.threaded(result))
        return result

    async def threaded(self, generator):
        """A plain generator, advanced in a thread."""
        end = object()
        try:
            while True:
                item = await self.loop.run_in_executor(self.pool, next, generator, end)
                if item is end:
                    return
                yield item
        finally:
            generator.close()

    async def stream(self, request, items):
        ctx = request.ctx
        if not ctx.wants_stream:
            return [item async for item in items]
        try:
            async for item in items:
                data = _pack([3, request.msgid, item])
                async with self.credit:
                    await self.credit.wait_for(lambda: ctx._cancel or ctx._credit)
                if ctx._cancel:
                    raise Cancelled("cancelled")
                ctx._credit -= 1
                await self.send(data)
        finally:
            await items.aclose()
        return None


#: the worker of this process
worker = Worker()
