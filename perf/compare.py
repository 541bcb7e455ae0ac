#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare urd with its floors in one interleaved run.

Each round runs every contestant under every load for a moment, in an order that
turns around from round to round.  Absolute numbers move with the machine; what
is reported is the median over rounds of the ratio to the reference of the *same*
round: relay2 for one request outstanding, eprelay for sixty-four.  The calibrator
runs before and after each sample, and rounds in which it drifted by more than
15 % are marked and left out, as long as three others remain.

System calls are counted in a run of their own, because counting slows it down.
Exit status: 0, 1 if any answer was wrong, failed or missing, 2 if it cannot run.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import bench

# load -> connections, outstanding per connection, reference, figure compared
LOADS = {
    "1x": (1, 1, "relay2", "p50_us"),
    "64p": (1, 64, "eprelay", "req_s"),
    "64c": (64, 1, "eprelay", "req_s"),
}
COUNTED = {
    "enters": "syscalls:sys_enter_io_uring_enter",
    "syscalls": "raw_syscalls:sys_enter",
}
RATIOS = ("p50_us", "p99_us", "req_s", "disp_cpu_us", "all_cpu_us")
DRIFT_MAX = 1.15
CLEAN_MIN = 3


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", type=Path, default=Path("build/perf"), help="measuring programs")
    p.add_argument("--urd", type=Path, default=Path("build/urd"))
    p.add_argument("--urd-option", action="append", default=[], metavar="KEY=VALUE",
                   help="one more -o of urd")
    p.add_argument("--contestants", default="floor1,relay2,eprelay,urd",
                   help="urd@0 or urd@0+1: with everything of that sample on these CPUs")
    p.add_argument("--depth", type=int, default=0, metavar="K",
                   help="also eprelay and urd with K requests in flight per worker")
    p.add_argument("--loads", default=",".join(LOADS))
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--seconds", type=float, default=0.5, help="of one sample")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--payload", default="64", help="bytes, or MIN:MAX")
    p.add_argument("--cpus", help="keep everything on these CPUs, such as 0 or 0,1")
    p.add_argument("--patience", type=float, default=0, metavar="SECONDS",
                   help="wait so long before a sample for the machine to be as fast as it was")
    p.add_argument("--no-counts", action="store_true", help="do not count system calls")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    return p.parse_args()


