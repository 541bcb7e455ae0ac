#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Every command of README.md, typed in order into a shell in a copy of the tree.

A ```sh block is a piece of the session; a ```text block right behind it is what
the piece must print on stdout, to the letter.  After a block that starts urd in
the background we wait until it says that it listens, as a reader would.

Before that, what can be said of the pages without running anything: their links
lead somewhere, and docs/errors.md has every error of include/urd/wire.h.

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


def anchors(path):
    """What a link may name behind the #."""
    with open(path) as f:
        heads = re.findall(r"^#+ (.*)$", f.read(), re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads}


def dead_links(tree):
    """Links from one page to another, or to a file, that lead nowhere."""
    for folder, _, names in os.walk(tree):
        for page in (os.path.join(folder, n) for n in names if n.endswith(".md")):
            with open(page) as f:
                text = re.sub(r"^```.*?^```$", "", f.read(), flags=re.M | re.S)
            for link in re.findall(r"\]\(([^)\s]+)\)", text):
                path, _, anchor = link.partition("#")
                target = os.path.normpath(os.path.join(folder, path)) if path else page
                if "://" in link:
                    continue
                if not os.path.exists(target) or anchor and anchor not in anchors(target):
                    yield "%s: %s" % (os.path.relpath(page, tree), link)


def untold_errors(tree):
    """Errors whose number or usual `executed' docs/errors.md lacks or has otherwise."""
    with open(os.path.join(tree, "include/urd/wire.h")) as f:
        errors = re.findall(r"X\((\w+), (\d+), (\w+), \"", f.read())
    with open(os.path.join(tree, "docs/errors.md")) as f:
        page = f.read()
    if len(errors) < 2:
        yield "no errors were found in wire.h"
    for name, number, executed in errors:
        row = "| %s | [%s](#%s) | %s |" % (number, name, name.lower(), executed.lower())
        if name != "OK" and (row not in page or "\n## %s\n" % name not in page):
            yield "%s: there must be a section and the row %s" % (name, row)


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


def check_session(folder, tree, parts):
    """Type it all in; (passed, failed)."""
    passed = failed = 0
    before = {name for name in os.listdir(tree)} | {"build"}
    err = os.path.join(folder, "stderr")
    marks = "== end of piece "
    env = {k: v for k, v in os.environ.items() if not k.startswith(("URD_", "MAKE", "MFLAGS"))}
    env.update(ERR=err, MAKEFLAGS="s")  # what make does is no part of the session
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
    print("FAIL the tour leaves files behind: %s" % sorted(left) if left
          else "ok   the tour cleans up behind itself")
    if failed:
        with open(err, errors="replace") as log:
            print("stderr:\n" + log.read()[-6000:])
    return passed + (not left), failed + bool(left)


def main():
    with open(os.path.join(TOP, "README.md")) as f:
        parts = blocks(f.read())
    with tempfile.TemporaryDirectory(prefix="urd-readme-") as folder:
        tree = os.path.join(folder, "urd")
        copy_tree(tree)
        results = [("README.md has commands", [] if parts else ["none"]),
                   ("links lead somewhere", list(dead_links(tree))),
                   ("docs/errors.md has every error", list(untold_errors(tree)))]
        for name, wrong in results:
            print("FAIL %s: %s" % (name, "; ".join(wrong)) if wrong else "ok   " + name)
        bad = sum(bool(wrong) for _, wrong in results)
        passed, failed = check_session(folder, tree, parts)
    passed += len(results) - bad
    failed += bad
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
