#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The programs of docs/examples: built here, and built as a stranger would, with
an installed urd and pkg-config.

usage: check_examples.py BUILD_DIR
"""
import os
import shlex
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
WORKER = ["/usr/bin/python3", os.path.join(TOP, "tests/workers/echo.py")]
MODES = ("debug", "asan", "tsan", "cov", "fuzz")
passed = failed = 0


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL %s: %s" % (name, why))


def run(argv, **kw):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, **kw)


def check_embed(name, program, **kw):
    got = run([program, *WORKER], **kw)
    want = ['echo: {"n"=>1}',
            "no such method: APP: method not found: no such method (executed: yes)",
            "1000 requests at once, 1000 right answers",
            "2 workers ready"]
    check(name, got.returncode == 0 and got.stdout.splitlines() == want, got)


def check_failures(program):
    got = run([program, "/bin/false"])
    check("embed: workers that do not start are an answer, not a hang",
          got.returncode == 1 and "echo: POOL_FAILED: " in got.stdout
          and "(executed: no)" in got.stdout and "1000 requests at once, 0 right" in got.stdout,
          got)
    got = run([program])
    check("embed: without a command it tells its usage",
          got.returncode == 2 and got.stdout.startswith("usage: "), got)


def check_installed(folder):
    """Only the headers, the library and the .pc file that make install puts there."""
    prefix = os.path.join(folder, "usr")
    make = run(["make", "-s", "--no-print-directory", "install", "O=" + BUILD, "MODE=release",
                "PREFIX=" + prefix, "DESTDIR="], cwd=TOP)
    check("make install", make.returncode == 0, make)
    env = dict(os.environ, PKG_CONFIG_PATH=os.path.join(prefix, "lib/pkgconfig"),
               LD_LIBRARY_PATH=os.path.join(prefix, "lib"))
    msgpack = "msgpack-c" if not run(["pkg-config", "--exists", "msgpack-c"]).returncode \
        else "msgpack"
    flags = run(["pkg-config", "--cflags", "--libs", "urd", msgpack], env=env)
    check("pkg-config knows the installed urd", flags.returncode == 0 and "-lurd" in flags.stdout,
          flags)
    program = os.path.join(folder, "embed")
    source = shutil.copy(os.path.join(TOP, "docs/examples/embed.c"), folder)
    cc = run(["cc", "-Wall", "-Wextra", "-Werror", "-pthread", source, "-o", program,
              *shlex.split(flags.stdout)], env=env)
    check("embed.c compiles against it", cc.returncode == 0, cc.stdout)
    if not cc.returncode:
        check_embed("embed, with the installed library", program, env=env)


def main():
    program = os.path.join(BUILD, "examples", "embed")
    check_embed("embed", program)
    check_failures(program)
    if os.path.basename(BUILD) in MODES:
        print("skip the installed library: only a release build is installed")
    else:
        with tempfile.TemporaryDirectory(prefix="urd-examples-") as folder:
            check_installed(folder)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
