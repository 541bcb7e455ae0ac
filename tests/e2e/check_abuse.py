#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Slow, greedy, dying and malicious clients cost only themselves.

usage: check_abuse.py BUILD_DIR [CHECK...]
"""

import os
import resource
import select
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from daemon import BAD, ECHO, SLOWNESS, Client, Daemon, lives, must, run, same, until  # noqa: E402


def descriptors(d):
    return len(os.listdir("/proc/%d/fd" % d.pid))


def resident_mib(d):
    with open("/proc/%d/statm" % d.pid) as f:
        return int(f.read().split()[1]) * resource.getpagesize() / (1 << 20)


def others_fare_well(d, seconds=1.0):
    """A client of good manners is answered, and quickly."""
    client = d.client()
    begun = time.monotonic()
    for i in range(50):
        same(client.ok("echo", [i]), [i])
    must(time.monotonic() - begun < seconds * SLOWNESS, "%g s" % (time.monotonic() - begun))
    client.close()


def at_rest(d):
    """Descriptors of urd once its workers are ready and nobody is connected."""
    last = [0, 0.0]

    def still():
        now = descriptors(d)
        if now != last[0] or "worker ready" not in d.text():
            last[:] = [now, time.monotonic()]
        return time.monotonic() - last[1] > 0.1
    until(still, "the number of descriptors settles")
    return last[0]


def raw(d, data):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(d.sock)
    sock.settimeout(20)
    sock.sendall(data)
    return sock


def ends(sock):
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def send_what_fits(client, data):
    """Write until the other side takes no more for a while; bytes written."""
    client.sock.setblocking(False)
    sent = 0
    while sent < len(data) and select.select([], [client], [], 0.3)[1]:
        try:
            sent += client.sock.send(data[sent:sent + 65536])
        except BlockingIOError:
            pass
        except OSError:
            break
    return sent


def check_client_that_never_reads():
    with Daemon([ECHO], "workers=2", "queue_max=4096", "@client_write_timeout=1s") as d:
        client = d.client()
        message = client.pack([0, 1, "echo", "x" * 4096])
        data = message * 10000
        sent = send_what_fits(client, data)
        must(sent < len(data), "all of it was read, and the answers kept")
        others_fare_well(d)
        must(resident_mib(d) < 128 * SLOWNESS * SLOWNESS, "%g MiB" % resident_mib(d))
        # cut when its time is up; what was in the socket may still be read
        client.sock.setblocking(True)

        def drained():
            try:
                return client.sock.recv(1 << 20) == b""
            except ConnectionError:
                return True
        others_fare_well(d)
        until(lambda: descriptors_without(d, client), "it is cut")
        while not drained():
            pass
        others_fare_well(d)


def descriptors_without(d, client):
    """Its peer is closed: a write fails."""
    poll = select.poll()
    poll.register(client, select.POLLHUP)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


def check_malformed_beginnings():
    with Daemon([BAD, "ok"], "workers=1") as d:
        before = at_rest(d)
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x02\0\0\1\xc0", b"\x80",
                     b"\x92\0\1", b"\0\0\0\0", b"\1\0\0\1\x94", b"\1\xff\xff\xff", b"\0\0\0\1\xc1",
                     b"\0\0\0\2\xc0\xc0", b"\0\0\0\1\x90", b"\x94\1\1\xc0\xc0",
                     b"\x95\0\1\xa1m\xc0\xc1", b"\x94\0\xa1x\xa1m\xc0",
                     b"\x94" * 100):
            sock = raw(d, data)
            must(ends(sock), "not cut: %r" % data[:16])
            sock.close()
        others_fare_well(d)
        until(lambda: descriptors(d) == before, "no descriptor is left")


def check_malformed_requests_are_answered_if_they_can_be():
    with Daemon([BAD, "ok"], "workers=1") as d:
        pid = d.client().ok("pid")
        deep = b"\x91" * 100 + b"\xc0"
        for body in (b"\x94\0\7\xa1m" + deep,           # nests too deeply
                     b"\x94\0\7\xa1m\xc0\xc0",          # something after it
                     b"\x94\0\7\5\xc0",                 # a method that is no string
                     b"\x93\0\7\xa1m",                  # an element is missing
                     b"\x94\0\7\xda\1\0" + b"m" * 256 + b"\xc0"):
            client = d.client()
            client.sock.sendall(struct.pack(">I", len(body)) + body)
            message = client.recv()
            must(message is not None, "no answer to %r" % body[:16])
            same((message[1], message[2]["name"], message[2]["executed"]),
                 (7, "BAD_REQUEST", "no"), repr(body[:16]))
            client.close()
        same(d.client().ok("pid"), pid)


def check_half_a_frame():
    with Daemon([BAD, "ok"], "workers=1") as d:
        before = at_rest(d)
        data = struct.pack(">I", 1 << 20) + b"\x94\0\1\xa4echo\xc6"
        waiting = [raw(d, data[:n]) for n in range(1, len(data))]
        others_fare_well(d)
        for sock in waiting:
            sock.close()
        half = raw(d, data)
        half.shutdown(socket.SHUT_WR)
        must(ends(half), "the end within a frame is the end")
        until(lambda: descriptors(d) == before, "no descriptor is left")


def check_half_closed_client_gets_its_answers():
    with Daemon([BAD, "ok"], "workers=2") as d:
        client = d.client()
        ids = [client.send("slow", 50) for _ in range(4)]
        client.sock.shutdown(socket.SHUT_WR)
        same(sorted(client.recv()[1] for _ in ids), ids)
        must(client.ended())


def check_thousand_connections():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with Daemon([BAD, "ok"], "workers=2") as d:
        before = at_rest(d)
        idle = [d.client() for _ in range(1000)]
        others_fare_well(d)
        for client in idle[::10]:
            same(client.ok("echo", "still there"), "still there")
        for client in idle:
            client.close()
        until(lambda: descriptors(d) == before, "no descriptor is left")
        for _ in range(1000):
            socket.socket(socket.AF_UNIX).connect(d.sock)
        until(lambda: descriptors(d) == before, "no descriptor is left")
        others_fare_well(d)


def check_more_connections_than_allowed():
    with Daemon([BAD, "ok"], "workers=1", "@conns_max=10") as d:
        until(lambda: Client(d.sock).call("echo", 1), "the first")
        good = [d.client() for _ in range(10)]
        for client in good:
            client.ok("echo", 1)
        must(d.client().ended(), "one too many is closed")
        good.pop().close()

        def again():
            client = d.client()
            try:
                return client.ok("echo", 2) == 2
            except Exception:
                return False
        until(again, "there is room again")


def check_in_flight_limit():
    with Daemon([BAD, "ok"], "workers=1", "@conn_inflight_max=10", "exec_timeout=20s",
                "queue_timeout=20s") as d:
        client = d.client()
        ids = [client.send("slow", 300)] + [client.send("echo", i) for i in range(14)]
        refused = [client.recv() for _ in range(5)]
        same([m[1] for m in refused], ids[10:])
        same({m[2]["name"] for m in refused}, {"RATE"})
        same([client.recv()[2] for _ in range(10)], [None] * 10)


def check_client_that_dies():
    with Daemon([BAD, "ok"], "workers=1", "exec_timeout=20s", "queue_timeout=20s") as d:
        client = d.client()
        pid = client.ok("pid")
        begun = time.monotonic()
        client.send("slow", 400)
        for i in range(30):
            client.send("slow", 30000)  # would keep the worker busy for a quarter of an hour
        d.client().ok("urd.ping")
        client.close()
        same(d.client().ok("pid"), pid, "what ran has finished, what waited was dropped")
        must(0.3 < time.monotonic() - begun < 5 * SLOWNESS, "%g s" % (time.monotonic() - begun))


def check_client_that_dies_and_takes_the_worker_along():
    with Daemon([BAD, "ok"], "workers=1", "on_client_gone=kill", "backoff_min=10ms") as d:
        client = d.client()
        pid = client.ok("pid")
        client.send("hang")
        d.client().ok("urd.ping")
        client.close()
        until(lambda: not lives(pid), "the worker is killed")
        must(d.client().ok("pid") != pid)


def check_greedy_client():
    with Daemon([BAD, "ok"], "workers=2", "queue_max=4096") as d:
        client = d.client()
        data = client.pack([0, 1, "echo", "y" * 1000]) * 1000
        for _ in range(5):
            send_what_fits(client, data)
            others_fare_well(d)
        client.close()
        others_fare_well(d)


def check_reader_of_one_byte():
    with Daemon([BAD, "ok"], "workers=1") as d:
        client = d.client()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        msgid = client.send("echo", "z" * 300000)
        got = 0
        while got < 100:
            got += len(client.sock.recv(1))
        others_fare_well(d)
        rest = b""
        while got + len(rest) < 300000 + 4 + 4 + 5:
            rest += client.sock.recv(1000)
            if len(rest) % 50000 == 0:
                others_fare_well(d)
        same(rest[-1:], b"z")
        must(msgid == 1)


def check_burst_in_one_packet():
    """Many answers at once, to a client that then only waits."""
    with Daemon([BAD, "ok"], "workers=1") as d:
        at_rest(d)
        for nr, size in ((500, 10), (5000, 10), (30, 300000)):
            client = d.client()
            data = b"".join(client.pack([0, i, "urd.ping", "b" * size]) for i in range(nr))
            client.sock.setblocking(False)
            seen = 0
            sent = 0
            while seen < nr:
                events = [client] if sent < len(data) else []
                readable, writable, _ = select.select([client], events, [], 20)
                must(readable or writable, "stalled after %d of %d" % (seen, nr))
                if writable:
                    sent += client.sock.send(data[sent:])
                while readable:
                    try:
                        message = client.recv()
                    except BlockingIOError:
                        break
                    same((message[1], len(message[3])), (seen, size))
                    seen += 1
            client.close()


def check_storm_of_malice():
    """Random bytes, cut anywhere: urd stays up and serves others."""
    seed = 20260101
    state = [seed]

    def number(n):
        state[0] = (state[0] * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (state[0] >> 33) % n

    with Daemon([BAD, "ok"], "workers=2", "queue_max=8192") as d:
        good = Client(d.sock).pack([0, 5, "echo", {"k": [1, 2.5, "text", b"bytes"]}])
        before = at_rest(d)
        for _ in range(2000):
            data = bytearray(good * (1 + number(3)))
            for _ in range(number(4)):
                data[number(len(data))] = number(256)
            sock = raw(d, bytes(data[:1 + number(len(data))]))
            sock.close()
        until(lambda: descriptors(d) == before, "all are closed")
        others_fare_well(d)
        until(lambda: descriptors(d) == before, "no descriptor is left")
        same(d.text().count("assert"), 0)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]

if __name__ == "__main__":
    sys.exit(run(CHECKS))
