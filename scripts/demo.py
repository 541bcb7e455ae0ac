#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Show urd at work: three pools, real text, a murder, a hang and a clean end.

    scripts/demo.py [BUILD_DIR]

Starts urd with scripts/demo/urd.conf, sends it the files of this repository, and
checks every answer against what it works out by itself.  Exit status 0 only if
all that is claimed was seen.  Nothing stays behind: no process, no file.
"""

import concurrent.futures
import contextlib
import html.parser
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(TOP, "src", "sdk", "python"))

from urd_client import AppError, Client, UrdError  # noqa: E402

LOAD_SECONDS = 4
PATIENCE = 30
FAMILY = 6  # urd and the workers of scripts/demo/urd.conf
TEXT = re.compile(r"\.(c|h|py|php|mjs|md|txt|in|conf)$|(^|/)(Makefile|LICENSE|install-deps)$")


class Wrong(Exception):
    """Something is not as the demo says."""


def claim(ok, text, *got):
    if not ok:
        raise Wrong(text + "".join("\n  got: %.2000r" % (g,) for g in got))


def say(text=""):
    print(text, flush=True)


def title(text):
    say("\n--- %s %s" % (text, "-" * (74 - len(text))))


def short(value, width=88):
    text = value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 4] + " ..."


# --- urd -------------------------------------------------------------------------


class Daemon:
    """A urd of our own, its files in a temporary folder."""

    def __init__(self, urd, folder):
        self.urd = urd
        self.folder = folder
        self.socket = os.path.join(folder, "urd.sock")
        self.log = os.path.join(folder, "urd.log")
        env = dict(os.environ, DEMO_DIR=folder, DEMO_PYTHON=sys.executable,
                   PYTHONDONTWRITEBYTECODE="1")
        self.env = env
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([urd, "run", "-c", "scripts/demo/urd.conf"],
                                            cwd=TOP, env=env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def wait_for(self, what, seen):
        """Look until it is there; urd or the clock may end the wait."""
        until = time.monotonic() + PATIENCE
        while True:
            got = seen()
            if got:
                return got
            claim(self.process.poll() is None, "urd ended while we waited for " + what)
            claim(time.monotonic() < until, "no %s within %d s" % (what, PATIENCE))
            time.sleep(0.005)

    def logged(self, *words):
        with open(self.log, errors="replace") as f:
            return [line.rstrip() for line in f if all(w in line for w in words)]

    def family(self):
        """Every process below our urd: they have inherited our DEMO_DIR."""
        mark = b"DEMO_DIR=" + os.fsencode(self.folder)
        found = []
        for name in os.listdir("/proc"):
            try:
                with open("/proc/%s/environ" % name, "rb") as f:
                    if name.isdigit() and mark in f.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                pass  # not a process, or not any more
        return sorted(found)

    def client(self):
        return Client(self.socket)

    def call(self, method, params):
        """The same by the command line."""
        path = os.path.join(self.folder, "params.json")
        with open(path, "w") as f:
            json.dump(params, f)
        argv = [self.urd, "call", "-s", self.socket, method, "@" + path]
        say("$ build/urd call -s urd.sock %s @params.json     # %d KiB"
            % (method, os.path.getsize(path) >> 10))
        run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             timeout=PATIENCE)
        claim(run.returncode == 0, "urd call failed", run.returncode, run.stderr)
        return json.loads(run.stdout)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Whistle:
    """A named pipe through which a worker says who has got the request."""

    def __init__(self, folder, name):
        self.path = os.path.join(folder, name)
        os.mkfifo(self.path)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def pid(self):
        claim(select.select([self.fd], [], [], PATIENCE)[0], "no worker began the request")
        pid = int(os.read(self.fd, 64))
        os.close(self.fd)
        return pid


# --- the work, and how we know that it was done right -------------------------------


def read_texts():
    """The text files of this repository, by name."""
    try:
        out = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=TOP,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        names = out.stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        names = []  # no git, or not a clone
        for folder, folders, files in os.walk(TOP):
            folders[:] = [f for f in folders if f not in (".git", "build", "__pycache__")]
            names += [os.path.relpath(os.path.join(folder, n), TOP) for n in files]
    texts = {}
    for name in sorted(names):
        path = os.path.join(TOP, name)
        if TEXT.search(name) and os.path.isfile(path):
            with open(path, encoding="utf-8", newline="") as f:
                texts[name] = f.read()
    claim(len(texts) > 20, "this does not look like the repository", sorted(texts))
    return texts


def words_of(text):
    """Runs of ASCII letters, found in another way than the worker does it."""
    return "".join(c if c.isascii() and c.isalpha() else " " for c in text).split()


def check_count(text, got):
    words = words_of(text.lower())
    claim(got["words"] == len(words), "the words were miscounted", got, len(words))
    claim(got["distinct"] == len(set(words)), "the distinct words were miscounted", got)
    claim(got["lines"] == text.count("\n"), "the lines were miscounted", got)
    for word, n in got["top"]:
        claim(n == words.count(word), "a word was miscounted", word, n)


class Page(html.parser.HTMLParser):
    """Text and headings of a page; refuses tags that do not match."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.headings = [], [], 0
        self.feed(page)
        self.close()
        claim(not self.open, "HTML with open tags", self.open)

    def handle_starttag(self, tag, attrs):
        self.headings += bool(re.fullmatch("h[1-6]", tag))
        if tag != "hr":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass  # <br /> is complete in itself

    def handle_endtag(self, tag):
        claim(self.open and self.open.pop() == tag, "HTML with crossed tags", tag)

    def handle_data(self, data):
        self.text.append(data)


