#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Workers and the rest of the machine: as whom they run, what they may take, how
they end with urd however it ends, and who collects what they leave behind.

usage: check_isolation.py BUILD_DIR

As root it checks other users and process namespaces too, and everything that an
ordinary user must see as such an one.
"""
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
PYTHON = "/usr/bin/python3"
WAIT = 30
NOBODY = 65534
ROOT = os.geteuid() == 0
PR_SET_CHILD_SUBREAPER = 36
passed = failed = 0

WORKER = r'''
import os, signal, struct, subprocess, sys, time, msgpack
task_in = os.fdopen(int(os.environ["URD_TASK_IN_FD"]), "rb")
def send(fd, message):
    body = msgpack.packb(message)
    data = struct.pack(">I", len(body)) + body
    while data:
        data = data[os.write(fd, data):]
def status(*names):
    with open("/proc/self/status") as f:
        table = dict(line.rstrip("\n").split(":\t", 1) for line in f)
    return [table[name].split() for name in names]
def zombies():
    n = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                n += f.read().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            pass
    return n
def orphans(count):
    pids = []
    for _ in range(count):
        middle = os.fork()
        if not middle:
            if not os.fork():
                os._exit(3)
            os._exit(0)
        pids.append(middle)
    for pid in pids:
        os.waitpid(pid, 0)
def children(count):
    pids = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.closerange(0, 64)
            while True:
                signal.pause()
        pids.append(pid)
    return pids
def handle(method, params):
    if method == "sh":
        return subprocess.run(params, shell=True, stdout=subprocess.PIPE).stdout.decode()
    if method == "ids":
        return [os.getresuid(), os.getresgid(), os.getgroups()]
    if method == "status":
        return status(*params)
    if method == "env":
        return dict(os.environ)
    if method == "orphans":
        return orphans(params)
    if method == "children":
        return children(params)
    if method == "zombies":
        return zombies()
    if method == "pid":
        return os.getpid()
    if method == "exit":
        os._exit(params)
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready = [2, "control.ready", {"pid": os.getpid(), "protocol": 1}]
send(int(os.environ["URD_CONTROL_OUT_FD"]), ready)
while header := task_in.read(4):
    body = task_in.read(struct.unpack(">I", header)[0])
    _, msgid, method, params = msgpack.unpackb(body, strict_map_key=False)
    send(int(os.environ["URD_TASK_OUT_FD"]), [1, msgid, None, handle(method, params)])
while "deaf" in sys.argv:
    signal.pause()
'''


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print("ok   " + name, flush=True)
    else:
        failed += 1
        print("FAIL " + name + (f": {why}" if why != "" else ""), flush=True)


def until(condition, seconds=WAIT):
    """Poll a condition; its last value."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return value


def proc_stat(pid):
    """State and parent of a process, or None."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return fields[0], int(fields[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def children_of(pid):
    """{pid: state} of the children of a process."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        seen = proc_stat(entry)
        if seen and seen[1] == pid:
            found[int(entry)] = seen[0]
    return found


def uid_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"^Uid:\t\d+\t(\d+)", f.read(), re.M)[1])


def gone(pids, seconds):
    """Wait until all these processes have ended (collected or not); the rest."""
    return [p for p in pids if not until(
        lambda: (proc_stat(p) or "Z")[0] == "Z", seconds)]


def become(uid):
    def change():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    return change


