#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does the simulator notice when the code is broken on purpose?

    tests/sim/mutate.py [-j JOBS] [--seeds N] [--write] [NAME...]

Each mutation below is applied alone to a copy of the tree, the simulator is
built from that copy, and seeds are run until one fails or N have passed.  With
--write the outcome goes to tests/sim/MUTATIONS.md.

Exit code: 0 if each was caught; 1 if one was not; 2 if the simulator fails
without any, or a mutation does not apply or does not compile.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RUN_MAX_SECONDS = 900

Mutation = collections.namedtuple("Mutation", "name what path old new")
Outcome = collections.namedtuple("Outcome", "state seeds said")

SLOT, IO, MSG = "src/pool/slot.c", "src/pool/slot_io.c", "src/pool/slot_msg.c"
POOL, JOB, CORE = "src/pool/pool.c", "src/pool/job.c", "src/pool/core.c"
RECYCLE, CONN, REQUEST = "src/pool/recycle.c", "src/front/conn.c", "src/front/request.c"
FSM, INBOX, LOOP = "src/fsm/slot_fsm.c", "src/wire/inbox.c", "src/host/loop.c"

MUTATIONS = [
    Mutation("msgid-unchecked", "an answer goes to the first request, whatever its msgid", MSG,
             "if (job->msgid == msgid && job->frame && !job->early)",
             "if (job->frame && !job->early)"),
    Mutation("msgid-constant", "all requests have the same msgid", SLOT,
             "job->msgid = ++core->msgid;", "job->msgid = core->msgid;"),
    Mutation("early-answered-twice", "a request that was answered early may be answered again", MSG,
             "job->frame && !job->early)", "job->frame)"),
    Mutation("no-rearm-task", "the task read is not armed again after it completed", IO,
             "\tif (due)\n\t\tslot_check_due(slot);\n\tslot_arm_task(slot);\n",
             "\tif (due)\n\t\tslot_check_due(slot);\n"),
    Mutation("no-rearm-control", "the control channel is read once", IO,
             "\tif (slot->state != SLOT_KILLING)\n\t\tslot_arm_control(slot);\n", ""),
    Mutation("no-rearm-conn", "a connection is read once", CONN,
             "conn_frames(conn))\n\t\tconn_arm_read(conn);", "conn_frames(conn))\n\t\treturn;"),
    Mutation("reap-before-kill", "the group is killed after its leader was collected", IO,
             "\turd_child_kill_all(&slot->child);\n\tret = urd_child_reap(&slot->child, &si);\n",
             "\tret = urd_child_reap(&slot->child, &si);\n\turd_child_kill_all(&slot->child);\n"),
    Mutation("kill-after-reap", "SIGKILL although the process was collected", SLOT,
             "if ((acts & SACT(SIG_KILL)) && !slot->exited)", "if (acts & SACT(SIG_KILL))"),
    Mutation("gone-too-early", "a process is done with while ops are in flight", IO,
             "\tfor (u32 i = 0; i < SLOT_OP_NR; i++)\n\t\tif (!slot_op_idle(slot, i))\n"
             "\t\t\treturn;\n\tslot_last_lines", "\tslot_last_lines"),
    Mutation("no-last-bytes", "what an ended worker had answered is not read", IO,
             "\tslot_last_task(slot);\n\tslot->due_ns", "\tslot->due_ns"),
    Mutation("answer-in-queue", "an expired request is answered and stays in the queue", CORE,
             "urd_pool_withdraw(job->pool, job);\n\t\turd_job_answer(core,"
             " job, URD_QUEUE_TIMEOUT);",
             "urd_job_answer(core, job, URD_QUEUE_TIMEOUT);"),
    Mutation("queue-untimed", "nothing ends the wait in the queue", POOL,
             "urd_min(due, job->deadline_ns));", "URD_NEVER + 0 * due);"),
    Mutation("expired-admitted", "a request is taken although its time is up", POOL,
             "if (job->deadline_ns <= pool->core->now_ns)", "if (false)"),
    Mutation("queue-unbounded", "more requests may wait than allowed", POOL,
             "pool->queued >= pool->conf.queue_max ||", "pool->queued > pool->conf.queue_max ||"),
    Mutation("queue-bytes-unbounded", "more bytes may wait than allowed", POOL,
             "pool->queued_bytes + job->params_len > pool->conf.queue_max_bytes", "false"),
    Mutation("queue-miscounted", "bytes are not given back when a request leaves the queue", POOL,
             "pool->queued_bytes -= job->params_len;", ""),
    Mutation("queue-deadline-ignored", "the caller's deadline does not count in the queue", POOL,
             "urd_min(due, job->deadline_ns));", "due);"),
    Mutation("queue-forgotten", "queued requests are not given to free workers", CORE,
             "urd_pool_kick(pool);", "if (core->now_ns & 1)\n\t\t\turd_pool_kick(pool);"),
    Mutation("overdue-unflagged", "a request that was answered in the worker's stead is not marked",
             SLOT, "urd_job_answer(slot->core, job, code);\n\tjob->overdue = true;\n"
             "\tslot->overdue_nr++;\n}\n\n/* Whoever",
             "urd_job_answer(slot->core, job, code);\n}\n\n/* Whoever"),
    Mutation("exec-deadline-unarmed", "the task read carries no exec deadline", IO,
             "if (!job->overdue)\n\t\t\tdue = urd_min(due, slot_job_due(slot, job));",
             "if (job->overdue)\n\t\t\tdue = urd_min(due, slot_job_due(slot, job));"),
    Mutation("exec-deadline-of-pool", "the caller's deadline does not count while running", SLOT,
             "job->exec_due_ns = urd_min(job->exec_due_ns, job->deadline_ns);", ""),
    Mutation("retry-torn", "a request that was sent in part is given to another worker", SLOT,
             "if (!job->frame && job->attempt", "if (job->attempt"),
    Mutation("executed-no", "every failure says that nothing was executed", JOB,
             "job->executed == URD_EXECUTED_MAYBE && !job->frame",
             "job->executed == URD_EXECUTED_MAYBE"),
    Mutation("unsent-overdue-sent", "a request that expired before it was sent is sent", IO,
             ("if (!job->frame) {\n\t\t\t/* the worker has not",
              "if (!job->frame && job->exec_due_ns > slot->core->now_ns)"),
             ("if (false) {\n\t\t\t/* the worker has not", "if (!job->frame)")),
    Mutation("expired-sent", "a request whose time is up is sent all the same", IO,
             "if (!job->frame && job->exec_due_ns > slot->core->now_ns)", "if (!job->frame)"),
    Mutation("short-write-whole", "a short write of a request counts as whole", IO,
             "if (job->sent < total) {", "if (job->sent < total && res <= 0) {"),
    Mutation("short-write-restart", "after a short write a request is sent from its beginning", IO,
             "off = urd_min(job->sent, job->frame_len);", "off = 0;"),
    Mutation("conn-short-write", "a short write of answers counts as whole", CONN,
             "if (conn->sent < len)\n\t\t\tbreak;\n\t\tconn->sent -= len;",
             "conn->sent -= urd_min(conn->sent, len);"),
    Mutation("write-next-forgotten", "after a write nothing more is written to a worker", IO,
             "\tslot_write_next(slot);\n\turd_slot_tell(slot); /* a cancel",
             "\turd_slot_tell(slot); /* a cancel"),
    Mutation("confirm-write-next", "after a confirmed write nothing more is written", MSG,
             "\tslot->writing = NULL;\n\tslot_write_next(slot);\n", "\tslot->writing = NULL;\n"),
    Mutation("not-relisted", "a concurrent worker that was full is not offered again", SLOT,
             "slot_relist(slot); /* of a concurrent", "; /* of a concurrent"),
    Mutation("concurrency-ignored", "a worker may be given one request too many", SLOT,
             "if (slot->jobs_nr >= slot->concurrency)\n\t\treturn 0;",
             "if (slot->jobs_nr >= slot->concurrency)\n"
             "\t\treturn slot->jobs_nr == slot->concurrency;"),
    Mutation("starved-unlisted", "whoever had no memory for a frame is not looked at again", MSG,
             "if (ret == -ENOMEM)\n\t\tslot_starve(slot);\n\telse if (ret == -EMSGSIZE)",
             "if (ret == -ENOMEM)\n\t\t;\n\telse if (ret == -EMSGSIZE)"),
    Mutation("early-freed", "bytes of a request are freed while they are written", MSG,
             "if (job == slot->writing && !urd_op_is_idle(&slot->ops[SLOT_OP_TASK_WR]))",
             "if (false)"),
    Mutation("conn-drops-cancel", "a closed connection does not wait for its ops", CONN,
             "\tfor (u32 i = 0; i < CONN_OP_NR; i++)\n\t\tif (!urd_op_is_idle(conn_op(conn, i)))\n"
             "\t\t\treturn;\n", ""),
    Mutation("conn-leaks-answers", "answers of a closed connection are not released", CONN,
             "\twhile (conn->answers_nr)\n\t\tconn_pop(conn);\n", ""),
    Mutation("cancel-any", "a cancel hits the oldest request of the connection", REQUEST,
             "if (job->caller_msgid != msgid)\n\t\t\tcontinue;", "(void)msgid;"),
    Mutation("msgid-of-worker", "the caller gets the worker's msgid", REQUEST,
             "urd_rpc_put_response(job->body, job->body_len, job->caller_msgid,",
             "urd_rpc_put_response(job->body, job->body_len, job->msgid,"),
    Mutation("backoff-forever", "a slot in backoff never tries again", FSM,
             "[SEV_DUE]\t\t= TO(VACANT, A(VACATED)),", "[SEV_DUE]\t\t= TO(BACKOFF, 0),"),
    Mutation("stop-without-guard", "nobody watches that a worker which is to stop does", IO,
             "\turd_op_poll(slot->core->ring, slot_op(slot, SLOT_OP_GUARD), slot->child.pidfd"
             ", POLLIN, due);",
             "\tdue = URD_NEVER;\n\turd_op_poll(slot->core->ring, slot_op(slot, SLOT_OP_GUARD), "
             "slot->child.pidfd, POLLIN, due);"),
    Mutation("boot-unguarded", "the boot deadline is not armed", IO,
             "slot->state == SLOT_BOOTING ? slot->due_ns : URD_NEVER);\n}\n\nstatic"
             " void slot_arm_lines",
             "URD_NEVER);\n}\n\nstatic void slot_arm_lines"),
    Mutation("aged-loop", "a marked worker's timer is due again and again", RECYCLE,
             "if (slot->ttl_due_ns <= now && !slot->leave) {", "if (slot->ttl_due_ns <= now) {"),
    Mutation("idle-last-retired", "the last serving worker leaves for idleness", RECYCLE,
             "if (urd_pool_ready(pool) > pool->want) {\n\t\t\turd_slot_retire",
             "if (true) {\n\t\t\turd_slot_retire"),
    Mutation("chunk-uncounted", "a worker may send more chunks than it has credit for", MSG,
             "\tjob->credit--;\n", ""),
    Mutation("job-leak", "a job is not given back by the worker's side", SLOT,
             "\turd_job_release(slot->core, job, URD_HOLD_WORKER);\n", ""),
    Mutation("pass-on-last-chunk-late", "chunks go out after the answer that ends them", LOOP,
             "while (!urd_list_empty(&urd->core.chunks)) {",
             "while (urd_list_empty(&urd->core.done) && !urd_list_empty(&urd->core.chunks)) {"),
    Mutation("frame-off-by-one", "a frame is handed out one byte short of whole", INBOX,
             "if (avail - URD_FRAME_HEADER < len)", "if (avail - URD_FRAME_HEADER + 1 < len)"),
]


