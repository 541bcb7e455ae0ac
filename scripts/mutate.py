#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does the slot machine's test notice a wrong cell?

    scripts/mutate.py [-j JOBS] [--cc CC] [-v]

Changes one cell of the table of src/fsm/slot_fsm.c at a time, runs
tests/unit/test_slot_fsm.c against it and counts the changes that made it fail.
Kinds of change: a row dropped, a row invented, an action dropped, an action
added, another target.  Prints killed/total per kind and each survivor.

The test is linked once.  The linker's --wrap puts a few lines between the test
and urd_slot_fsm() that change the one cell named in the environment; sources
and objects of the table itself are the ones that urd is built from.

Exit code: 0; 1 if 99 % or fewer were killed; 2 if the test can't be built, or
does not pass with the table as it is.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KILLED_MIN = 0.99
RUN_MAX_SECONDS = 20
# what looks at the table; the other tests of the file can't tell a mutant
TESTS = "slot_fsm/@(every_*|a_deaf_*)"

WRAP_C = r"""
#include "fsm/slot_fsm.h"

#include <stdio.h>
#include <stdlib.h>

struct urd_slot_row __real_urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e);
struct urd_slot_row __wrap_urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e);

struct urd_slot_row __wrap_urd_slot_fsm(enum urd_slot_state s, enum urd_slot_event e)
{
	static unsigned int state = SLOT_NR, event, used, next, acts;
	static const char *spec;

	if (!spec) {
		spec = getenv("SLOT_MUTANT");
		if (!spec ||
		    sscanf(spec, "%u %u %u %u %u", &state, &event, &used, &next, &acts) != 5)
			spec = "";
	}
	if (*spec && s == state && e == event)
		return (struct urd_slot_row){ .used = (u8)used, .next = (u8)next, .acts = acts };
	return __real_urd_slot_fsm(s, e);
}
"""

DUMP_C = r"""
#include "fsm/slot_fsm.h"

#include <stdio.h>

int main(void)
{
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		printf("state %s\n", urd_slot_state_name(s));
	for (enum urd_slot_event e = 0; e < SEV_NR; e++)
		printf("event %s\n", urd_slot_event_name(e));
	for (enum urd_slot_act a = 0; a < SACT_NR; a++)
		printf("act %s\n", urd_slot_act_name(a));
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		for (enum urd_slot_event e = 0; e < SEV_NR; e++) {
			struct urd_slot_row r = urd_slot_fsm(s, e);

			printf("row %u %u %u %u %u\n", s, e, r.used, r.next, r.acts);
		}
	return 0;
}
"""

Row = collections.namedtuple("Row", "state event used next acts")
Mutant = collections.namedtuple("Mutant", "kind text row")


def build(cc, tmp):
    """Make the dump program and the wrapped test in tmp; return their paths."""
    (tmp / "wrap.c").write_text(WRAP_C)
    (tmp / "dump.c").write_text(DUMP_C)
    flags = ["-std=gnu17", "-O2", "-D_GNU_SOURCE", f"-I{ROOT}/src", f"-I{ROOT}/include"]
    below = [f"{ROOT}/src/fsm/slot_fsm.c", f"{ROOT}/src/base/base.c"]
    libs = subprocess.run(["pkg-config", "--cflags", "--libs", "criterion"], check=True,
                          capture_output=True, text=True).stdout.split()
    subprocess.run([cc, *flags, tmp / "dump.c", *below, "-o", tmp / "dump"], check=True)
    subprocess.run([cc, *flags, f"{ROOT}/tests/unit/test_slot_fsm.c", tmp / "wrap.c", *below,
                    "-Wl,--wrap=urd_slot_fsm", "-o", tmp / "test", *libs], check=True)
    return tmp / "dump", tmp / "test"


def load(dump):
    """Return the names by kind, and the rows."""
    names = {"state": [], "event": [], "act": []}
    rows = []
    out = subprocess.run([dump], check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        kind, *rest = line.split()
        if kind == "row":
            rows.append(Row(*map(int, rest)))
        else:
            names[kind].append(rest[0])
    return names, rows


def mutants(names, rows):
    """Yield every single-cell change of the table."""
    for r in rows:
        cell = f"{names['state'][r.state]} + {names['event'][r.event]}"
        if not r.used:
            yield Mutant("row invented", f"{cell}: stays", r._replace(used=1, next=r.state))
            continue
        yield Mutant("row dropped", cell, r._replace(used=0, next=0, acts=0))
        for n, name in enumerate(names["state"]):
            if n != r.next:
                yield Mutant("other target", f"{cell}: to {name}", r._replace(next=n))
        for bit, name in enumerate(names["act"]):
            kind = "action dropped" if r.acts >> bit & 1 else "action added"
            yield Mutant(kind, f"{cell}: {name}", r._replace(acts=r.acts ^ 1 << bit))


def passes(test, row=None):
    """Run the test, with one row changed if given; a hang counts as a failure."""
    env = dict(os.environ)
    env.pop("SLOT_MUTANT", None)
    if row:
        env["SLOT_MUTANT"] = " ".join(map(str, row))
    try:
        done = subprocess.run([test, "-j1", "--fail-fast", "--filter", TESTS], env=env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=RUN_MAX_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def report(results, verbose):
    """Print the score by kind and the survivors; return the share of killed."""
    total, killed = collections.Counter(), collections.Counter()
    for mutant, survived in results:
        total[mutant.kind] += 1
        killed[mutant.kind] += not survived
        if survived or verbose:
            print(f"{'SURVIVED' if survived else 'killed'}: {mutant.kind}: {mutant.text}")
    for kind in sorted(total):
        print(f"{kind}: {killed[kind]}/{total[kind]}")
    share = killed.total() / total.total()
    print(f"all: {killed.total()}/{total.total()} killed, {100 * share:.2f} %")
    return share


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"))
    parser.add_argument("-v", "--verbose", action="store_true", help="print the killed ones, too")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as tmp:
        try:
            dump, test = build(args.cc, pathlib.Path(tmp))
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"can't build: {error}", file=sys.stderr)
            return 2
        names, rows = load(dump)
        # through the wrapper, too: a row put in its own place must change nothing
        if not passes(test) or not passes(test, rows[0]) or not passes(test, rows[-1]):
            print("the test fails with the table as it is", file=sys.stderr)
            return 2
        todo = list(mutants(names, rows))
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            survived = list(pool.map(lambda m: passes(test, m.row), todo))
    return 0 if report(zip(todo, survived), args.verbose) > KILLED_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
