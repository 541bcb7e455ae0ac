#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Check the worker SDKs against docs/worker-protocol.md.

    sdk_check.py [path of the C echo worker]

Plays the daemon: starts tests/workers/echo.* of each language with pipes on 3
to 6 and looks at every byte that comes back.  Prints a line per check and
exits with a status other than 0 if one failed.
SDK_CHECK_ONLY="php c" in the environment leaves the others out.
"""

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import msgpack

sys.dont_write_bytecode = True

from peer import PATIENCE, Peer, Score, same, values  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKERS = os.path.join(ROOT, "tests", "workers")
FEATURES = {"meta", "cancel", "stream"}


# Each check gets a ready peer and the language; it raises if it is not content.

def check_ready(make, lang):
    peer = make(ready=False)
    hello = peer.ready()
    assert hello["pid"] == peer.proc.pid and hello["protocol"] == 1, hello
    assert FEATURES <= set(hello["features"]), hello
    assert {"echo", "sleep", "fail", "die", "stream"} <= set(hello["methods"]), hello
    assert hello["concurrency"] == (4 if lang.endswith("async") else 1), hello
    assert hello["sdk"].split("/")[0] == {"py": "python"}.get(lang[:2], lang.split("-")[0]), hello


def check_echo(make, lang):
    peer = make()
    for value in values(lang.split("-")[0]):
        error, result = peer.call("echo", value)
        assert error is None and same(value, result), (str(value)[:80], str(result)[:80], error)


def check_echo_not_utf8(make, lang):
    peer = make()
    raw = b"\xa4\xff\xfe\x00\xc3"
    peer.send_raw(peer.task, b"\x94\x00\x05\xa4echo" + raw)
    head = os.read(peer.answers, 4)
    body = os.read(peer.answers, struct.unpack(">I", head)[0])
    # Node tells such a string from text by answering with a binary
    assert body.endswith(raw[1:]), body


def check_split(make, lang):
    peer = make()
    body = msgpack.packb([0, 77, "echo", ["split", 1]])
    for byte in struct.pack(">I", len(body)) + body:
        os.write(peer.task, bytes([byte]))
    assert peer.recv(peer.answers) == [1, 77, None, ["split", 1]]


def check_errors(make, lang):
    peer = make()
    error, result = peer.call("fail")
    assert result is None and error["code"] == -32603 and error["message"] == "it failed", error
    assert "retry" not in error, error
    for word, code, text in (("retry", 7, "try again"), ("fatal", 8, "give up")):
        error, _ = peer.call("fail", word)
        assert error["code"] == code and error["message"] == text, error
        if lang != "c":
            assert error["retry"] is (word == "retry"), error
    error, _ = peer.call("no-such-method")
    assert error["code"] == -32601 and "no-such-method" in error["message"], error
    assert peer.call("echo", 1) == (None, 1)


def check_meta(make, lang):
    peer = make()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    _, got = peer.call("meta", None, {"deadline_ms": 60000, "attempt": 3, "traceparent": trace,
                                      "unknown": [1]})
    assert (got["attempt"], got["trace"], got["stream"]) == (3, trace, False), got
    assert 50000 < got["deadline"] <= 60000, got
    for meta in (None, {}):
        _, got = peer.call("meta", None, meta)
        assert got == {"attempt": 1, "trace": None, "stream": False, "deadline": None}, got


def check_noise(make, lang):
    peer = make()
    error, _ = peer.call("noise")
    assert error is None, error
    assert peer.call("echo", "after") == (None, "after")
    peer.eof()
    assert peer.wait() == 0
    for thread in peer.drains:
        thread.join(PATIENCE)
    assert peer.text["out"] == [b"noise on stdout\n"] * 1000, len(peer.text["out"])
    assert peer.text["err"].count(b"noise on stderr\n") == 1000


def check_pid(make, lang):
    peer = make()
    assert peer.call("pid") == (None, peer.proc.pid)


def check_die(make, lang):
    peer = make()
    peer.request("die")
    assert peer.recv(peer.answers) is None
    assert peer.wait() == -signal.SIGKILL
    peer = make()
    peer.request("die", {"exit": 7})
    assert peer.recv(peer.answers) is None
    assert peer.wait() == 7


def check_eof(make, lang):
    peer = make()
    peer.eof()
    assert peer.wait() == 0, peer.stderr()
    assert peer.stderr() == "", peer.stderr()


def check_eof_busy(make, lang):
    peer = make()
    msgid = peer.request("sleep", {"ms": 100})
    peer.eof()
    assert peer.recv(peer.answers) == [1, msgid, None, "slept"]
    assert peer.wait() == 0, peer.stderr()


def check_sigint(make, lang):
    peer = make()
    os.kill(peer.proc.pid, signal.SIGINT)
    assert peer.call("echo", 1) == (None, 1)
    msgid = peer.request("sleep", {"ms": 100})
    os.kill(peer.proc.pid, signal.SIGINT)
    assert peer.recv(peer.answers) == [1, msgid, None, "slept"]


def check_sigterm_idle(make, lang):
    peer = make()
    assert peer.call("echo", 1) == (None, 1)
    os.kill(peer.proc.pid, signal.SIGTERM)
    assert peer.wait() == 0, peer.stderr()
    assert peer.recv(peer.answers) is None


def check_sigterm_busy(make, lang):
    peer = make()
    msgid = peer.request("progress", 1)
    peer.recv(peer.answers)
    peer.recv(peer.up)
    msgid = peer.request("sleep", {"ms": 300})
    # the request is at hand once the pipe is empty
    end = time.monotonic() + PATIENCE
    while struct.unpack("i", fcntl.ioctl(peer.task, 0x541B, b"\0\0\0\0"))[0]:
        assert time.monotonic() < end
    os.kill(peer.proc.pid, signal.SIGTERM)
    assert peer.recv(peer.answers) == [1, msgid, None, "slept"]
    assert peer.wait() == 0, peer.stderr()


def check_sigterm_unread(make, lang):
    """A request that was sent before SIGTERM is served, not lost."""
    peer = make()
    os.kill(peer.proc.pid, signal.SIGSTOP)
    msgid = peer.request("echo", "first")
    os.kill(peer.proc.pid, signal.SIGTERM)
    os.kill(peer.proc.pid, signal.SIGCONT)
    assert peer.recv(peer.answers) == [1, msgid, None, "first"]
    assert peer.wait() == 0, peer.stderr()


def check_gone(make, lang):
    """urd goes away in mid request: the worker leaves and says nothing."""
    peer = make()
    peer.request("sleep", {"ms": 200})
    os.close(peer.answers)
    peer.answers = -1
    assert peer.wait(PATIENCE) == 0, peer.stderr()
    for thread in peer.drains:
        thread.join(PATIENCE)
    assert peer.stderr() == "", peer.stderr()


def check_garbage(make, lang):
    """Nonsense on fd 3 ends the worker with a status that is not 0."""
    for data in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2\x91\x00",
                 b"\0\0\0\4\x94\x01\x01\xc0"):
        peer = make()
        os.write(peer.task, data)
        peer.eof()
        assert peer.wait() not in (0, None), data
        assert peer.recv(peer.answers) is None, data
    peer = make()
    os.write(peer.task, b"\0\0\0\5\x94\x00")
    peer.eof()
    assert peer.wait() != 0


def check_notification(make, lang):
    """Unknown notifications are ignored on both channels."""
    peer = make()
    peer.send(peer.task, [2, "who.knows", [1]])
    peer.send(peer.down, [2, "control.unheard-of", {"a": 1}])
    peer.send(peer.down, [2, "control.cancel", [4711]])
    peer.send(peer.down, [2, "control.shutdown", None])
    assert peer.call("echo", 1) == (None, 1)


def check_grandchild(make, lang):
    peer = make()
    error, child = peer.call("spawn")
    assert error is None, error
    try:
        end = time.monotonic() + PATIENCE
        while os.readlink("/proc/%d/exe" % child).split("/")[-1] not in ("sleep", "busybox",
                                                                         "coreutils"):
            assert time.monotonic() < end
        peer.eof()
        assert peer.wait() == 0, peer.stderr()
        assert peer.recv(peer.answers, 5) is None  # end of file although the child lives
        assert peer.recv(peer.up, 5) is None
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def check_cancel(make, lang):
    peer = make()
    msgid = peer.request("sleep", {"ms": 15000})
    peer.send(peer.down, [2, "control.cancel", [msgid]])
    began = time.monotonic()
    tag, got, error, result = peer.recv(peer.answers)
    assert (tag, got) == (1, msgid)
    assert error is not None or result == "cancelled", (error, result)
    assert time.monotonic() - began < 10
    # a cancel that comes too late hits nobody
    peer.send(peer.down, [2, "control.cancel", [msgid]])
    msgid = peer.request("sleep", {"ms": 20})
    assert peer.recv(peer.answers) == [1, msgid, None, "slept"]


def check_cancel_early(make, lang):
    """Request and cancel are both there before the worker looks."""
    peer = make()
    for _ in range(5):
        os.kill(peer.proc.pid, signal.SIGSTOP)
        msgid = peer.request("sleep", {"ms": 8000})
        peer.send(peer.down, [2, "control.cancel", [msgid]])
        os.kill(peer.proc.pid, signal.SIGCONT)
        tag, got, error, result = peer.recv(peer.answers, 6)
        assert (tag, got) == (1, msgid)
        assert error is not None or result == "cancelled", (error, result)


def check_stream(make, lang):
    peer = make()
    msgid = peer.request("stream", 40, {"stream": True})
    for i in range(16):
        assert peer.recv(peer.answers) == [3, msgid, i]
    assert peer.quiet(peer.answers, 0.3), "more than the credit"
    peer.send(peer.down, [2, "control.credit", [msgid, 4]])
    for i in range(16, 20):
        assert peer.recv(peer.answers) == [3, msgid, i]
    assert peer.quiet(peer.answers, 0.3), "more than the credit"
    peer.send(peer.down, [2, "control.credit", [msgid, 100]])
    for i in range(20, 40):
        assert peer.recv(peer.answers) == [3, msgid, i]
    assert peer.recv(peer.answers) == [1, msgid, None, None]


def check_stream_cancel(make, lang):
    peer = make()
    msgid = peer.request("stream", 1000, {"stream": True})
    for i in range(16):
        peer.recv(peer.answers)
    peer.send(peer.down, [2, "control.cancel", [msgid]])
    tag, got, error, _ = peer.recv(peer.answers)
    assert (tag, got) == (1, msgid) and error is not None, error
    assert peer.call("echo", 1) == (None, 1)


def check_stream_unasked(make, lang):
    """The caller did not ask for chunks: none come."""
    peer = make()
    error, result = peer.call("stream", 20)
    if lang == "c":
        assert error is not None
    else:
        assert error is None and result == list(range(20)), (error, result)


def check_retire(make, lang):
    peer = make()
    assert peer.call("retire")[0] is None
    assert peer.recv(peer.up) == [2, "control.retire", None]
    assert peer.call("echo", 1) == (None, 1)  # it goes when urd says so


def check_progress(make, lang):
    peer = make()
    msgid = peer.request("progress", 5)
    assert peer.recv(peer.answers) == [1, msgid, None, 5]
    for i in range(5):
        assert peer.recv(peer.up) == [2, "control.progress", [msgid, i]]


def check_heartbeat(make, lang):
    peer = make()
    assert peer.call("beat")[0] is None
    assert peer.recv(peer.up) == [2, "control.heartbeat", None]


def check_concurrent(make, lang):
    """Four at once, answered in the order they end (asynchronous workers)."""
    peer = make()
    ids = [peer.request("sleep", {"ms": ms}) for ms in (900, 600, 300, 0)]
    got = [peer.recv(peer.answers)[1] for _ in ids]
    assert got == ids[::-1], (got, ids)


def check_large_both_ways(make, lang):
    """Large answers and requests of more than any pipe holds."""
    peer = make()
    value = "\u00e9" * (3 << 20)
    done = []

    def push():
        for _ in range(2):
            done.append(peer.request("echo", value))

    pusher = threading.Thread(target=push)
    pusher.start()
    answers = [peer.recv(peer.answers) for _ in range(2)]
    pusher.join()
    assert [a[1] for a in answers] == done
    assert all(a[3] == value for a in answers)


def check_raw_bin(make, lang):
    """PHP sends binary when told to."""
    peer = make()
    assert peer.call("bin", "\x00abc") == (None, b"\x00abc")


def check_no_objects(make, lang):
    """A nil key names a class to ext-msgpack: params must not make objects."""
    peer = make()
    peer.send_raw(peer.task, b"\x94\x00\x05\xa4echo\x82\xc0\xa8stdClass\xa1a\x01")
    tag, msgid, error, result = peer.recv(peer.answers)
    assert (tag, msgid, error) == (1, 5, None), error
    assert None not in result and result["a"] == 1, "it was an object: %r" % result


def check_not_started_by_urd(argv):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("URD_", "FOLK_"))}
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=PATIENCE, check=False)
    assert done.returncode != 0 and done.stderr, done


def check_folk(argv):
    """The folk protocol: two sockets, each in both directions."""
    task, theirs_task = socket.socketpair()
    control, theirs_control = socket.socketpair()

    def place():
        high = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 40) for s in (theirs_task, theirs_control)]
        for want, fd in zip((3, 4), high):
            os.dup2(fd, want)

    env = {k: v for k, v in os.environ.items() if not k.startswith("URD_")}
    env.update(FOLK_RUNTIME="pipe", FOLK_TASK_FD="3", FOLK_CONTROL_FD="4")
    proc = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, preexec_fn=place,
                            pass_fds=(3, 4))
    theirs_task.close()
    theirs_control.close()

    def recv(sock):
        sock.settimeout(PATIENCE)
        with sock.makefile("rb") as stream:
            return msgpack.unpackb(stream.read(struct.unpack(">I", stream.read(4))[0]))

    try:
        assert recv(control) == [2, "control.ready", {"pid": proc.pid}]
        for msgid in (1, 2):
            body = msgpack.packb([0, msgid, "echo", {"n": msgid}])
            task.sendall(struct.pack(">I", len(body)) + body)
            assert recv(task) == [1, msgid, None, {"n": msgid}]
        body = msgpack.packb([0, 9, "nope", None])
        task.sendall(struct.pack(">I", len(body)) + body)
        assert recv(task)[2]["code"] == -32601
        task.shutdown(socket.SHUT_WR)
        assert proc.wait(PATIENCE) == 0
    finally:
        proc.kill()
        proc.wait()
        task.close()
        control.close()


COMMON = [check_ready, check_echo, check_echo_not_utf8, check_split, check_errors, check_meta,
          check_noise, check_pid, check_die, check_eof, check_eof_busy, check_sigint,
          check_sigterm_idle, check_sigterm_busy, check_sigterm_unread, check_gone, check_garbage,
          check_notification, check_grandchild, check_cancel, check_cancel_early, check_stream,
          check_stream_cancel, check_stream_unasked, check_retire, check_progress,
          check_heartbeat, check_large_both_ways]


def languages(c_worker):
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    found = [("python", [python, os.path.join(WORKERS, "echo.py")]),
             ("php", [shutil.which("php"), os.path.join(WORKERS, "echo.php")]),
             ("node", [shutil.which("node"), os.path.join(WORKERS, "echo.mjs")])]
    if c_worker:
        found.append(("c", [c_worker]))
    out = []
    for lang, argv in found:
        out.append((lang, argv, list(COMMON)))
        if lang == "php":
            out[-1][2].extend([check_raw_bin, check_no_objects])
        if lang in ("python", "node"):
            out.append((lang + "-async", argv + ["async"], COMMON + [check_concurrent]))
    return out


def main():
    only = os.environ.get("SDK_CHECK_ONLY", "").split()
    score = Score()
    for lang, argv, checks in languages(sys.argv[1] if len(sys.argv) > 1 else None):
        if only and lang not in only:
            continue
        if not argv[0]:
            print("FAIL %-13s is not installed" % lang)
            score.failed += 1
            continue
        for check in checks:
            peers = []

            def make(ready=True):
                peer = Peer(argv)
                peers.append(peer)
                if ready:
                    peer.ready()
                return peer

            score.run(lang, check, make, lang)
            for peer in peers:
                peer.close()
        if not lang.endswith("-async"):
            score.run(lang, check_not_started_by_urd, argv)
        if lang in ("python", "php"):
            score.run(lang, check_folk, argv)
    return score.total()


if __name__ == "__main__":
    sys.exit(main())
