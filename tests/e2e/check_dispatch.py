#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A request goes all the way: each kind of worker, each kind of client.

usage: check_dispatch.py BUILD_DIR [CHECK...]
"""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from daemon import (BAD, BUILD, ECHO, PYTHON, SLOWNESS, WORKERS, Client, Daemon,  # noqa: E402
                    must, run, same, until)
from peer import values  # noqa: E402

SDK = {"c": [ECHO], "py": [PYTHON, WORKERS + "/echo.py"],
       "php": ["php", WORKERS + "/echo.php"], "node": ["node", WORKERS + "/echo.mjs"]}


def sdk(lang, kind):
    with Daemon(SDK[lang], "workers=2") as d:
        client = d.client()
        for value in values(kind):
            same(client.ok("echo", value), value, lang)
        must(client.ok("pid") in d.workers())
        error = client.fails("APP", "no.such.method")
        same(error["detail"]["code"], -32601)
        same(error["executed"], "yes")
        same(client.fails("APP", "fail")["detail"]["code"], -32603)
        client.ok("noise")
        meta = client.ok("meta", None, {"deadline_ms": 5000, "traceparent": "00-ab-cd-01"})
        same((meta["attempt"], meta["trace"]), (1, "00-ab-cd-01"))
        must(0 < meta["deadline"] <= 5000, meta)
        error = client.fails("WORKER_DIED", "die", {"exit": 7})
        same(error["executed"], "maybe")
        must("7" in error["detail"], error)
        same(client.ok("echo", "after it"), "after it")


def check_sdk_c():
    sdk("c", "c")


def check_sdk_python():
    sdk("py", "python")


def check_sdk_php():
    sdk("php", "php")


def check_sdk_node():
    sdk("node", "node")


def check_folk_php():
    command = ["php", WORKERS + "/folk.php"]
    with Daemon(command, "workers=2", "protocol=folk") as d:
        client = d.client()
        # PHP has one empty container, and turns numeric keys into numbers
        for value in [None, True, 0, -1, 1 << 40, 1.5, "", "x" * 100000, [1, [2]],
                      {"a": {"b": [None]}}]:
            same(client.ok("echo", value), value)
        same(client.ok("http.handle", {"method": "PUT", "uri": "/x", "headers": [],
                                       "body": "abc"}),
             {"status": 404, "headers": {"x-method": "PUT"}, "body": "cba"})
        same(client.ok("http.handle", {"uri": "/"}), {"status": 200, "headers": [], "body": ""})
        same(client.ok("jobs.process", "payload"), {"status": "ok", "length": 7})
        error = client.fails("APP", "jobs.process", "bad job")
        same(error["detail"], {"code": -32603, "message": "the job is bad"})
        same(error["message"], "the job is bad")
        error = client.fails("APP", "dispatch", {})
        same(error["detail"], {"code": -32601, "message": "method not found: dispatch"})
        same([client.ok("env", n) for n in ("FOLK_RUNTIME", "FOLK_TASK_FD", "FOLK_CONTROL_FD")],
             ["pipe", "3", "4"])
        same(client.ok("env", "URD_TASK_IN_FD"), False)
        big = b"b" * (15 << 20)
        same(len(client.ok("echo", big)), len(big))
        # longer than the folk line allows, and shorter than max_response
        must(client.ok("oversize") is not None)
    with Daemon(command, "workers=1", "protocol=folk", "max_response=16MiB") as d:
        client = d.client()
        pid = client.ok("pid")
        client.fails("PROTOCOL", "oversize")
        must(client.ok("pid") != pid)


def check_folk_php_ends_by_itself():
    with Daemon(["php", WORKERS + "/folk.php"], "workers=3", "protocol=folk",
                "@log.level=info") as d:
        d.client().ok("echo", 1)
        until(lambda: d.text().count("worker ready") == 3, "three are ready")
        d.stop()
        same(d.text().count("exit status 0"), 3, d.text())


def both_dialects(fn):
    with Daemon([PYTHON, WORKERS + "/echo.py", "async"], "workers=1", "exec_timeout=20s",
                "queue_max=4096") as d:
        for plain in (False, True):
            fn(d, plain)


def check_pipelined_requests():
    def one(d, plain):
        client = d.client(plain)
        want = {client.send("echo", {"i": i, "pad": "x" * (i % 700)}): i for i in range(1000)}
        for _ in range(1000):
            tag, msgid, error, result = client.recv()
            same((tag, error, result["i"]), (1, None, want.pop(msgid)))
    both_dialects(one)


def check_answers_out_of_order():
    def one(d, plain):
        client = d.client(plain)
        client.ok("echo", 1)
        slow = client.send("asleep", {"ms": 400 * SLOWNESS})
        quick = client.send("asleep", {"ms": 1})
        last = client.send("echo", "x")
        order = [client.recv()[1] for _ in range(3)]
        same(order[2], slow, "the slow one comes last")
        same(sorted(order), [slow, quick, last])
    both_dialects(one)


def check_same_number_twice():
    def one(d, plain):
        client = d.client(plain)
        for value in ("a", "b"):
            client.msgid = 6
            client.send("echo", value)
        got = [client.recv() for _ in range(2)]
        same(sorted(m[3] for m in got), ["a", "b"])
        same([m[1] for m in got], [7, 7])
    both_dialects(one)


def check_every_split_of_a_request():
    def one(d, plain):
        client = d.client(plain)
        data = client.pack([0, 1, "echo", {"k": "v" * 40}])
        for cut in range(1, len(data)):
            client.sock.sendall(data[:cut])
            # the other side has read it when this other connection was answered
            if cut % 8 == 1:
                d.client().ok("urd.ping")
            client.sock.sendall(data[cut:])
            same(client.answer(1), (None, {"k": "v" * 40}))
    both_dialects(one)


def check_pools_by_name():
    config = """
    pool "one" { command = { "%s" } workers = 1 }
    pool "two" { command = { "%s" } workers = 1 }
    """ % (ECHO, BAD)
    with Daemon(config=config) as d:
        client = d.client()
        one, two = client.ok("one/pid"), client.ok("two/pid")
        must(one != two)
        same(client.ok("pid"), one, "a bare name goes to the first pool")
        error = client.fails("NO_POOL", "three/pid")
        same(error["executed"], "no")
        same(client.fails("BAD_REQUEST", "one/")["executed"], "no")
        same(client.ok("urd.ping", [1, "x"]), [1, "x"])
        client.fails("BAD_REQUEST", "urd.nothing")
        client.notify("one/pid", [])
        client.notify("urd.cancel", ["nonsense"])
        same(client.ok("two/echo", 5), 5, "a notification is never answered")


def check_tcp():
    with Daemon([ECHO], "@listen=tcp:127.0.0.1:0", wait=False) as d:
        def port():
            inodes = set()
            for fd in os.listdir("/proc/%d/fd" % d.pid):
                try:
                    inodes.add(os.readlink("/proc/%d/fd/%s" % (d.pid, fd)))
                except OSError:
                    pass
            with open("/proc/net/tcp") as f:
                for line in f.readlines()[1:]:
                    part = line.split()
                    if part[3] == "0A" and "socket:[%s]" % part[9] in inodes:
                        return int(part[1].split(":")[1], 16)
            return None
        address = ("127.0.0.1", until(port, "urd listens on TCP"))
        for plain in (False, True):
            client = Client(address, plain)
            same(client.ok("echo", ["over", "tcp"]), ["over", "tcp"])
            same(len(client.ok("echo", b"t" * (8 << 20))), 8 << 20)


STOCK = """
import sys
from pynvim.msgpack_rpc import ErrorResponse, socket_session
session = socket_session(sys.argv[1])
session.error_wrapper = ErrorResponse
for i in range(100):
    # the library sends the arguments as a list
    assert session.request("echo", i, "x" * i, [i]) == [i, "x" * i, [i]], i
