#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Every command of README.md, typed in order into a shell in a copy of the tree.

A ```sh block is a piece of the session; a ```text block right behind it is what
the piece must print on stdout, to the letter.  After a block that starts urd in
the background we wait until it says that it listens, as a reader would.

The copy has what a clone of the tree as it is would have, plus the objects that
were built here already, so that `make' is quick.

usage: check_readme.py BUILD_DIR
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
if os.path.basename(BUILD) in ("debug", "asan", "tsan", "cov", "fuzz"):
    BUILD = os.path.dirname(BUILD)  # readers type "make", which is a release build
SECONDS = 120
BUILT = ("release", "urd", "liburd.a", "liburd.so", "liburd.so.0", ".libs", "examples")
NOT_RUN = re.compile(r"^\s*(sudo |apt-get |make (demo|check|deps|install)\b)")

# listening N: wait until N urds have said on stderr that they listen.
PRELUDE = r"""
set -e
listening() {
	for _ in $(seq 1000); do
		[ "$(grep -c 'listening on' "$ERR")" -ge "$1" ] && return
		sleep 0.01
	done
	echo "urd does not listen" >&2
	exit 99
}
trap '[ -z "$!" ] || kill $! 2>/dev/null || true' EXIT
"""


def blocks(text):
    """Pairs of commands and expected output (None: whatever it is), with the line number."""
    found = []
    for m in re.finditer(r"^```sh\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", text, re.M | re.S):
        found.append((text.count("\n", 0, m.start()) + 2, m.group(1), m.group(2)))
    return found


def copy_tree(to):
    """What git would give, with the times of the files, or the objects would look old."""
    try:
        out = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=True).stdout
        names = {os.fsdecode(n) for n in out.split(b"\0") if n}
    except (OSError, subprocess.CalledProcessError):
        names = {os.path.relpath(os.path.join(d, f), TOP) for d, _, files in os.walk(TOP)
                 for f in files if not os.path.relpath(d, TOP).startswith((".git", "build"))}
    for name in names:
        source = os.path.join(TOP, name)
        if os.path.isfile(source):
            target = os.path.join(to, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)
    if os.path.isdir(os.path.join(BUILD, "release")):
        shutil.copytree(BUILD, os.path.join(to, "build"), symlinks=True,
                        ignore=lambda d, names: [n for n in names if n not in BUILT]
                        if os.path.samefile(d, BUILD) else [])


def script(parts, marks):
    """The session; each piece ends with a line on stdout that nobody else would print."""
    lines, urds = [PRELUDE], 0
    for number, (_, commands, _) in enumerate(parts):
        lines += [c for c in commands.splitlines() if not NOT_RUN.match(c)]
        started = len(re.findall(r"^build/urd run .*&$", commands, re.M))
        urds += started
        if started:
            lines.append("listening %d" % urds)
        lines.append("echo '%s%d'" % (marks, number))
    return "\n".join(lines) + "\n"


def main():
    passed = failed = 0
    with open(os.path.join(TOP, "README.md")) as f:
        parts = blocks(f.read())
    with tempfile.TemporaryDirectory(prefix="urd-readme-") as folder:
        tree = os.path.join(folder, "urd")
        copy_tree(tree)
        before = {name for name in os.listdir(tree)} | {"build"}
        err = os.path.join(folder, "stderr")
        marks = "== end of piece "
        env = {k: v for k, v in os.environ.items() if not k.startswith(("URD_", "MAKE", "MFLAGS"))}
        env["ERR"] = err
        with open(err, "wb") as log:
            run = subprocess.Popen(["bash", "-c", script(parts, marks)], cwd=tree, env=env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                   start_new_session=True)
        try:
            rest = run.communicate(timeout=SECONDS)[0].decode()
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            rest = run.communicate()[0].decode()
        for number, (line, commands, want) in enumerate(parts):
            name = "README.md:%d: %s" % (line, commands.splitlines()[0])
            got, mark, rest = rest.partition("%s%d\n" % (marks, number))
            if mark and want in (None, got):
                passed += 1
                print("ok   " + name)
                continue
            failed += 1
            print("FAIL %s: stdout\n%s" % (name, got) + ("" if mark else "and it ended there"))
            if not mark:
                break
        left = set(os.listdir(tree)) - before
        if left or not parts:
            failed += 1
            print("FAIL the tour leaves files behind, or there is none: %s" % sorted(left))
        else:
            passed += 1
            print("ok   the tour cleans up behind itself")
        if failed:
            with open(err, errors="replace") as log:
                print("stderr:\n" + log.read()[-6000:])
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
