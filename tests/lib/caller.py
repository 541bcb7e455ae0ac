# SPDX-License-Identifier: MIT
"""A client that tells apart what is said about its requests: answers, chunks,
progress; and the workers that the checks of streams have in common."""

import select
import struct

import msgpack
from daemon import ECHO, PYTHON, WORKERS, Client, must, same

SDK = {"c": [ECHO], "py": [PYTHON, WORKERS + "/echo.py"],
       "php": ["php", WORKERS + "/echo.php"], "node": ["node", WORKERS + "/echo.mjs"]}
STREAM = [PYTHON, WORKERS + "/stream.py"]
# of concurrency 4, and which method of theirs sleeps without keeping the others from it
ASYNC = {"py": (SDK["py"] + ["async"], "asleep"), "node": (SDK["node"] + ["async"], "sleep")}
STREAMED = {"stream": True}
ENDLESS = {"n": 1 << 30}
CREDIT = 16
MIB = 1 << 20


class Caller(Client):
    """A connection whose messages are sorted by the request that they are about."""

    def __init__(self, daemon):
        super().__init__(daemon.sock)
        self.kept = {}

    def take(self, size):
        """So many bytes; None at the end."""
        data = bytearray(size)
        view = memoryview(data)
        while view:
            n = self.sock.recv_into(view)
            if not n:
                return None
            view = view[n:]
        return data

    def recv(self):
        head = self.take(4)
        body = head and self.take(struct.unpack(">I", head)[0])
        return body and msgpack.unpackb(body, raw=False, strict_map_key=False)

    def hold(self):
        """Keep a worker busy: it has the request, and waits until it is let go."""
        msgid = self.send("report", [0], {"stream": True, "progress": True})
        same(self.next(msgid), [2, "urd.progress", [msgid, 0]], "held")
        return msgid

    def let_go(self, msgid):
        self.grant(msgid, 1)
        same(self.answer(msgid), (None, 1), "let go")

    def next(self, msgid):
        """The next message about a request: an answer, a chunk, or progress."""
        kept = self.kept.setdefault(msgid, [])
        while not kept:
            message = self.recv()
            must(message is not None, "the connection ended")
            about = message[1] if message[0] != 2 else message[2][0]
            self.kept.setdefault(about, []).append(message)
        return kept.pop(0)

    def grant(self, msgid, n):
        self.notify("urd.credit", [msgid, n])

    def cancel(self, msgid):
        self.notify("urd.cancel", [msgid])

    def chunks(self, msgid, n):
        """So many chunks of a stream, and no more credit for it."""
        out = []
        for _ in range(n):
            tag, _, data = self.next(msgid)[:3]
            same(tag, 3, "a chunk")
            out.append(data)
        return out

    def answer(self, msgid):
        message = self.next(msgid)
        same(message[0], 1, "the answer")
        return message[2], message[3]

    def name(self, msgid):
        """How a request failed."""
        error, result = self.answer(msgid)
        must(error is not None, "a success: %.100r" % (result,))
        return error["name"], error["executed"]

    def all(self, msgid):
        """All chunks, for each of which another is granted, and the result."""
        out = []
        while True:
            message = self.next(msgid)
            if message[0] == 1:
                must(message[2] is None, message[2])
                return out, message[3]
            out.append(message[2])
            self.grant(msgid, 1)

    def silent(self, seconds):
        """Nothing comes?  There is no event that says so: time must pass."""
        return not any(self.kept.values()) and not select.select([self], [], [], seconds)[0]