def build(tree):
    """Build the simulator in a copy of the tree; None if it does not compile."""
    run = subprocess.run(["make", "-s", "-C", tree, "WERROR=0", "build/sim/sim"],
                         capture_output=True, text=True)
    return tree / "build/sim/sim" if run.returncode == 0 else None


def copy_tree(to):
    """The sources alone: objects are made once, and then shared by the copies of the copy."""
    shutil.copytree(ROOT, to, symlinks=True,
                    ignore=shutil.ignore_patterns(".git", "build", "__pycache__"))


def simulate(sim, seeds):
    try:
        run = subprocess.run([sim, "--seeds", str(seeds)], capture_output=True, text=True,
                             errors="replace", timeout=RUN_MAX_SECONDS)
    except subprocess.TimeoutExpired:
        return Outcome("caught", 0, "it never ends")
    if run.returncode == 0:
        return Outcome("SURVIVED", seeds, "")
    seed = re.search(r"FAILED seed=(\d+)", run.stderr)
    said = re.search(r"^(?:sim|urd): (\S+:\d+: .*|signal .*)$", run.stderr, re.M)
    return Outcome("caught", int(seed[1]) if seed else 0, said[1] if said else "no word")


def mutation_pairs(mutation):
    """What is to be replaced by what: one place, or several of one file."""
    if isinstance(mutation.old, str):
        return [(mutation.old, mutation.new)]
    return list(zip(mutation.old, mutation.new))


