#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Which test proves what: weaknesses F1 to F31 of folk 0.1 and the stories of pools
that failed elsewhere, each with the tests that are named after it or stand for it.

    scripts/weaknesses.py           print the list; exit status 1 if one has no test
    scripts/weaknesses.py --write   put the list into docs/testing.md
    scripts/weaknesses.py --check   exit status 1 if it is not the one in there

A test is named after a weakness if its name begins with fNN_, after a story if it
begins with storyNN_.  Those that prove more than one thing are listed below, and
must be there under that name.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENT = os.path.join(ROOT, "docs", "testing.md")
HEADING = "## Weaknesses and stories\n"
FOLDERS = ("tests/unit", "tests/e2e")
SHOWN_MAX = 4

# what must be true, for each
WEAKNESSES = {
    1: "an answer reaches its own caller and nobody else",
    2: "a worker whose time is up is replaced",
    3: "a dead worker is given nothing",
    4: "the death of an idle worker is seen",
    5: "requests wait for any worker, not for one",
    6: "a slow worker does not stall its pool",
    7: "waiting takes nothing away from idle workers",
    8: "who gives up leaves nothing behind",
    9: "the queue has bounds in number, bytes and time",
    10: "one deadline covers sending and receiving",
    11: "an unexpected message costs the worker its place",
    12: "so does one that cannot be read",
    13: "what is too large is refused before a worker sees it",
    14: "errors of the application arrive untouched",
    15: "a replacement leaves no gap",
    16: "limits hold for idle workers too, and not for all at once",
    17: "failed starts are told, and a stop does not wait for them",
    18: "the control channel is always read",
    19: "output is always read",
    20: "channels are in place whatever was open",
    21: "no worker holds the channels of another",
    22: "a signal hits the worker and nobody else, and keeps nobody waiting",
    23: "no place is lost for good",
    24: "a pool of no workers is refused",
    25: "a stop finishes what runs, within its time",
    26: "what was not sent goes to another worker",
    27: "payloads are checked and passed on as they are",
    28: "only what was sent counts as a job",
    29: "forked workers are watched, and so is who forks them",
    30: "the admin socket passes params on, and is not taken from another",
    31: "the method of the request reaches the worker",
}
STORIES = {
    1: "no request waits while a worker is idle",
    2: "a burst adds workers and fails nothing",
    3: "a reload does not wait for a long request, nor cut it",
    4: "a crash is nobody else's",
    5: "as PID 1, orphans are collected",
    6: "no worker outlives urd, however it ends",
    7: "a worker outlives the thread that asked for it",
    8: "output of workers disturbs nothing, even if nobody takes it",
    9: "cancelled and late answers reach nobody",
    10: "answers may come in any order",
    11: "much data both ways does not block",
    12: "death at any step is told at once",
    13: "the death of a worker locks nobody out",
    14: "a dead pool says so",
    15: "recycling costs no capacity",
    16: "a pool that fails harms neither urd nor other pools",
    17: "workers that hang are replaced",
    18: "a backlog does not outlast its stall",
    19: "an error says what happened",
    20: "memory limits end a worker, not urd",
    21: "clocks that jump and stops of urd kill nobody",
    22: "a reload does not wait for who hangs",
    25: "a signal to the whole group cuts nothing",
}

LIFE, STORM = "tests/e2e/check_life.py", "tests/e2e/check_storm.py"
RECYCLE, ISOLATION = "tests/e2e/check_recycle.py", "tests/e2e/check_isolation.py"
SPAWN = "tests/unit/test_spawn.c"
ANSWERS, SLOTS = "tests/e2e/test_folk_answers.c", "tests/e2e/test_folk_slots.c"

# tests that stand for something they are not named after
ALSO = {
    "F8": [("tests/e2e/check_abuse.py", "check_client_that_dies")],
    "F9": [(LIFE, "check_queue_is_bounded_in_number_and_time"),
           (LIFE, "check_queue_is_bounded_in_bytes")],
    "F15": [(STORM, "check_recycling_costs_no_capacity")],
    "F16": [(RECYCLE, "check_ttl"), (RECYCLE, "check_memory"), (RECYCLE, "check_max_jobs"),
            (STORM, "check_recycling_costs_no_capacity")],
    "F17": [(LIFE, "check_failing_pool_says_so_and_recovers")],
    "F25": [(LIFE, "check_term_finishes_what_runs"), (LIFE, "check_term_refuses_new_requests"),
            (LIFE, "check_second_term_is_fast")],
    "story 1": [(STORM, "check_kill_storm")],
    "story 2": [(RECYCLE, "check_autoscale")],
    "story 3": [(STORM, "check_reload_with_a_long_request"), (STORM, "check_reload_under_load")],
    "story 5": [(ISOLATION, "check_pid_one")],
    "story 6": [(ISOLATION, "check_killed"), (ISOLATION, "check_killed_before_exec"),
                (LIFE, "check_kill_9_of_urd_leaves_no_worker")],
    "story 7": [(SPAWN, "a_worker_outlives_the_thread_that_asked"),
                (SPAWN, "a_child_of_another_parent_executes_nothing")],
    "story 8": [(SLOTS, "f19_output_is_read_all_the_time")],
    "story 9": [(STORM, "check_kill_storm"),
                (ANSWERS, "f01_late_answer_never_reaches_another_caller")],
    "story 10": [("tests/e2e/check_dispatch.py", "check_answers_out_of_order")],
    "story 11": [(ANSWERS, "f10_both_sides_write_16_mib_at_once"),
                 (LIFE, "check_bytewise_worker")],
    "story 12": [(LIFE, "check_kill_9_of_a_worker_at_every_step")],
    "story 13": [(STORM, "check_kill_storm")],
    "story 15": [(STORM, "check_recycling_costs_no_capacity")],
    "story 16": [(LIFE, "check_failing_pool_says_so_and_recovers")],
    "story 17": [(STORM, "check_all_workers_hang_at_once")],
    "story 19": [(LIFE, "check_worker_ends_in_every_way")],
    "story 20": [(SPAWN, "workers_go_before_urd_when_memory_runs_out"),
                 (RECYCLE, "check_memory")],
    "story 21": [(STORM, "check_daemon_stopped_under_load")],
    "story 22": [(RECYCLE, "check_broken_reload")],
    "story 25": [(LIFE, "check_term_finishes_what_runs")],
}

