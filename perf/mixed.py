#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The acceptance run: a million requests of 16 bytes to a megabyte, every answer checked.

64 connections, 8 workers, log-uniform sizes.  While the load runs, the daemon's
resident memory, threads and descriptors are read from /proc.  What counts is that
no answer is wrong or missing and that memory stays where it was after the warm-up.

Exit status: 0, 1 if an answer was wrong, failed or missing or a limit was passed,
2 if it cannot run.
"""

import argparse
import json
import os
import statistics
import subprocess
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
    p.add_argument("--requests", type=int, default=1_000_000)
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--pipeline", type=int, default=1, help="outstanding per connection")
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--depth", type=int, default=1, help="requests in flight per worker")
    p.add_argument("--payload", default="16:1048576")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--warmup", type=float, default=5, metavar="SECONDS",
                   help="of requests, and from then on memory is judged")
    p.add_argument("--every", type=float, default=0.2, metavar="SECONDS",
                   help="between two looks at memory")
    p.add_argument("--growth-max-mib", type=float, metavar="MIB",
                   help="fail if the last third's median RSS is so much above the first third's")
    p.add_argument("--rss-max-mib", type=float, metavar="MIB", help="fail if RSS was ever above")
    p.add_argument("--json", type=Path, metavar="FILE")
    return p.parse_args()


def look(pid, start):
    """Memory, threads and descriptors of the daemon now."""
    status = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        status[key] = value.split()[0] if value.split() else ""
    helpers = sum(1 for task in Path(f"/proc/{pid}/task").iterdir()
                  if (task / "comm").read_text().startswith("iou-wrk"))
    return {
        "t": time.monotonic() - start,
        "rss_kib": int(status["VmRSS"]),
        "anon_kib": int(status["RssAnon"]),
        "threads": int(status["Threads"]),
        "iou_wrk": helpers,
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
    }


def watch(opt, daemon):
    """Run the load to its end.  Return its result and what was seen meanwhile."""
    argv = bench.load_argv(opt.build, daemon.path, requests=opt.requests,
                           connections=opt.connections, pipeline=opt.pipeline,
                           payload=opt.payload, warmup=opt.warmup, seed=opt.seed)
    start = time.monotonic()
    looks = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
        try:
            while load.poll() is None:
                looks.append(look(daemon.pid, start))
                try:
                    load.wait(opt.every)
                except subprocess.TimeoutExpired:
                    pass
            out, err = load.communicate()
        except (OSError, KeyError) as e:
            load.kill()
            raise bench.Failure(f"the daemon died during the run: {e}") from e
        except BaseException:
            load.kill()
            raise
    if daemon.process.poll() is not None:
        text = Path(daemon.log).read_text(errors="replace")[-2000:]
        raise bench.Failure(f"the daemon died during the run ({daemon.process.returncode}): {text}")
    done = subprocess.CompletedProcess(argv, load.returncode, out, err)
    return bench.result_read(argv, done), looks


def judge(opt, looks):
    """Extremes after the warm-up, and the drift between its first and last third."""
    seen = [x for x in looks if x["t"] >= opt.warmup]
    if len(seen) < 3:
        raise bench.Failure("the run was too short to say anything about memory")
    third = max(1, len(seen) // 3)
    rss = [x["rss_kib"] for x in seen]
    growth = statistics.median(rss[-third:]) - statistics.median(rss[:third])
    result = {"looks": len(seen), "growth_kib": growth, "fds_last": seen[-1]["fds"]}
    for key in ("rss_kib", "anon_kib", "threads", "iou_wrk", "fds"):
        result[f"{key}_min"] = min(x[key] for x in seen)
        result[f"{key}_max"] = max(x[key] for x in seen)
    return result


def report(result, memory):
    print(f"{result['requests']} requests in {result['elapsed_s']:.1f} s: "
          f"{result['req_s']:.0f} req/s, {result['mib_s']:.0f} MiB/s each way")
    print(f"latency us: p50 {result['p50_us']:.0f}, p99 {result['p99_us']:.0f}, "
          f"p99.9 {result['p999_us']:.0f}, max {result['max_us']:.0f}")
    print(f"answers: mismatches {result['mismatches']}, missing {result['missing']}, "
          f"errors {result['errors']}")
    print(f"daemon after the warm-up ({memory['looks']} looks): "
          f"RSS {memory['rss_kib_min']}..{memory['rss_kib_max']} KiB, "
          f"anonymous {memory['anon_kib_min']}..{memory['anon_kib_max']} KiB, "
          f"last third against first {memory['growth_kib']:+.0f} KiB")
    print(f"threads {memory['threads_min']}..{memory['threads_max']}, "
          f"io-wq threads {memory['iou_wrk_max']}, "
          f"descriptors {memory['fds_min']}..{memory['fds_max']}")
    if "complaint" in result:
        print(result["complaint"], file=sys.stderr)


def verdict(opt, result, memory):
    bad = []
    if result["mismatches"] or result["missing"] or result["errors"]:
        bad.append("not every answer was right")
    if result["requests"] != opt.requests:
        bad.append(f"{result['requests']} answers instead of {opt.requests}")
    if opt.growth_max_mib is not None and memory["growth_kib"] > opt.growth_max_mib * 1024:
        bad.append("memory grew")
    if opt.rss_max_mib is not None and memory["rss_kib_max"] > opt.rss_max_mib * 1024:
        bad.append("too much memory")
    for text in bad:
        print(f"FAILED: {text}")
    return 1 if bad else 0


def main():
    opt = options()
    needed = {"echo_pipe", "load"} | ({opt.contestant} - {"urd"})
    bench.programs_check(opt.build, needed)
    with tempfile.TemporaryDirectory(prefix="urd-perf-") as tmp:
        path = str(Path(tmp) / "mixed.sock")
        argv = bench.daemon_argv(opt.contestant, opt.build, opt.urd, path, opt.workers, opt.depth,
                                 opt.urd_option)
        try:
            with bench.Daemon(argv, path, str(Path(tmp) / "log")) as daemon:
                result, looks = watch(opt, daemon)
                memory = judge(opt, looks)
        except bench.Failure as e:
            print(e, file=sys.stderr)
            return 2
    report(result, memory)
    if opt.json:
        opt.json.write_text(json.dumps({"environment": bench.environment(), "argv": argv,
                                        "result": result, "memory": memory, "looks": looks},
                                       indent=1) + "\n")
    return verdict(opt, result, memory)


if __name__ == "__main__":
    sys.exit(main())