class Urd:
    """A running urd in a folder of its own, with one pool of WORKER."""

    def __init__(self, pool="", uid=None, wrap=(), command=None, workers=2, before=None,
                 arguments=()):
        self.folder = tempfile.mkdtemp(prefix="urd-isolation-")
        os.chmod(self.folder, 0o755)
        self.socket = os.path.join(self.folder, "socket", "s")
        os.mkdir(os.path.dirname(self.socket))
        if uid is not None:
            os.chown(os.path.dirname(self.socket), uid, uid)
        self.write("worker.py", WORKER)
        command = command or [PYTHON, os.path.join(self.folder, "worker.py"), *arguments]
        words = ", ".join(f'"{word}"' for word in command)
        conf = self.write("urd.conf", f'listen = "unix:{self.socket}"\n'
                          f'pool "p" {{\n\tcommand = {{ {words} }}\n'
                          f'\tworkers = {workers}\n{pool}}}\n')
        self.log = os.path.join(self.folder, "log")

        def prepare():
            if before:
                before()
            if uid is not None and ROOT:
                become(uid)()
        with open(self.log, "wb") as log:
            self.run = subprocess.Popen([*wrap, URD, "run", "-c", conf], stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, preexec_fn=prepare)
        self.pid = self.run.pid

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o755)
        return path

    def logged(self, text="", seconds=WAIT):
        """Wait for a text in the log; the whole log if it came, else \"\"."""
        def look():
            with open(self.log, errors="replace") as f:
                log = f.read()
            return log if text in log else ""
        return until(look, seconds)

    def call(self, method, params="null"):
        until(lambda: os.path.exists(self.socket))
        run = subprocess.run([URD, "call", "-s", self.socket, method, params],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT)
        if run.returncode:
            return f"exit {run.returncode}: {run.stderr.decode()}"
        return json.loads(run.stdout)

    def workers(self):
        """Pids of all workers, once all are there."""
        until(lambda: len(children_of(self.pid)) >= 1)
        self.call("pid")
        return sorted(children_of(self.pid))

    def stop(self):
        """TERM; the exit status."""
        if self.run.poll() is None:
            self.run.terminate()
        try:
            return self.run.wait(WAIT)
        finally:
            self.run.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


# ---- as whom, with what ----

def check_user():
    with Urd('\tuser = "nobody"\n\tumask = 0027\n\tcwd = "/tmp"\n\trlimit_core = 0\n'
             '\trlimit_nofile = 100\n\tnice = 5\n\toom_score_adj = 300\n'
             '\tenv = { "USER=kept" }\n') as urd:
        uids, gids, groups = urd.call("ids")
        check("user: all three ids", uids == [NOBODY] * 3, uids)
        check("user: his group, not root's", gids == [NOBODY] * 3 and groups == [NOBODY],
              (gids, groups))
        privs, caps = urd.call("status", '["NoNewPrivs", "CapPrm"]')
        check("user: no new privileges by default", privs == ["1"], privs)
        check("user: no capabilities", int(caps[0], 16) == 0, caps)
        env = urd.call("env")
        check("user: his HOME and LOGNAME, env on top",
              env["HOME"] == "/nonexistent" and env["LOGNAME"] == "nobody" and
              env["USER"] == "kept", env)
        out = urd.call("sh", '"umask; pwd; ulimit -c; ulimit -n; nice; '
                             'cat /proc/self/oom_score_adj"')
        check("umask, cwd, limits, nice, oom_score_adj",
              out == "0027\n/tmp\n0\n100\n5\n300\n", repr(out))
    with Urd('\tuser = "nobody"\n\tno_new_privs = false\n') as urd:
        check("no_new_privs = false", urd.call("status", '["NoNewPrivs"]') == [["0"]])
    with Urd('\tgroup = "nogroup"\n') as urd:
        check("group alone", urd.call("ids") == [[0] * 3, [NOBODY] * 3, [NOBODY]])


def check_defaults():
    with Urd() as urd:
        pid = urd.call("pid")
        with open(f"/proc/{urd.pid}/oom_score_adj") as f:
            mine = int(f.read())
        out = urd.call("sh", '"cat /proc/self/oom_score_adj"')
        check("workers are killed before urd", int(out) == min(mine + 200, 1000), out)
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        check("a session and a group of its own", int(fields[2]) == pid == int(fields[3]), fields)
        stdin = os.readlink(f"/proc/{pid}/fd/0")
        check("stdin is empty", stdin == "/dev/null", stdin)
        fds = sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
        check("seven descriptors and no other", fds == list(range(7)), fds)
        with open(f"/proc/{pid}/status") as f:
            allowed = re.search(r"Cpus_allowed:\s*(\S+)", f.read())[1]
        with open("/proc/self/status") as f:
            check("all CPUs that urd was given",
                  allowed == re.search(r"Cpus_allowed:\s*(\S+)", f.read())[1], allowed)