class Bench:
    """One run: who takes part, and what was found."""

    def __init__(self, opt, tmp):
        self.opt = opt
        self.tmp = Path(tmp)
        self.best_us = bench.spin_us(opt.build)
        self.samples = []
        self.counts = []
        self.cpus = os.sched_getaffinity(0)
        names = opt.contestants.split(",")
        self.contestants = [(name, name.partition("@")[0], 1) for name in names]
        if opt.depth > 1:
            for kind in ("eprelay", "urd"):
                if kind in names:
                    self.contestants.append((f"{kind}-k{opt.depth}", kind, opt.depth))

    def takes_part(self, kind, load):
        """relay2 serves one connection at a time, floor1 has none at all."""
        return load == "1x" if kind == "floor1" else not (kind == "relay2" and load == "64c")

    def daemon(self, kind, depth):
        path = str(self.tmp / f"{kind}.sock")
        Path(path).unlink(missing_ok=True)
        argv = bench.daemon_argv(kind, self.opt.build, self.opt.urd, path, self.opt.workers, depth,
                                 self.opt.urd_option)
        return bench.Daemon(argv, path, str(self.tmp / f"{kind}.log"))

    def load_argv(self, path, load):
        connections, pipeline, _, _ = LOADS[load]
        return bench.load_argv(self.opt.build, path, seconds=self.opt.seconds,
                               connections=connections, pipeline=pipeline,
                               payload=self.opt.payload)

    def calibrate(self):
        us = bench.spin_us(self.opt.build)
        self.best_us = min(self.best_us, us)
        return us

    def calibrate_patiently(self):
        deadline = time.monotonic() + self.opt.patience
        us = self.calibrate()
        while us > self.best_us * DRIFT_MAX and time.monotonic() < deadline:
            us = self.calibrate()
        return us

    @contextlib.contextmanager
    def pinned(self, name):
        """Keep what is started meanwhile on the CPUs after the @ of a contestant's name."""
        cpus = name.partition("@")[2]
        if cpus:
            os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split("+")})
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.cpus)

    def sample_floor1(self):
        argv = [str(self.opt.build / "floor1"), "-t", str(self.opt.seconds),
                "-b", self.opt.payload, "--json", "--", str(self.opt.build / "echo_pipe")]
        r = bench.run_json(argv)
        r["disp_cpu_us"] = r["client_cpu_us"] / r["requests_all"]
        return r

    def sample_daemon(self, kind, depth, load):
        with self.daemon(kind, depth) as d:
            workers = d.workers()
            cpu = bench.cpu_us(d.pid)
            cpu_workers = sum(bench.cpu_us(w) for w in workers)
            voluntary, forced = bench.switches(d.pid)
            r = bench.run_json(self.load_argv(d.path, load))
            n = max(1, r["requests_all"])
            disp = bench.cpu_us(d.pid) - cpu
            rest = sum(bench.cpu_us(w) for w in workers) - cpu_workers + r["client_cpu_us"]
            after = bench.switches(d.pid)
        r["disp_cpu_us"] = disp / n
        r["all_cpu_us"] = (disp + rest) / n
        r["voluntary"] = (after[0] - voluntary) / n
        r["forced"] = (after[1] - forced) / n
        return r

    def sample(self, round_no, load, name, kind, depth):
        before = self.calibrate_patiently()
        with self.pinned(name):
            r = self.sample_floor1() if kind == "floor1" else self.sample_daemon(kind, depth, load)
        r.update(round=round_no, load=load, contestant=name, spin_us=[before, self.calibrate()])
        self.samples.append(r)

    def rounds(self):
        for i in range(self.opt.rounds):
            order = self.contestants if i % 2 == 0 else self.contestants[::-1]
            for load in self.opt.loads.split(","):
                for name, kind, depth in order:
                    if self.takes_part(kind, load):
                        self.sample(i, load, name, kind, depth)
            print(f"round {i + 1} of {self.opt.rounds} done", file=sys.stderr)

    def count(self, load, name, kind, depth):
        out = self.tmp / "perf.csv"
        with self.pinned(name), self.daemon(kind, depth) as d:
            argv = ["perf", "stat", "-x,", "-o", str(out), "-e", ",".join(COUNTED.values()),
                    "-p", str(d.pid), "--", *self.load_argv(d.path, load)]
            r = bench.run_json(argv)
        row = {"load": load, "contestant": name}
        for line in out.read_text().splitlines():
            fields = line.split(",")
            for key, event in COUNTED.items():
                if len(fields) > 2 and fields[2] == event and fields[0].isdigit():
                    row[key] = int(fields[0]) / max(1, r["requests_all"])
        self.counts.append(row)

    def counted_run(self):
        for load in self.opt.loads.split(","):
            for name, kind, depth in self.contestants:
                if kind != "floor1" and self.takes_part(kind, load):
                    try:
                        self.count(load, name, kind, depth)
                    except bench.Failure as e:
                        print(f"no system calls counted: {e}", file=sys.stderr)
                        return


def drifted(samples):
    """(round, load) pairs during which the calibrator's answers differed by too much."""
    spins = {}
    for s in samples:
        spins.setdefault((s["round"], s["load"]), []).extend(s["spin_us"])
    return {key for key, us in spins.items() if max(us) > min(us) * DRIFT_MAX}


def spread(values):
    """Median with the quartiles around it."""
    if len(values) < 2:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": statistics.median(values), "low": low, "high": high}


def summary_row(samples, load, name, bad):
    """Medians and ratios of one contestant under one load."""
    reference = LOADS[load][2]
    mine = {s["round"]: s for s in samples if (s["load"], s["contestant"]) == (load, name)}
    theirs = {s["round"]: s for s in samples if (s["load"], s["contestant"]) == (load, reference)}
    clean = [r for r in mine if (r, load) not in bad]
    rounds = clean if len(clean) >= CLEAN_MIN else list(mine)
    row = {"load": load, "contestant": name, "reference": reference, "rounds": len(rounds),
           "rounds_drifted": len(mine) - len(clean), "only_clean": rounds == clean}
    for key in ("req_s", "p50_us", "p99_us", "p999_us", "disp_cpu_us", "all_cpu_us", "voluntary"):
        values = [mine[r][key] for r in rounds if key in mine[r]]
        if values:
            row[key] = statistics.median(values)
    for key in RATIOS:
        values = [mine[r][key] / theirs[r][key] for r in rounds
                  if r in theirs and mine[r].get(key) and theirs[r].get(key)]
        if values:
            row[f"x_{key}"] = spread(values)
    for key in ("mismatches", "missing", "errors"):
        row[key] = sum(s[key] for s in mine.values())
    return row


