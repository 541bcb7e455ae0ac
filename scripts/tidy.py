#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hold the tree to its own rules: layers, sizes, banned calls, first lines.

    scripts/tidy.py [FILE...]

Without arguments it reads every file of the tree that is not ignored.  Each
finding is one line, "path:line: what is wrong"; exit status 1 if there is any.
A table may be as long as it has to be: put `/* tidy: table */` on the line
before it (or before the function that holds it).
"""

import os
import re
import subprocess
import sys
from pathlib import PurePosixPath as Path

# A folder of src/ may include itself and these folders, nothing else.
LAYERS = ["base", "wire", "fsm", "ring", "pool", "front", "host", "cli"]
MAY_INCLUDE = {name: set(LAYERS[: i + 1]) for i, name in enumerate(LAYERS)}
MAY_INCLUDE["cli"].add("sdk")
MAY_INCLUDE["sdk"] = {"base", "wire", "sdk"}

# Folders without system calls, clock or log, and who is excused for what.
PURE = {"base", "wire", "fsm"}
IMPURE_HEADERS = re.compile(
    r"(unistd|fcntl|poll|time|signal|stdio|stdlib|pthread|syslog|spawn|dirent|sched)\.h$"
    r"|(sys|linux|net|netinet|arpa)/"
)
IMPURE_OK = {
    "src/base/arena.c": "asks for its memory once",
    "src/base/base.c": "prints the failed assertion",
    "src/base/log.c": "writes the log",
    "src/base/log.h": "writes the log",
}

# Where the heap may be used: in short programs, in code of the other end, and
# at start-up; a running daemon has the arena.
HEAP_OK = ("src/sdk/", "src/cli/", "src/host/", "tests/", "perf/", "scripts/")
HEAP_FILES = {
    "src/base/log.c",
    "src/front/conn.c",
    "src/front/listen.c",
    "src/pool/core.c",
    "src/pool/pool.c",
    "src/ring/ring.c",
    "src/ring/spawn.c",
}
HEAP = re.compile(r"\b(malloc|calloc|realloc|reallocarray|free|strdup|strndup|v?asprintf)\s*\(")

BANNED = {
    "strcpy": "snprintf, or memcpy with a known length",
    "strcat": "snprintf",
    "strncpy": "memcpy with a known length",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "atoi": "strtoul with its checks",
    "atol": "strtoul with its checks",
    "gets": "fgets",
    "strtok": "strchr or strsep",
    "alloca": "a bounded array",
    "gettimeofday": "clock_gettime with CLOCK_MONOTONIC",
    "perror": "a message that names what was tried",
}
BANNED_CALL = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")

FILE_LINES_MAX = 600
# One file to copy into a project is a promise of these.
SDK_LINES_MAX = 1000
ONE_FILE_SDK = ("src/sdk/python/", "src/sdk/php/", "src/sdk/node/")
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100
TABLE = "/* tidy: table */"
SPDX = "SPDX-License-Identifier: MIT"
# Written in two halves, or this file would find itself.
LEFTOVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
STRANGE_PATH = re.compile(r"(^|[\s\"'(=:`])/wor" r"k(/|\b)")
CODE = {".c", ".h", ".py", ".php", ".mjs", ".js", ".sh"}
SKIPPED = ("tests/fuzz/corpus/", "LICENSE")


class Findings:
    """What is wrong, collected and printed as it is found."""

    def __init__(self):
        self.count = 0

    def add(self, path, line, text):
        self.count += 1
        print(f"{path}:{line}: {text}")


def tree():
    """Files of the tree: what git knows or would take; else all but build/."""
    try:
        out = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
        ).stdout.decode()
        names = [name for name in out.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk("."):
            folders[:] = [f for f in folders if f not in (".git", "build", "__pycache__")]
            names += [os.path.join(folder, name)[2:] for name in files]
    return sorted({n for n in names if os.path.isfile(n) and not n.startswith(SKIPPED)})


def without_comments(text):
    """C text with comments and the insides of strings blanked, lines kept."""
    token = re.compile(
        r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S
    )

    def blank(match):
        s = match.group(0)
        if s[0] in "\"'":
            return s[0] + s[0]
        return "\n" * s.count("\n") or " "

    return token.sub(blank, text)


def check_text(path, lines, found):
    """Rules for every file."""
    for i, line in enumerate(lines, 1):
        if line != line.rstrip():
            found.add(path, i, "space at the end of the line")
        if LEFTOVER.search(line):
            found.add(path, i, "left-over marker; do it or file it")
        if STRANGE_PATH.search(line):
            found.add(path, i, "a path that means nothing elsewhere")
    if lines and not lines[-1]:
        found.add(path, len(lines), "empty line at the end of the file")


def check_code(path, lines, found):
    """Rules for every file that is code."""
    start = 0
    while start < len(lines) and re.match(r"#!|<\?php", lines[start]):
        start += 1
    if not any(SPDX in line for line in lines[start : start + 1]):
        found.add(path, start + 1, f"no {SPDX} in the first line")

    counted, in_table = 0, False
    for line in lines:
        in_table = in_table or line.strip() == TABLE
        counted += not in_table
        if in_table and line.startswith("}"):
            in_table = False
    limit = SDK_LINES_MAX if path.startswith(ONE_FILE_SDK) else FILE_LINES_MAX
    if counted > limit:
        found.add(path, 1, f"{counted} lines, limit {limit}; find the seam")
    for i, line in enumerate(lines, 1):
        if len(line.expandtabs(8)) > COLUMNS_MAX:
            found.add(path, i, f"more than {COLUMNS_MAX} columns")


def check_functions(path, lines, found):
    """A function begins with a brace at column 0 and ends with one."""
    start = None
    for i, line in enumerate(lines, 1):
        if line == "{":
            start = i
        elif line.startswith("}") and start:
            head = start - 1
            while head > 0 and lines[head - 1] and lines[head - 1][0] not in " /}":
                head -= 1
            exempt = any(TABLE in s for s in lines[max(0, head - 1) : start + 1])
            if i - start + 1 > FUNCTION_LINES_MAX and not exempt:
                found.add(path, start, f"function of {i - start + 1} lines, "
                          f"limit {FUNCTION_LINES_MAX}")
            start = None


def check_includes(path, lines, found):
    """Layers: who may include whom."""
    parts = Path(path).parts
    in_src = parts[0] == "src" and len(parts) > 2
    folder = parts[1] if in_src else ""
    if in_src and folder not in MAY_INCLUDE:
        found.add(path, 1, f"src/{folder} is not a layer; there are {' '.join(MAY_INCLUDE)}")
        return
    for i, line in enumerate(lines, 1):
        match = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)[>\"]", line)
        if not match:
            continue
        quote, name = match.groups()
        if name == "liburing.h" and parts[0] == "src" and folder != "ring":
            found.add(path, i, "only src/ring/ knows liburing")
        if path.startswith("include/") and (quote == '"' or name.split("/")[0] in MAY_INCLUDE):
            found.add(path, i, "a public header includes only system and <urd/> headers")
        if folder in PURE and quote == "<" and path not in IMPURE_OK:
            if IMPURE_HEADERS.search(name):
                found.add(path, i, f"src/{folder} is pure, it has no use for <{name}>")
        if in_src and quote == '"':
            below = name.split("/")[0]
            if "/" not in name or below not in MAY_INCLUDE:
                found.add(path, i, f'"{name}": write the folder, as in "base/list.h"')
            elif below not in MAY_INCLUDE[folder]:
                found.add(path, i, f"layer {folder} must not include layer {below}")


def check_calls(path, text, found):
    """Calls that are never right, or not here."""
    heap_ok = path.startswith(HEAP_OK) or path in HEAP_FILES
    for i, line in enumerate(without_comments(text).split("\n"), 1):
        for match in BANNED_CALL.finditer(line):
            found.add(path, i, f"{match[1]}(): use {BANNED[match[1]]}")
        if not heap_ok and HEAP.search(line):
            found.add(path, i, f"{HEAP.search(line)[1]}(): memory comes from the arena here")


def check_shape(path, lines, found):
    """First comment, header guard, format fences."""
    if path.startswith(("src/", "include/")) and not (len(lines) > 1 and lines[1].startswith("/*")):
        found.add(path, 2, "no file comment after the first line")
    if path.endswith(".h"):
        guard = "URD_" + re.sub(r"\W", "_", Path(path).name).upper()
        if not any(re.fullmatch(rf"#ifndef (\w+_)?{guard}|#ifndef URD_\w+_H", s) for s in lines):
            found.add(path, 1, f"no include guard like {guard}")
    off = 0
    for i, line in enumerate(lines, 1):
        if "clang-format off" in line:
            off = i
        elif "clang-format on" in line:
            off = 0
    if off:
        found.add(path, off, "clang-format is never switched on again")


def check(path, found):
    with open(path, "rb") as f:
        raw = f.read()
    if b"\0" in raw:
        return
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        found.add(path, 1, "not UTF-8")
        return
    if text and not text.endswith("\n"):
        found.add(path, text.count("\n") + 1, "no newline at the end")
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    check_text(path, lines, found)
    suffix = Path(path).suffix
    if suffix in CODE:
        check_code(path, lines, found)
    if suffix in (".c", ".h"):
        check_shape(path, lines, found)
        check_functions(path, lines, found)
        check_includes(path, lines, found)
        check_calls(path, text, found)


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    found = Findings()
    names = sys.argv[1:] or tree()
    for name in names:
        check(name, found)
    print(f"tidy: {len(names)} files, {found.count} findings")
    return 1 if found.count else 0


if __name__ == "__main__":
    sys.exit(main())
