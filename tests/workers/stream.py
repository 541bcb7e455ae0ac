# SPDX-License-Identifier: MIT
"""A worker of streams, written on bare descriptors from docs/worker-protocol.md
alone: it counts its credit itself, or breaks the rules when it is asked to.

usage: stream.py [deaf] [CONCURRENCY]

deaf: it does not offer to be cancelled.
"""

import os
import select
import struct
import sys

import msgpack

TASK_IN, TASK_OUT, CONTROL_IN, CONTROL_OUT = (
    int(os.environ[name]) for name in
    ("URD_TASK_IN_FD", "URD_TASK_OUT_FD", "URD_CONTROL_IN_FD", "URD_CONTROL_OUT_FD"))
CREDIT_START = 16
seen = []
credit = {}
cancelled = set()


class Cancelled(Exception):
    pass


def send(fd, message):
    body = msgpack.packb(message)
    data = memoryview(struct.pack(">I", len(body)) + body)
    while data:
        data = data[os.write(fd, data):]


def take(fd, size):
    data = bytearray(size)
    view = memoryview(data)
    while view:
        n = os.readv(fd, [view])
        if not n:
            sys.exit(0)
        view = view[n:]
    return data


def receive(fd):
    (size,) = struct.unpack(">I", take(fd, 4))
    return msgpack.unpackb(take(fd, size))


def listen(timeout_s):
    """One message on the control channel, if it comes in time."""
    if not select.select([CONTROL_IN], [], [], timeout_s)[0]:
        return False
    _, method, params = receive(CONTROL_IN)
    if method == "control.credit":
        credit[params[0]] = credit.get(params[0], 0) + params[1]
    elif method == "control.cancel":
        cancelled.add(params[0])
    return True


def chunk(msgid, data):
    """With credit and unless cancelled, as it should be."""
    while listen(0) or not credit[msgid]:
        if msgid in cancelled:
            raise Cancelled
        if not credit[msgid]:
            listen(None)
    if msgid in cancelled:
        raise Cancelled
    credit[msgid] -= 1
    send(TASK_OUT, [3, msgid, data])


def wait_for_go(msgid):
    """Until the caller grants a chunk or cancels."""
    while credit[msgid] <= CREDIT_START and msgid not in cancelled:
        listen(None)
    if msgid in cancelled:
        raise Cancelled


def fill(i, params):
    return struct.pack(">I", i) * (params["size"] // 4) if "size" in params else i


def chunks(msgid, params):
    """n chunks, of size bytes if given, pause_ms after each; it stops for good at stall."""
    for i in range(params["n"]):
        if i == params.get("stall"):
            while msgid not in cancelled:
                listen(None)
            raise Cancelled
        chunk(msgid, fill(i, params))
        if "pause_ms" in params:
            listen(params["pause_ms"] / 1000)
    return params["n"]


def flood(msgid, params):
    """n chunks at once, whatever was asked for."""
    for i in range(params["n"]):
        send(TASK_OUT, [3, msgid, fill(i, params)])
    return params["n"]


def foreign(msgid, params):
    """A chunk of a request that is nobody's."""
    send(TASK_OUT, [3, msgid + params, 0])
    return params


def late(msgid, params):
    """It learns that it is cancelled, and sends a chunk and an answer all the same."""
    while msgid not in cancelled:
        listen(None)
    send(TASK_OUT, [3, msgid, "late"])
    return "late"


def report(msgid, params):
    """Progress, and the answer when the caller has said go."""
    for value in params:
        send(CONTROL_OUT, [2, "control.progress", [msgid, value]])
    wait_for_go(msgid)
    return len(params)


def misreport(msgid, params):
    """Progress that is nobody's, or nothing at all; it does no harm."""
    for value in ([msgid + 1000, 1], [msgid], [], None, 7, ["x", 1], [1 << 40, 1], [msgid, 1, 2]):
        send(CONTROL_OUT, [2, "control.progress", value])
    return None


METHODS = {
    "chunks": chunks, "flood": flood, "foreign": foreign, "late": late, "report": report,
    "misreport": misreport,
    "pid": lambda msgid, params: os.getpid(),
    "note": lambda msgid, params: params,
    "echo": lambda msgid, params: params,
    "seen": lambda msgid, params: seen,
    "zeros": lambda msgid, params: bytes(params),
}

ready = {"pid": os.getpid(), "protocol": 1, "features": ["meta", "stream", "cancel"]}
for word in sys.argv[1:]:
    if word == "deaf":
        ready["features"].remove("cancel")
    else:
        ready["concurrency"] = int(word)
send(CONTROL_OUT, [2, "control.ready", ready])
while True:
    request = receive(TASK_IN)
    number, name, args = request[1:4]
    credit[number] = CREDIT_START
    if name == "note":
        seen.append(args)
    try:
        send(TASK_OUT, [1, number, None, METHODS[name](number, args)])
    except Cancelled:
        send(TASK_OUT, [1, number, {"code": 1, "message": "cancelled"}, None])
    credit.pop(number)
    cancelled.discard(number)
