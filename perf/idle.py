#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a daemon costs when nobody asks: memory per worker slot, and wake-ups at rest.

For each number of workers the daemon is started, loaded for a moment so that its
buffers have been used, and then left alone while its context switches are
counted.  A daemon at rest has none.

Exit status: 0, 1 if it woke up or an answer was wrong, 2 if it cannot run.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import bench


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", type=Path, default=Path("build/perf"), help="measuring programs")
    p.add_argument("--urd", type=Path, default=Path("build/urd"))
    p.add_argument("--urd-option", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--contestant", default="urd", choices=("urd", "eprelay"))
    p.add_argument("--workers", default="2,64,256", help="numbers to try")
    p.add_argument("--seconds", type=float, default=5, help="of being left alone")
    p.add_argument("--json", type=Path, metavar="FILE")
    return p.parse_args()


def memory(pid):
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "RssAnon", "Threads"):
            fields[key] = int(value.split()[0])
    return fields


def measure(opt, tmp, workers):
    path = str(Path(tmp) / f"idle{workers}.sock")
    argv = bench.daemon_argv(opt.contestant, opt.build, opt.urd, path, workers,
                             urd_options=opt.urd_option)
    with bench.Daemon(argv, path, str(Path(tmp) / "log")) as d:
        result = bench.run_json(bench.load_argv(opt.build, path, requests=20000, connections=64))
        # the load's connections are gone; what their end causes is not idleness
        time.sleep(0.5)
        before, cpu = sum(bench.switches(d.pid)), bench.cpu_us(d.pid)
        time.sleep(opt.seconds)
        row = {"workers": workers, **memory(d.pid),
               "switches_per_s": (sum(bench.switches(d.pid)) - before) / opt.seconds,
               "cpu_us_per_s": (bench.cpu_us(d.pid) - cpu) / opt.seconds,
               "bad": result["mismatches"] + result["missing"] + result["errors"]}
    return row


def report(rows):
    print("| workers | RSS KiB | anonymous KiB | threads | switches/s | CPU us/s |")
    print("|---|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['workers']} | {r['VmRSS']} | {r['RssAnon']} | {r['Threads']} | "
              f"{r['switches_per_s']:.1f} | {r['cpu_us_per_s']:.1f} |")
    if len(rows) > 1 and rows[-1]["workers"] != rows[0]["workers"]:
        slots = rows[-1]["workers"] - rows[0]["workers"]
        print(f"{(rows[-1]['RssAnon'] - rows[0]['RssAnon']) / slots:.2f} KiB anonymous per slot")


def main():
    opt = options()
    bench.programs_check(opt.build, {"echo_pipe", "load"} | ({opt.contestant} - {"urd"}))
    try:
        with tempfile.TemporaryDirectory(prefix="urd-perf-") as tmp:
            rows = [measure(opt, tmp, int(n)) for n in opt.workers.split(",")]
    except bench.Failure as e:
        print(e, file=sys.stderr)
        return 2
    report(rows)
    if opt.json:
        opt.json.write_text(json.dumps({"environment": bench.environment(), "rows": rows},
                                       indent=1) + "\n")
    return 1 if any(r["bad"] or r["switches_per_s"] > 0 for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