def check_highlight(name, text, got):
    shown = "".join(Page(got["html"]).text)
    if name.endswith(".php"):  # PHP writes its own kinds of space
        shown, text = ("".join(s.split()) for s in (shown, text))
    claim(shown == text, "the coloured text is not the text of " + name, shown)
    claim(got["spans"] == got["html"].count("<span"), "miscounted colours", got["spans"])


def check_markdown(name, text, got):
    page = Page(got["html"])
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    claim(page.headings == len(re.findall(r"^#{1,6} ", prose, re.M)),
          "headings were lost from " + name, page.headings)
    claim(got["headings"] == page.headings, "miscounted headings", got["headings"])
    fences = re.sub(r"^```\w*$", "", text, flags=re.M)
    want = words_of(re.sub(r"(?<=\])\([^)\s]*\)", "", fences))
    claim(words_of(" ".join(page.text)) == want, "words were lost from " + name)


# --- the acts -----------------------------------------------------------------------


def show_answers(urd, texts):
    title("C and PHP to HTML in PHP, Markdown in Node, words in Python")
    with urd.client() as client:
        for name in ("src/base/heap.h", "src/sdk/php/urd_worker.php"):
            got = client.call("highlight/html", {"name": name, "text": texts[name]})
            check_highlight(name, texts[name], got)
            say("highlight/html %s: %d coloured spans, text intact" % (name, got["spans"]))
            at = got["html"].find("<span", len(got["html"]) // 2)
            say("    " + short(got["html"][at:]))
        name = "docs/worker-protocol.md"
        got = client.call("markdown/render", {"text": texts[name]})
        check_markdown(name, texts[name], got)
        say("markdown/render %s: %d headings, every word there" % (name, got["headings"]))
        say("    " + short(got["html"]))
    whole = "".join(texts.values())
    got = urd.call("words/count", {"text": whole})
    check_count(whole, got)
    say("    all %d text files of this repository in one request: %d lines, %d words; most often:"
        % (len(texts), got["lines"], got["words"]))
    say("    " + ", ".join("%s (%d)" % (word, n) for word, n in got["top"]))


def stress_one(urd, method, jobs, check, until):
    """All jobs once, and again until the time is up; seconds of each request."""
    taken, first = [], {}
    with urd.client() as client:
        while True:
            for name, text in jobs:
                begin = time.perf_counter()
                got = client.call(method, {"name": name, "text": text})
                taken.append(time.perf_counter() - begin)
                if name not in first:
                    check(name, text, got)
                    first[name] = got
                claim(got == first[name], "two answers to the same question", name)
                if time.monotonic() > until and len(first) == len(jobs):
                    return taken


def percentile(values, q):
    return values[min(len(values) - 1, math.ceil(q * len(values)) - 1)]


def show_load(urd, texts):
    title("All files, all pools at once, two connections to each, for %d s" % LOAD_SECONDS)
    code = [(n, t) for n, t in texts.items() if re.search(r"\.(c|h|php)$", n)]
    pages = [(n, t) for n, t in texts.items() if n.endswith(".md")]
    plan = [
        ("words/count", "Python", list(texts.items()), lambda n, t, got: check_count(t, got)),
        ("highlight/html", "PHP", code, check_highlight),
        ("markdown/render", "Node", pages, check_markdown),
    ]
    until = time.monotonic() + LOAD_SECONDS
    with concurrent.futures.ThreadPoolExecutor(2 * len(plan)) as threads:
        runs = [[threads.submit(stress_one, urd, method, jobs, check, until) for _ in range(2)]
                for method, _, jobs, check in plan]
        taken = [sorted(r1.result() + r2.result()) for r1, r2 in runs]
    say("%-17s %-7s %6s %9s %8s %8s %8s %8s" % (
        "method", "in", "files", "requests", "p50 ms", "p90 ms", "p99 ms", "max ms"))
    for (method, language, jobs, _), ms in zip(plan, taken):
        cut = [1000 * percentile(ms, q) for q in (0.5, 0.9, 0.99, 1)]
        say("%-17s %-7s %6d %9d %8.2f %8.2f %8.2f %8.2f" % (
            method, language, len(jobs), len(ms), *cut))
    say("Every answer was right.  The times are those of the work, and of waiting for a worker")
    say("and a CPU.  A worker that does next to nothing, asked 1000 times, one after the other:")
    with urd.client() as client:
        ms = []
        for _ in range(1000):
            begin = time.perf_counter()
            client.call("words/whoami", {"seconds": 0})
            ms.append(1000 * (time.perf_counter() - begin))
    ms.sort()
    say("words/whoami: p50 %.3f ms, p99 %.3f ms, Python at both ends included"
        % (percentile(ms, 0.5), percentile(ms, 0.99)))


def expect_error(future, name, executed):
    try:
        got = future.result(timeout=PATIENCE)
    except UrdError as e:
        say("    code=%d name=%s executed=%s message=%r" % (e.code, e.name, e.executed, e.message))
        say("    detail=%s" % short(e.detail))
        claim((e.name, e.executed) == (name, executed), "another error was expected", name)
        return e
    raise Wrong("an error was expected, %s, and no answer: %r" % (name, got))


def workers_of(urd, threads):
    """Who serves the pool "words": two calls at once, each held for a moment."""
    calls = [threads.submit(call_once, urd, "words/whoami", {"seconds": 0.05}) for _ in range(2)]
    return {c.result() for c in calls}


def call_once(urd, method, params, **more):
    with urd.client() as client:
        return client.call(method, params, **more)


def show_murder(urd, texts, threads):
    title("kill -9 of a worker in mid-request")
    before = urd.wait_for("two workers", lambda: len(p := workers_of(urd, threads)) == 2 and p)
    whistle = Whistle(urd.folder, "victim")
    call = threads.submit(call_once, urd, "words/count_slowly",
                          {"text": texts["LICENSE"], "tell": whistle.path, "seconds": 60})
    victim = whistle.pid()
    claim(victim in before, "a stranger took the request", victim, before)
    say("words/count_slowly runs in pid %d; kill -9 %d, and its caller gets:" % (victim, victim))
    begin = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    error = expect_error(call, "WORKER_DIED", "maybe")
    claim("signal 9" in str(error.detail), "the cause is not told", error.detail)
    got = call_once(urd, "words/count", {"text": texts["LICENSE"]})
    check_count(texts["LICENSE"], got)
    say("the pool goes on: words/count answered %.1f ms after the kill"
        % (1000 * (time.monotonic() - begin)))
    after = urd.wait_for("replacement", lambda: len(p := workers_of(urd, threads)) == 2
                         and victim not in p and p)
    claim(len(after - before) == 1, "not one worker was replaced", before, after)
    say("%.0f ms after the kill there are two workers again; the new one is pid %d"
        % (1000 * (time.monotonic() - begin), *(after - before)))
    for line in urd.logged("pid=%d" % victim, "ended"):
        say("urd's log: " + line)


def show_errors(urd, threads):
    title("A request that never ends, one that fails, and one to nowhere")
    with urd.client() as client:
        say("highlight/endless, in a pool with exec_timeout = \"2s\":")
        begin = time.monotonic()
        error = expect_error(threads.submit(client.call, "highlight/endless"),
                             "EXEC_TIMEOUT", "maybe")
        took = time.monotonic() - begin
        claim(1.9 < took < 10, "the limit of two seconds was not kept", took)
        pid = int(re.search(r"pid (\d+)", error.detail).group(1))
        urd.wait_for("replacement of the hung worker",
                     lambda: pid not in (f := urd.family()) and len(f) == FAMILY)
        say("    after %.2f s; the worker that hung, pid %d, has been replaced" % (took, pid))
        say("markdown/render with a number for a text:")
        claim(isinstance(expect_error(threads.submit(client.call, "markdown/render", {"text": 1}),
                                      "APP", "yes"), AppError), "this is not an AppError")
        say("nowhere/render:")
        expect_error(threads.submit(client.call, "nowhere/render"), "NO_POOL", "no")


def show_end(urd, texts, threads):
    title("SIGTERM while a request runs")
    whistle = Whistle(urd.folder, "last")
    call = threads.submit(call_once, urd, "words/count_slowly",
                          {"text": texts["LICENSE"], "tell": whistle.path, "seconds": 0.5})
    whistle.pid()
    family = urd.family()
    claim(len(family) == FAMILY, "urd and five workers were expected", family)
    urd.process.terminate()
    check_count(texts["LICENSE"], call.result(timeout=PATIENCE))
    say("the request that ran was finished and answered")
    try:
        status = urd.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise Wrong("urd did not stop", urd.family()) from None
    claim(status == 0, "urd ended with another status than 0", status)
    claim(not urd.family(), "processes were left behind", urd.family())
    claim(not os.path.exists(urd.socket), "the socket was left behind")
    say("exit status 0; none of %d processes is left, nor is the socket" % len(family))


def play(urd, texts):
    say("urd run -c scripts/demo/urd.conf: pid %d, log in a temporary folder" % urd.process.pid)
    urd.wait_for("socket", lambda: os.path.exists(urd.socket))
    ready = urd.wait_for("ready workers",
                         lambda: len(r := urd.logged("worker ready")) >= FAMILY - 1 and r)
    for line in ready:
        say("    " + line)
    show_answers(urd, texts)
    show_load(urd, texts)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        try:
            show_murder(urd, texts, threads)
            show_errors(urd, threads)
            show_end(urd, texts, threads)
        finally:
            urd.kill()  # or a thread that still waits would keep us


def main():
    build = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(TOP, "build"))
    urd = os.path.join(build, "urd")
    lacking = [p for p in (urd, "php", "node") if not shutil.which(p)]
    if lacking:
        say("demo: there is no %s; \"make demo\" builds and installs what is missing"
            % " and no ".join(lacking))
        return 1
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        # a socket's path may have 107 bytes, and TMPDIR may be long
        root = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="urd-demo-", dir=root if len(root) < 60 else "/tmp")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        daemon = Daemon(urd, folder)
        stack.callback(daemon.kill)
        try:
            play(daemon, read_texts())
        except (Wrong, UrdError, OSError, subprocess.SubprocessError) as e:
            say("\ndemo: FAILED: %s: %s %s"
                % (type(e).__name__, e, getattr(e, "detail", None) or ""))
            say("the end of urd's log:\n" + "\n".join(daemon.logged()[-20:]))
            return 1
    say("\ndemo: all as claimed, in %.0f s" % (time.monotonic() - begin))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
