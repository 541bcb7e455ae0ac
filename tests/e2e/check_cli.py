#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The urd program as its users meet it: commands, options, exit codes, the words
of errors, the probe under refusals, and run and call end to end.

usage: check_cli.py BUILD_DIR
"""
import ctypes
import json
import os
import resource
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

URD = os.path.abspath(os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "urd"))
PYTHON = "/usr/bin/python3"
TIMEOUT = 30
SYS_IO_URING_SETUP = 425  # the same on every architecture
passed = failed = 0

WORKER = r'''
import os, struct, sys, time, msgpack
task_in = os.fdopen(int(os.environ["URD_TASK_IN_FD"]), "rb")
def send(fd, message):
    body = msgpack.packb(message)
    data = struct.pack(">I", len(body)) + body
    while data:
        data = data[os.write(fd, data):]
ready = [2, "control.ready", {"pid": os.getpid(), "protocol": 1}]
send(int(os.environ["URD_CONTROL_OUT_FD"]), ready)
while header := task_in.read(4):
    body = task_in.read(struct.unpack(">I", header)[0])
    _, msgid, method, params = msgpack.unpackb(body, strict_map_key=False)
    error = result = None
    if method == "echo":
        result = params
    elif method == "env":
        result = os.environ.get(params)
    elif method == "argv":
        result = sys.argv[1:]
    elif method == "cwd":
        result = os.getcwd()
    elif method == "big":
        result = [2**64 - 1, b"\xff\x00", {1: "one", None: 2.0}, msgpack.ExtType(7, b"x")]
    elif method == "die":
        os._exit(9)
    elif method == "slow":
        with open(params[0], "w") as f:
            f.write("begun")
        time.sleep(params[1])
        result = "done"
    else:
        error = {"code": -32601, "message": "method not found:\n" + method}
    send(int(os.environ["URD_TASK_OUT_FD"]), [1, msgid, error, result])
'''


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL " + name + (": " + str(why) if why != "" else ""))


def urd(*args, stdin=b"", **kw):
    return subprocess.run([URD, *args], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=TIMEOUT, **kw)


def expect(name, run, code, err=None, out=None):
    """An exit code, and that stderr is one line (or nothing) with the given text."""
    stderr = run.stderr.decode()
    ok = run.returncode == code
    if err is None:
        ok = ok and stderr == ""
    else:
        ok = ok and err in stderr and stderr.count("\n") == 1
    if out is not None:
        ok = ok and out in run.stdout.decode()
    check(name, ok, f"exit {run.returncode}, stdout {run.stdout[:200]!r}, stderr {stderr!r}")


def deny_io_uring(err):
    """To run in the child: io_uring_setup fails with an errno of a seccomp filter."""
    def install():
        class Prog(ctypes.Structure):
            _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
        code = b"".join(struct.pack("HBBI", *op) for op in [
            (0x20, 0, 0, 0),                    # load the number of the system call
            (0x15, 0, 1, SYS_IO_URING_SETUP),   # is it the one?
            (0x06, 0, 0, 0x00050000 | err),     # return the errno
            (0x06, 0, 0, 0x7fff0000),           # allow
        ])
        buf = ctypes.create_string_buffer(code)
        prog = Prog(4, ctypes.cast(buf, ctypes.c_void_p))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(prog), 0, 0):
            os._exit(99)
    return install


def no_memlock():
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def check_commands():
    expect("no command", urd(), 2, "no command, see \"urd help\"")
    expect("help", urd("help"), 0, out="probe")
    expect("--help", urd("--help"), 0, out="usage: urd COMMAND")
    expect("version", urd("version"), 0, out="urd ")
    check("--version is version", urd("--version").stdout == urd("version").stdout)
    expect("version with an argument", urd("version", "x"), 2, "takes no arguments")
    expect("unknown command, near", urd("rum"), 2, 'did you mean "run"?')
    expect("unknown command, far", urd("frobnicate"), 2, 'no command "frobnicate", see')
    for cmd in ("run", "call", "probe", "version"):
        expect(cmd + " --help", urd(cmd, "--help"), 0, out="usage: urd " + cmd)
        expect("help " + cmd, urd("help", cmd), 0, out="usage: urd " + cmd)
        expect(cmd + " -h", urd(cmd, "-h"), 0, out="usage: urd " + cmd)
        expect(cmd + " unknown option", urd(cmd, "--hlep"), 2, 'did you mean "--help"?')
        expect(cmd + " unknown short option", urd(cmd, "-Z"), 2, 'no option "-Z"')
    help_run = urd("run", "--help").stdout.decode()
    check("run --help names keys", all(k in help_run for k in ("exec_timeout", "listen", "level")))
    full = open("/dev/full", "w")
    run = subprocess.run([URD, "help"], stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT)
    check("help into a full disk fails", run.returncode == 1 and b"cannot write" in run.stderr)


def check_probe():
    expect("probe", urd("probe"), 0, out="urd can run here")
    run = urd("probe", "--json")
    facts = json.loads(run.stdout)
    check("probe --json", run.returncode == 0 and facts["ok"] is True and facts["reason"] is None)
    check("probe --json: kernel", facts["kernel"] == os.uname().release)
    check("probe --json: cores", facts["cores"] == len(os.sched_getaffinity(0)))
    check("probe --json: all required is present",
          all(f["present"] for f in facts["features"] if f["required"]))
    expect("probe --json=1", urd("probe", "--json=1"), 2, "takes no value")
    expect("probe with an argument", urd("probe", "x"), 2, "takes no arguments")
    for err, name, words in ((1, "EPERM", "a seccomp filter forbids io_uring (EPERM)"),
                             (13, "EACCES", "a seccomp filter forbids io_uring (EACCES)"),
                             (38, "ENOSYS", "a seccomp filter hides io_uring (ENOSYS)")):
        deny = deny_io_uring(err)
        expect("probe, seccomp " + name, urd("probe", preexec_fn=deny), 1, words)
        run = urd("probe", "--json", preexec_fn=deny)
        facts = json.loads(run.stdout)
        check("probe --json, seccomp " + name, run.returncode == 1 and not facts["ok"] and
              words in facts["reason"] and facts["seccomp"] == "filter", run)
        expect("run, seccomp " + name, urd("run", "--", "true", preexec_fn=deny), 69, words)
    # not below BUILD_DIR: another user may not be let in there
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = shutil.copy(URD, folder)
        words = "RLIMIT_MEMLOCK is too small for a ring: soft 0 KiB, hard 0 KiB, needed "
        run_args = ["run", "-o", "listen=tcp:127.0.0.1:0", "--", "true"]
        for args, code in ((["probe"], 1), (run_args, 69)):
            run = subprocess.run([copy, *args], preexec_fn=no_memlock, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, timeout=TIMEOUT)
            expect(args[0] + ", ulimit -l 0", run, code, words)


def check_config(folder):
    conf = os.path.join(folder, "urd.conf")
    with open(conf, "w") as f:
        f.write('pool "web" {\n  command = { "php", "w.php" }\n  exec_timeout = 30\n}\n')
    expect("run, bad file", urd("run", "-c", conf), 2, conf + ":3: exec_timeout: duration")
    expect("run --check, bad file", urd("run", "--check", "-c", conf), 2, conf + ":3: ")
    with open(conf, "w") as f:
        f.write('pool "web" { command = { "php", "w.php" } }\n')
    expect("run --check", urd("run", "--check", "-c", conf), 0)
    expect("run, bad -o", urd("run", "-c", conf, "-o", "pool.wbe.workers=1"), 2,
           '-o pool.wbe.workers: no pool "wbe", did you mean "web"?')
    expect("run, no file", urd("run", "-c", "/nonexistent"), 2, "/nonexistent: cannot open")
    expect("run, a folder", urd("run", "-c", folder), 2, "is a directory")
    expect("run, two files", urd("run", "-c", conf, "-c", conf), 2, "one configuration file")
    expect("run, -o without a value", urd("run", "-o"), 2, 'option "-o" needs a value')
    expect("run, nothing to run", urd("run"), 2, "no pool")
    expect("run, command without --", urd("run", "php"), 2, "a command goes after --")


def check_call_usage(folder):
    expect("call, no method", urd("call"), 2, "no method")
    expect("call, too many arguments", urd("call", "m", "1", "--raw"), 2, "options go before")
    expect("call, bad JSON", urd("call", "m", "{"), 2, "params are not JSON")
    expect("call, bad timeout", urd("call", "-t", "5", "m"), 2, "needs a unit")
    expect("call, raw params on the command line", urd("call", "--raw", "m", "1"), 2, "--raw takes")
    expect("call, raw nonsense", urd("call", "--raw", "m", "-", stdin=b"\xc1"), 2,
           "not one MessagePack value")
    expect("call, raw nothing", urd("call", "--raw", "m", "-"), 2, "not one MessagePack value")
    expect("call, no such file", urd("call", "m", "@/nonexistent"), 2, "cannot open /nonexistent")
    nobody = "unix:" + os.path.join(folder, "nobody.sock")
    expect("call, nobody there", urd("call", "-s", nobody, "m"), 5,
           "urd: NO_CONNECT (executed: no): cannot connect to " + nobody)
    run = urd("call", "-s", nobody, "--json-errors", "m")
    check("call, nobody there, as JSON", run.returncode == 5 and
          json.loads(run.stderr)["executed"] == "no", run)
    # a listener that hangs up after the request, and one that never answers
    path = os.path.join(folder, "rude.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(2)
        call = subprocess.Popen([URD, "call", "-s", path, "m"], stderr=subprocess.PIPE)
        conn, _ = listener.accept()
        conn.recv(1)
        conn.close()
        err = call.communicate(timeout=TIMEOUT)[1]
        check("call, connection ends", call.returncode == 4 and b"(executed: maybe)" in err, err)
        expect("call, no answer", urd("call", "-s", path, "-t", "30ms", "m"), 4,
               "urd: TIMEOUT (executed: maybe): ")


class Daemon:
    """urd run, ready to serve; its log is read as it comes."""

    def __init__(self, folder, *args, command=True):
        self.path = os.path.join(folder, "u.sock")
        self.worker = os.path.join(folder, "worker.py")
        self.log = b""
        with open(self.worker, "w") as f:
            f.write(WORKER)
        tail = ["--", PYTHON, self.worker, "a b", "c"] if command else []
        self.proc = subprocess.Popen(
            [URD, "run", "-o", "listen=unix:" + self.path, *args, *tail], cwd=folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if not self.await_log(b"listening on unix:" + self.path.encode()):
            self.proc.kill()
            raise RuntimeError("urd run does not serve: " + self.log.decode())

    def await_log(self, words):
        until = time.monotonic() + TIMEOUT
        while words not in self.log:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.proc.stderr], [], [], left)[0]:
                return False
            data = os.read(self.proc.stderr.fileno(), 65536)
            if not data:
                return False
            self.log += data
        return True

    def call(self, *args, **kw):
        return urd("call", "-s", self.path, *args, **kw)

    def stop(self, sig=signal.SIGTERM):
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        try:
            self.log += self.proc.communicate(timeout=TIMEOUT)[1]
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.communicate()
        return self.proc.returncode


def check_answers(d):
    for text in ("null", "1", "-1", "2.5", "1.0", "[]", '{"z":1,"a":[true,false]}', '"\u00e9\\n"',
                 "18446744073709551615", '{"$bin":"/wA="}', '{"$float":"nan"}'):
        run = d.call("echo", text)
        check("call echo " + text, run.returncode == 0 and run.stdout.decode() == text + "\n", run)
    check("call without params", d.call("echo").stdout == b"null\n")
    check("call, a negative number is no option", d.call("echo", "-5").stdout == b"-5\n")
    check("call, params from stdin", d.call("echo", "-", stdin=b" [1, 2]\n").stdout == b"[1,2]\n")
    with open(d.path + ".json", "w") as f:
        f.write('{"from": "a file"}')
    check("call, params from a file",
          d.call("echo", "@" + d.path + ".json").stdout == b'{"from":"a file"}\n')
    check("call, what JSON lacks", d.call("big").stdout ==
          b'[18446744073709551615,{"$bin":"/wA="},{"1":"one","null":2.0},{"$ext":[7,"eA=="]}]\n')
    value = msgpack.packb({"n": [1, b"\x00\xff", "x" * 70000]})
    run = d.call("--raw", "echo", "-", stdin=value)
    check("call --raw", run.returncode == 0 and run.stdout == value)
    check("call with the pool's name", d.call("default/echo", "7").stdout == b"7\n")
    check("call urd.ping", d.call("urd.ping", "[1]").stdout == b"[1]\n")
    check("$URD_SOCKET", urd("call", "echo", "8", env={"URD_SOCKET": d.path}).stdout == b"8\n")
    check("arguments of the command", json.loads(d.call("argv").stdout) == ["a b", "c"])


def check_errors(d):
    expect("call, error of the worker", d.call("nope"), 1,
           "urd: APP (executed: yes): method not found: nope")
    run = d.call("--json-errors", "nope")
    err = json.loads(run.stderr)
    check("call --json-errors", run.returncode == 1 and run.stderr.count(b"\n") == 1 and
          err["name"] == "APP" and err["code"] == 1 and
          err["error"]["detail"]["code"] == -32601, run)
    expect("call, no such pool", d.call("nopool/echo"), 3, "urd: NO_POOL (executed: no): ")
    expect("call, worker dies", d.call("die"), 4, "urd: WORKER_DIED (executed: maybe): ")
    run = d.call("echo", "1")
    check("call after a death", run.returncode == 0 and run.stdout == b"1\n", run)


def check_run(folder):
    d = Daemon(folder, "-o", "pool.default.workers=1", "-o", "pool.default.backoff_min=1ms")
    check_answers(d)
    check_errors(d)
    d.proc.send_signal(signal.SIGHUP)
    check("SIGHUP reloads", d.await_log(b"reload begun workers=1") and
          d.await_log(b"reason: reload"), d.log)
    d.proc.send_signal(signal.SIGUSR1)
    check("SIGUSR1 does no harm", d.call("echo", "2").stdout == b"2\n")
    check("SIGTERM stops with 0", d.stop() == 0, d.log)
    expect("call after the stop", d.call("echo"), 5, "NO_CONNECT")


def check_stops(folder):
    for name, sig in (("SIGINT", signal.SIGINT), ("SIGQUIT", signal.SIGQUIT)):
        d = Daemon(folder, "-o", "pool.default.workers=1")
        check(name + " stops with 0", d.stop(sig) == 0, d.log)
    begun = os.path.join(folder, "begun")
    os.mkfifo(begun)
    for name, seconds, signals, code in (("one SIGTERM lets a request finish", 0.3, 1, 0),
                                         ("a second SIGTERM cuts it", 60, 2, 4)):
        d = Daemon(folder, "-o", "pool.default.workers=1", "-o", "pool.default.stop_timeout=100ms")
        call = subprocess.Popen([URD, "call", "-s", d.path, "slow", json.dumps([begun, seconds])],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with open(begun) as f:
            f.read()
        d.proc.send_signal(signal.SIGTERM)
        ok = d.await_log(b"stopping signal=TERM")
        if signals == 2:
            d.proc.send_signal(signal.SIGTERM)
        out, err = call.communicate(timeout=TIMEOUT)
        check(name, ok and call.returncode == code and (out == b'"done"\n') == (code == 0),
              (call.returncode, out, err))
        check(name + ", exit status", d.stop() == 0, d.log)


def check_file(folder):
    conf = os.path.join(folder, "two.conf")
    with open(conf, "w") as f:
        f.write('log { format = "json" }\n'
                'pool "a" { command = { "%s", "worker.py" } workers = 1 clear_env = true\n'
                '  env = { "NAME=a" } env_pass = { "CHECK_PASS" } }\n'
                'pool "b" { command = { "%s", "worker.py" } workers = 1 cwd = "%s"\n'
                '  env = { "NAME=b" } }\n' % (PYTHON, PYTHON, folder))
    os.environ["CHECK_PASS"] = "passed"
    os.environ["CHECK_KEEP"] = "kept"
    d = Daemon(folder, "-c", conf, command=False)
    check("two pools", [d.call(p + "/env", '"NAME"').stdout for p in "ab"] == [b'"a"\n', b'"b"\n'])
    check("env_pass", d.call("a/env", '"CHECK_PASS"').stdout == b'"passed"\n')
    check("clear_env", d.call("a/env", '"CHECK_KEEP"').stdout == b"null\n")
    check("environment is inherited", d.call("b/env", '"CHECK_KEEP"').stdout == b'"kept"\n')
    check("cwd", json.loads(d.call("b/cwd").stdout) == os.path.realpath(folder))
    check("the first pool serves bare names", d.call("env", '"NAME"').stdout == b'"a"\n')
    check("the stop is clean", d.stop() == 0)
    lines = d.log.decode().splitlines()
    check("the log is JSON", len(lines) > 1 and all(isinstance(json.loads(x), dict) for x in lines))


def main():
    check_commands()
    check_probe()
    with tempfile.TemporaryDirectory() as folder:
        for part in (check_config, check_call_usage, check_run, check_stops, check_file):
            try:
                part(folder)
            except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as e:
                check(part.__name__, False, repr(e))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