big = "y" * (1 << 20)
assert session.request("echo", big) == [big]
try:
    session.request("no.such.method")
except ErrorResponse as exc:
    assert "APP" in str(exc), exc
else:
    raise AssertionError("no error")
assert session.request("echo", "after the error") == ["after the error"]
session.close()
print("fine")
"""


def check_stock_client_library():
    """A client library that knows nothing of urd, from the distribution."""
    try:
        subprocess.run([PYTHON, "-c", "import pynvim.msgpack_rpc"], check=True,
                       stderr=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        return "SKIPPED: no stock client; install python3-pynvim"
    with Daemon([PYTHON, WORKERS + "/echo.py"], "workers=1") as d:
        got = subprocess.run([PYTHON, "-c", STOCK, d.sock], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, timeout=60)
        must(got.returncode == 0 and got.stdout == b"fine\n", got.stderr.decode()[-400:])
    return None


def check_mixed_load():
    """Every answer of 20,000 requests of all sizes is the one to its request."""
    load = os.path.join(BUILD, "perf", "load")
    worker = os.path.join(BUILD, "perf", "echo_pipe")
    if not os.path.exists(load):
        load, worker = (os.path.join(os.path.dirname(BUILD), "perf", n)
                        for n in ("load", "echo_pipe"))
    if not os.path.exists(load):
        return "SKIPPED: build/perf/load is not built; make perf"
    with Daemon([worker], "workers=8", "queue_max=4096") as d:
        got = subprocess.run([load, "-s", d.sock, "-m", "echo", "-c", "64", "-p", "4", "-n",
                              "20000", "-b", "16:1048576", "-w", "0", "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=170)
        must(got.returncode == 0, got.stdout.decode()[-400:])
        same(len(d.workers()), 8)
    return None


if __name__ == "__main__":
    sys.exit(run([check_sdk_c, check_sdk_python, check_sdk_php, check_sdk_node, check_folk_php,
                  check_folk_php_ends_by_itself, check_pipelined_requests,
                  check_answers_out_of_order, check_same_number_twice,
                  check_every_split_of_a_request, check_pools_by_name, check_tcp,
                  check_stock_client_library, check_mixed_load]))