def check_soft_limit():
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < 4000:
        print("skip workers keep the soft limit: the hard one is too low")
        return
    with Urd("\tmax_surge = 0\n", workers=64, command=["/bin/sh", "-c", "ulimit -Sn; exit 1"],
             before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))) as urd:
        log = urd.logged(" 256\n")
        check("urd raises its limit of open files, workers keep the old one",
              re.search(r"\b256$", log, re.M) is not None, log[-500:])


# ---- failures say what, with what and why ----

def check_failures():
    cases = [
        ('\tnice = -20\n', "setpriority to -20 (less than now needs root): Permission denied"),
        ('\toom_score_adj = -1000\n',
         "write oom_score_adj -1000 (less than now needs root): Permission denied"),
        ('\trlimit_nofile = 1000000000\n', "setrlimit rlimit_nofile to 1000000000 "),
        ('\tcwd = "/no/such/place"\n', "chdir to /no/such/place: No such file or directory"),
        ('\tuser = "root"\n',
         "setgroups of user 0 (user and group need root): Operation not permitted"),
    ]
    for pool, text in cases:
        with Urd(pool, uid=NOBODY if ROOT else None, workers=1) as urd:
            log = urd.logged("can't start a worker: " + text)
            check("without root: " + text.split(":")[0], log != "", urd.logged()[-500:])
            reply = urd.call("pid")
            check("  its callers are told", isinstance(reply, str) and
                  ("POOL_FAILED" in reply or "QUEUE_TIMEOUT" in reply), reply)
            check("  and urd stops as asked", urd.stop() == 0)


def check_config():
    for text, err in [('user = "no-such-user"', "urd.conf:5: user: there is no user"),
                      ('user = "54321"', "urd.conf:5: user: \"54321\" is not in the database"),
                      ('group = "no-such"', "urd.conf:5: group: there is no group"),
                      ('umask = 0888', "urd.conf:5: umask: \"0888\" is not octal"),
                      ('nice = -21', "urd.conf:5: nice: -21 is out of range, write -20 to 19"),
                      ('rlimit_as = "lots"', "urd.conf:5: rlimit_as: ")]:
        with Urd(f"\t{text}\n") as urd:
            status = urd.run.wait(WAIT)
            with open(urd.log) as f:
                log = f.read()
            check("refused: " + text, status == 2 and err in log, (status, log))


# ---- the end of urd, and of a worker ----

