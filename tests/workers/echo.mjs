// SPDX-License-Identifier: MIT
// The test worker in Node.  The same methods exist in C, Python and PHP.

import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Fatal, Retry, worker } from '../../src/sdk/node/urd_worker.mjs';

worker
  .method('echo', (params) => params)
  .method('sleep', async (params, ctx) => {
    try {
      await sleep(params.ms, undefined, { signal: ctx.signal });
      return 'slept';
    } catch (error) {
      if (ctx.cancelled) return 'cancelled';
      throw error;
    }
  })
  .method('fail', (params) => {
    if (params === 'retry') throw new Retry('try again', { code: 7 });
    if (params === 'fatal') throw new Fatal('give up', { code: 8 });
    throw new TypeError('it failed');
  })
  .method('die', (params) => {
    if (params?.exit !== undefined) process.exit(params.exit);
    process.kill(process.pid, 'SIGKILL');
    return new Promise(() => {});
  })
  .method('noise', () => {
    for (let i = 0; i < 1000; i++) {
      console.log('noise on stdout');
      console.error('noise on stderr');
    }
  })
  .method('pid', () => process.pid)
  .method('retire', () => worker.retire())
  .method('progress', (params, ctx) => {
    for (let i = 0; i < params; i++) ctx.progress(i);
    return params;
  })
  .method('beat', (params, ctx) => ctx.heartbeat())
  .method('meta', (params, ctx) => ({
    attempt: ctx.attempt,
    trace: ctx.trace,
    stream: ctx.wantsStream,
    deadline: ctx.remainingMs === null ? null : Math.floor(ctx.remainingMs),
  }))
  .method('stream', function* stream(params) {
    for (let i = 0; i < params; i++) yield i;
  })
  .method('spawn', () => spawn('sleep', ['60'], { detached: true, stdio: 'ignore' }).pid);

await worker.run({ concurrency: process.argv.includes('async') ? 4 : 1 });
