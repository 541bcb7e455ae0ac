# SPDX-License-Identifier: MIT
"""Demo worker: word statistics of a text."""

import collections
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../src/sdk/python"))

from urd_worker import worker  # noqa: E402

word_re = None


@worker.setup
def load():
    """Runs once, before the worker says that it is ready."""
    global word_re
    word_re = re.compile(r"[A-Za-z]+")


@worker.method("count")
def count(params, ctx):
    text = params["text"]
    words = collections.Counter(w.lower() for w in word_re.findall(text))
    top = sorted(((w, n) for w, n in words.items() if len(w) > 3), key=lambda p: (-p[1], p[0]))
    return {
        "lines": text.count("\n"),
        "words": sum(words.values()),
        "distinct": len(words),
        "longest": max(words, key=lambda w: (len(w), w), default=""),
        "top": [list(p) for p in top[:5]],
    }


@worker.method("count_slowly")
def count_slowly(params, ctx):
    """The same at leisure: tells who does it, so that something can happen to it meanwhile."""
    with open(params["tell"], "w") as pipe:
        pipe.write("%d\n" % os.getpid())
    time.sleep(params["seconds"])
    return count(params, ctx)


@worker.method("whoami")
def whoami(params, ctx):
    time.sleep(params["seconds"])
    return os.getpid()


worker.run()