def check_killed(name, stopped=False, **kw):
    with Urd(workers=4, **kw) as urd:
        urd.call("pid")
        pids = until(lambda: len(c := sorted(children_of(urd.pid))) == 4 and c) or []
        if stopped:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        urd.run.kill()
        urd.run.wait(WAIT)
        left = gone(pids, 2)
        check("kill -9 of urd: " + name, len(pids) == 4 and not left, (pids, left))
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def check_killed_before_exec():
    """A lease on the program makes execve() wait: urd dies while its child has not
    become a worker yet."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    for uid in ([None, NOBODY] if ROOT else [None]):
        folder = tempfile.mkdtemp(prefix="urd-isolation-")
        program = os.path.join(folder, "program")
        os.chmod(folder, 0o755)
        shutil.copy("/bin/sleep", program)
        with open(program, "rb") as f:
            fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            pool = '\tuser = "nobody"\n' if uid else ""
            with Urd(pool, command=[program, "1000"], workers=1) as urd:
                # a session of its own and the user that it is to have, but urd's program
                def between():
                    return [p for p in children_of(urd.pid) if os.getsid(p) == p and
                            uid_of(p) == (uid or os.geteuid()) and
                            os.readlink(f"/proc/{p}/exe") == os.path.realpath(URD)]
                pids = until(between) or []
                urd.run.kill()
                urd.run.wait(WAIT)
                left = gone(pids, 2)
                check("kill -9 of urd between fork and exec" + (", other user" if uid else ""),
                      len(pids) == 1 and not left, (pids, left))
            fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        shutil.rmtree(folder)


def check_grandchildren():
    with Urd(workers=1) as urd:
        pids = urd.call("children", "20")
        worker = urd.call("pid")
        os.kill(worker, signal.SIGKILL)
        left = gone(pids, 10)
        check("the death of a worker reaches its children", len(pids) == 20 and not left, left)
        pids = urd.call("children", "20")
        check("a stop of urd exits with 0", urd.stop() == 0)
        left = gone(pids, 10)
        check("and reaches grandchildren", len(pids) == 20 and not left, left)


# ---- strangers ----

def switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M)[1])
    return total


def check_strangers():
    with Urd(before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)) as urd:
        ours = set(children_of(os.getpid()))
        urd.call("orphans", "300")
        clean = until(lambda: not [s for s in children_of(urd.pid).values() if s == "Z"], 1)
        # whom urd did not take would have come to us
        stray = set(children_of(os.getpid())) - ours
        check("300 orphans are collected by an urd that is not PID 1", clean and not stray,
              (children_of(urd.pid), stray))
        for status in (7, 11, 13):
            urd.call("exit", str(status))
            check(f"exit status {status} of a worker is not lost among them",
                  urd.logged(f"exit status {status};") != "", urd.logged()[-600:])
            urd.call("orphans", "20")
        # a storm: workers die with their groups, all of it is to be collected
        for _ in range(20):
            kids = urd.call("children", "10")
            worker = (proc_stat(kids[0]) or ("", 0))[1]
            if worker not in (0, 1, urd.pid):
                os.kill(worker, signal.SIGKILL)
            gone(kids, 10)
        clean = until(lambda: set(children_of(urd.pid).values()) <= {"S", "R"} and
                      len(children_of(urd.pid)) == 2, 10)
        check("no zombie after a storm of kills, and two workers", clean, children_of(urd.pid))
        log = urd.logged("killed by signal 9")
        check("who was killed is said to have been", log.count("killed by signal 9") == 20,
              log.count("killed by signal 9"))
        urd.call("pid")
        seconds = float(os.environ.get("URD_IDLE_SECONDS", "3"))
        until(lambda: not [s for s in children_of(urd.pid).values() if s != "S"])
        time.sleep(0.5)
        before = switches(urd.pid)
        time.sleep(seconds)
        after = switches(urd.pid)
        check("nothing wakes when nothing happens", after == before, after - before)


def check_pid_one():
    unshare = ["unshare", "-fp", "--mount-proc"] if ROOT else ["unshare", "-Urfp", "--mount-proc"]
    if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode:
        print("skip PID 1: no process namespace here")
        return
    with Urd(wrap=unshare, workers=1) as urd:
        pid = urd.call("sh", '"echo $URD_PID"')
        check("urd is PID 1", pid == "1\n", pid)
        start = time.monotonic()
        reply = urd.call("orphans", "1000")
        done = time.monotonic()
        zombies = until(lambda: urd.call("zombies") == 0, 1)
        check("PID 1: 1000 orphans, no zombie within 1 s", reply is None and zombies,
              (reply, urd.call("zombies")))
        print(f"     made in {done - start:.2f} s, gone {time.monotonic() - done:.2f} s later")
        # unshare passes no signal on: the one below it is urd
        inner = list(children_of(urd.pid))
        os.kill(inner[0], signal.SIGTERM)
        check("PID 1: SIGTERM stops it with status 0", urd.run.wait(WAIT) == 0,
              urd.logged()[-500:])


def place_program():
    """A copy of urd that an ordinary user can run, wherever the build is."""
    folder = tempfile.mkdtemp(prefix="urd-isolation-bin-")
    os.chmod(folder, 0o755)
    shutil.copy(os.path.join(BUILD, "urd"), folder)
    path = os.path.join(folder, "urd")
    os.chmod(path, stat.S_IRWXU | 0o055)
    return path


def main():
    check_config()
    check_defaults()
    check_soft_limit()
    if ROOT:
        check_user()
    else:
        print("skip other users: needs root")
    check_failures()
    check_killed("idle workers")
    check_killed("workers that ignore TERM and the end of their input", arguments=["deaf"])
    check_killed("stopped workers", stopped=True)
    if ROOT:
        check_killed("workers of another user", pool='\tuser = "nobody"\n')
        check_killed("stopped workers of another user", stopped=True, pool='\tuser = "nobody"\n')
    check_killed_before_exec()
    check_grandchildren()
    check_strangers()
    check_pid_one()


# Orphans of a killed urd come to us, and not to a process that collects nobody.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
URD = place_program()
try:
    main()
finally:
    shutil.rmtree(os.path.dirname(URD))
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