def summary(run):
    bad = drifted(run.samples)
    rows = []
    for load in run.opt.loads.split(","):
        for name, kind, _ in run.contestants:
            if run.takes_part(kind, load):
                rows.append(summary_row(run.samples, load, name, bad))
    for row in rows:
        for count in run.counts:
            if (count["load"], count["contestant"]) == (row["load"], row["contestant"]):
                row.update({k: count[k] for k in COUNTED if k in count})
    return rows


def cell(row, key, digits):
    return f"{row[key]:.{digits}f}" if key in row else "-"


def ratio_cell(row, key):
    x = row.get(f"x_{key}")
    return f"{x['median']:.2f} ({x['low']:.2f}-{x['high']:.2f})" if x else "-"


def table_print(rows):
    head = ("load", "contestant", "n", "req/s", "x", "p50 us", "x", "p99 us", "x p99",
            "disp us", "x", "all us", "x", "vcs", "enters", "syscalls", "bad")
    lines = [head]
    for r in rows:
        x = {key: ratio_cell(r, key) for key in RATIOS}
        n = f"{r['rounds']}" if r["only_clean"] else f"{r['rounds']}~"
        lines.append((r["load"], r["contestant"], n, cell(r, "req_s", 0), x["req_s"],
                      cell(r, "p50_us", 1), x["p50_us"], cell(r, "p99_us", 1), x["p99_us"],
                      cell(r, "disp_cpu_us", 2), x["disp_cpu_us"],
                      cell(r, "all_cpu_us", 2), x["all_cpu_us"],
                      cell(r, "voluntary", 2), cell(r, "enters", 2), cell(r, "syscalls", 2),
                      str(r["mismatches"] + r["missing"] + r["errors"])))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for i, line in enumerate(lines):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |")
        if i == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    print("x: median of per-round ratios to the reference (relay2 at 1x, eprelay else), with "
          "quartiles.\nn: rounds used; ~ too few without drift, so all were.  Per request: disp, "
          "all = CPU of daemon, of everything;\nvcs = voluntary switches, enters = "
          "io_uring_enter, syscalls = all, both of a separate run.")


def contestants_check(opt):
    """Without urd the floors are still worth a run."""
    names = opt.contestants.split(",")
    kinds = {name: name.partition("@")[0] for name in names}
    unknown = set(kinds.values()) - {"floor1", "relay2", "eprelay", "urd"}
    unknown |= set(opt.loads.split(",")) - set(LOADS)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}")
    absent = set()
    if "urd" in kinds.values() and shutil.which(str(opt.urd)) is None:
        print(f"{opt.urd} is not built: measuring without it", file=sys.stderr)
        absent.add("urd")
    if not re.fullmatch(r"\d+", opt.payload):
        absent.add("floor1")
    opt.contestants = ",".join(name for name in names if kinds[name] not in absent)
    bench.programs_check(opt.build, {"echo_pipe", "load", "spin", *kinds.values()} - {"urd"})


def main():
    opt = options()
    contestants_check(opt)
    if opt.cpus:
        bench.cpus_pin(opt.cpus)
    with tempfile.TemporaryDirectory(prefix="urd-perf-") as tmp:
        run = Bench(opt, tmp)
        try:
            run.rounds()
            if not opt.no_counts and shutil.which("perf"):
                run.counted_run()
        except bench.Failure as e:
            print(e, file=sys.stderr)
            return 2
    rows = summary(run)
    table_print(rows)
    if opt.json:
        settings = {k: str(v) for k, v in vars(opt).items()}
        opt.json.write_text(json.dumps({"environment": bench.environment(), "settings": settings,
                                        "summary": rows, "counts": run.counts,
                                        "samples": run.samples}, indent=1) + "\n")
    complaints = {s["complaint"] for s in run.samples if "complaint" in s}
    for text in sorted(complaints):
        print(text, file=sys.stderr)
    return 1 if any(r["mismatches"] + r["missing"] + r["errors"] for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
