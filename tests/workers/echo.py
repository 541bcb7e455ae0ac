# SPDX-License-Identifier: MIT
"""The test worker in Python.  The same methods exist in C, PHP and Node."""

import asyncio
import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "src", "sdk", "python"))

from urd_worker import Fatal, Retry, worker  # noqa: E402

started = []


@worker.setup
def setup():
    started.append(os.getpid())


@worker.method("echo")
def echo(params, ctx):
    return params


@worker.method("sleep")
def sleep(params, ctx):
    """Sleep params["ms"]; a cancel ends it."""
    end = time.monotonic() + params["ms"] / 1000
    while time.monotonic() < end:
        if ctx.cancelled:
            return "cancelled"
        time.sleep(min(0.005, max(0, end - time.monotonic())))
    return "slept"


@worker.method("fail")
def fail(params, ctx):
    if params == "retry":
        raise Retry("try again", code=7)
    if params == "fatal":
        raise Fatal("give up", code=8)
    raise ValueError("it failed")


@worker.method("die")
def die(params, ctx):
    """Leave without an answer: with a status if one is given, else by SIGKILL."""
    if isinstance(params, dict) and "exit" in params:
        os._exit(params["exit"])
    os.kill(os.getpid(), signal.SIGKILL)


@worker.method("noise")
def noise(params, ctx):
    for _ in range(1000):
        print("noise on stdout")
        print("noise on stderr", file=sys.stderr)
    return None


@worker.method("pid")
def pid(params, ctx):
    assert started == [os.getpid()]
    return os.getpid()


@worker.method("retire")
def retire(params, ctx):
    worker.retire()
    return None


@worker.method("progress")
def progress(params, ctx):
    for i in range(params):
        ctx.progress(i)
    return params


@worker.method("beat")
def beat(params, ctx):
    ctx.heartbeat()
    return None


@worker.method("meta")
def meta(params, ctx):
    return {"attempt": ctx.attempt, "trace": ctx.trace, "stream": ctx.wants_stream,
            "deadline": None if ctx.deadline is None else ctx.remaining_ms}


@worker.method("stream")
def stream(params, ctx):
    for i in range(params):
        yield i


@worker.method("spawn")
def spawn(params, ctx):
    """Start a child that outlives the worker; the answer is its pid."""
    null = subprocess.DEVNULL
    return subprocess.Popen(["sleep", "60"], stdin=null, stdout=null, stderr=null,
                            close_fds=False, start_new_session=True).pid


if "async" in sys.argv[1:]:
    # The same worker on the asyncio loop, four requests at a time.
    @worker.method("asleep")
    async def asleep(params, ctx):
        await asyncio.sleep(params["ms"] / 1000)
        return "slept"

    worker.run(concurrency=4)
else:
    worker.run()