def attempt(mutation, base, seeds):
    """Apply one mutation to a copy and see how many seeds it lives."""
    with tempfile.TemporaryDirectory() as tmp:
        tree = pathlib.Path(tmp) / "tree"
        shutil.copytree(base, tree, symlinks=True, copy_function=shutil.copy2)
        path = tree / mutation.path
        text = path.read_text()
        for old, new in mutation_pairs(mutation):
            if text.count(old) != 1:
                return Outcome("does not apply", 0, f"{text.count(old)} places")
            text = text.replace(old, new)
        path.write_text(text)
        sim = build(tree)
        if not sim:
            return Outcome("does not compile", 0, "")
        return simulate(sim, seeds)


def table(done, seeds):
    caught = sum(o.state == "caught" for _, o in done)
    out = ["# Mutations of the code, and what the simulator says to them", "",
           "Made by `tests/sim/mutate.py --write`; do not edit.  Each change was applied alone;",
           f"seeds were run from 1 on until one failed, {seeds} at most.  {caught} of "
           f"{len(done)} were caught.",
           "", "| mutation | what it breaks | file | caught"
           " by seed | by |", "|---|---|---|---|---|"]
    for m, o in done:
        said = re.sub(r":\d+:", ":", o.said).replace("|", "\\|")
        by = o.seeds if o.state == "caught" else o.state
        out.append(f"| {m.name} | {m.what} | `{m.path}` | {by} | {said} |")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--write", action="store_true", help="write MUTATIONS.md")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    todo = [m for m in MUTATIONS if not args.names or m.name in args.names]

    with tempfile.TemporaryDirectory() as tmp:
        base = pathlib.Path(tmp) / "base"
        copy_tree(base)
        sim = build(base)
        if not sim:
            print("the simulator can't be built", file=sys.stderr)
            return 2
        first = simulate(sim, args.seeds)
        if first.state == "caught":
            print(f"the simulator fails without any change: {first}", file=sys.stderr)
            return 2
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            done = []
            for m, o in zip(todo, pool.map(lambda m: attempt(m, base, args.seeds), todo)):
                print(f"{m.name:26} {o.state:10} {o.seeds:6} {o.said}", flush=True)
                done.append((m, o))
    bad = [m.name for m, o in done if o.state != "caught"]
    print(f"{len(done) - len(bad)} passed, {len(bad)} failed")
    if args.write:
        (ROOT / "tests/sim/MUTATIONS.md").write_text(table(done, args.seeds))
    if any(o.state.startswith("does not") for _, o in done):
        return 2
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