TEST = re.compile(r"^(?:Test|ParameterizedTest)\((?:[^,()]*,\s*)+?(\w+)\s*[,)]"
                  r"|^(?:async )?def (check_\w+)\("
                  r"|\bcheck\(f?\"((?:f|story)\d\d)[ _:]", re.M)
NAMED = re.compile(r"(?:check_)?(f|story)(\d\d)(?:_|$)")


def read_tests():
    """{file: [test]} in the order in which they stand there."""
    found = {}
    for folder in FOLDERS:
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            if name.endswith((".c", ".py")):
                with open(os.path.join(ROOT, folder, name), encoding="utf-8") as f:
                    names = [next(filter(None, m.groups())) for m in TEST.finditer(f.read())]
                found[folder + "/" + name] = list(dict.fromkeys(names))
    return found


def collect(tests):
    """({id: (text, [(file, test)])}, [complaint])"""
    items = {"F%d" % n: (text, []) for n, text in WEAKNESSES.items()}
    items.update({"story %d" % n: (text, []) for n, text in STORIES.items()})
    wrong = []
    for file, names in tests.items():
        for name in names:
            m = NAMED.match(name)
            key = m and ("F%d" if m[1] == "f" else "story %d") % int(m[2])
            if key in items:
                items[key][1].append((file, name))
            elif key:
                wrong.append("%s: %s is named after nothing that is known" % (file, name))
    for key, more in ALSO.items():
        for file, name in more:
            if name in tests.get(file, ()):
                items[key][1].append((file, name))
            else:
                wrong.append("%s: %s has no test %s" % (key, file, name))
    for key, why in OPEN.items():
        if items[key][1]:
            wrong.append("%s has a test, take it off the list of open ones" % key)
        else:
            items[key][1].append(("open", why))
    wrong += ["%s has no test: %s" % (key, text) for key, (text, of) in items.items() if not of]
    return items, wrong


# Known, and not yet to be tested for want of the feature.
OPEN = {"F29": "prefork pools are not built yet"}


def section(items):
    """The part of the document."""
    lines = [HEADING, "\n",
             "Workers fail in ways that are known: F1 to F31 are weaknesses of folk 0.1, the\n",
             "stories are what happened to other pools. Each has tests that are named after it\n",
             "or stand for it. `make docs` writes this list, `make check` prints it.\n", "\n",
             "The storms of `check_storm.py` are short in `make check`; this is the long form,\n",
             "which also holds latencies to their bounds and so wants a machine for itself:\n",
             "\n",
             "    STORM_SECONDS=75 STOP_SECONDS=60 AB_ROUNDS=5 AB_SECONDS=2 STRICT=1 \\\n",
             "        tests/e2e/check_storm.py build\n", "\n",
             "| | what must be true | tests |\n", "|---|---|---|\n"]
    for key, (text, of) in items.items():
        shown = ["`%s` in %s" % (name, os.path.basename(file)) for file, name in of[:SHOWN_MAX]]
        if len(of) > SHOWN_MAX:
            shown.append("%d more" % (len(of) - SHOWN_MAX))
        lines.append("| %s | %s | %s |\n" % (key, text, ", ".join(shown)))
    return "".join(lines)


def with_section(text, part):
    """The document with its section replaced, or added at the end."""
    before, found, rest = text.partition(HEADING)
    if not found:
        return text.rstrip("\n") + "\n\n" + part if text else "# Testing\n\n" + part
    m = re.search(r"^#{1,2} ", rest, re.M)
    return before + part + ("\n" + rest[m.start():] if m else "")


def main():
    items, wrong = collect(read_tests())
    if sys.argv[1:] in (["--write"], ["--check"]):
        old = ""
        if os.path.exists(DOCUMENT):
            with open(DOCUMENT, encoding="utf-8") as f:
                old = f.read()
        new = with_section(old, section(items))
        if sys.argv[1] == "--check":
            if new != old:
                print("docs/testing.md: the list of tests is old; run make docs")
            return int(new != old)
        with open(DOCUMENT, "w", encoding="utf-8") as f:
            f.write(new)
    elif sys.argv[1:]:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    else:
        for key, (_, of) in items.items():
            named = ", ".join(file + ":" + name for file, name in of)
            print("%-8s  %s" % (key, named or "-"))
    for line in wrong:
        print("weaknesses: " + line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
