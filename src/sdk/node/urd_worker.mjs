// SPDX-License-Identifier: MIT
/*
 * Write a urd worker in Node.
 *
 *     import { worker } from './urd_worker.mjs';
 *     const db = await open();               // runs before "ready"
 *     worker.method('find', async (params, ctx) => db.find(params.q, { signal: ctx.signal }));
 *     await worker.run({ concurrency: 8 });
 *
 * One file, no dependency, Node 18 or later.  MessagePack: bin is a Buffer, str a
 * string (or a Buffer if it is not UTF-8), a map an object (or a Map if a key is
 * not a string), an integer beyond 2^53 a BigInt, an extension an Ext.  Node
 * itself sets close-on-exec on the descriptors it inherits.  console.log() is
 * harmless: stdout goes to urd's log.
 */

import * as buffer from 'node:buffer';
import { Socket } from 'node:net';

const SDK = 'node/0.1';
const CONTROL_MAX = 64 << 10;
const CREDIT_START = 16;
const NESTING_MAX = 64;
const NO_METHOD = -32601;
const BAD_PARAMS = -32602;
const FAILED = -32603;

/** A MessagePack extension: its type and its bytes. */
export class Ext {
  constructor(type, data) {
    this.type = type;
    this.data = data;
  }
}

/** An error answer with a code of your own; more keys may be given. */
export class WorkerError extends Error {
  constructor(message = '', { code = FAILED, ...more } = {}) {
    super(message);
    this.name = this.constructor.name;
    this.code = code;
    this.more = more;
  }
}

/** Trying again may help. */
export class Retry extends WorkerError {
  retry = true;
}

/** Trying again will not help. */
export class Fatal extends WorkerError {
  retry = false;
}

/** Nobody waits for the answer. */
export class Cancelled extends WorkerError {}

// MessagePack

const strict = new TextDecoder('utf-8', { fatal: true });
const isUtf8 = buffer.isUtf8 ?? ((bytes) => {
  try {
    strict.decode(bytes);
    return true;
  } catch {
    return false;
  }
});

class Packer {
  constructor() {
    this.buf = Buffer.allocUnsafe(1024);
    this.len = 0;
  }

  room(n) {
    if (this.len + n > this.buf.length) {
      const bigger = Buffer.allocUnsafe(Math.max(this.buf.length * 2, this.len + n));
      this.buf.copy(bigger, 0, 0, this.len);
      this.buf = bigger;
    }
    const at = this.len;
    this.len += n;
    return at;
  }

  head8(tag, n) {
    const at = this.room(2);
    this.buf[at] = tag;
    this.buf[at + 1] = n;
  }

  head16(tag, n) {
    const at = this.room(3);
    this.buf[at] = tag;
    this.buf.writeUInt16BE(n, at + 1);
  }

  head32(tag, n) {
    const at = this.room(5);
    this.buf[at] = tag;
    this.buf.writeUInt32BE(n, at + 1);
  }

  sized(n, tag8, tag16, tag32) {
    if (n < 0x100 && tag8) this.head8(tag8, n);
    else if (n < 0x10000) this.head16(tag16, n);
    else this.head32(tag32, n);
  }

  byte(b) {
    const at = this.room(1); // may replace this.buf, so it comes first
    this.buf[at] = b;
  }

  bytes(b) {
    const at = this.room(b.length);
    this.buf.set(b, at);
  }

  value(v, depth) {
    switch (typeof v) {
    case 'undefined':
      return this.byte(0xc0);
    case 'boolean':
      return this.byte(v ? 0xc3 : 0xc2);
    case 'number':
      return this.number(v);
    case 'bigint':
      return this.bigint(v);
    case 'string':
      return this.string(v);
    case 'object':
      return v === null ? this.byte(0xc0) : this.object(v, depth);
    default:
      throw new TypeError(`a ${typeof v} cannot be packed`);
    }
  }

  number(v) {
    if (!Number.isSafeInteger(v) || Object.is(v, -0)) {
      const at = this.room(9);
      this.buf[at] = 0xcb;
      this.buf.writeDoubleBE(v, at + 1);
    } else if (v >= 0) {
      if (v < 0x80) this.byte(v);
      else if (v <= 0xffffffff) this.sized(v, 0xcc, 0xcd, 0xce);
      else this.bigint(BigInt(v));
    } else if (v >= -0x20) {
      this.byte(v & 0xff);
    } else if (v >= -0x80) {
      this.head8(0xd0, v & 0xff);
    } else if (v >= -0x8000) {
      this.head16(0xd1, v & 0xffff);
    } else if (v >= -0x80000000) {
      this.head32(0xd2, v >>> 0);
    } else {
      this.bigint(BigInt(v));
    }
  }

  bigint(v) {
    const at = this.room(9);
    if (v >= 0n) {
      this.buf[at] = 0xcf;
      this.buf.writeBigUInt64BE(v, at + 1);
    } else {
      this.buf[at] = 0xd3;
      this.buf.writeBigInt64BE(v, at + 1);
    }
  }

  string(v) {
    const n = Buffer.byteLength(v);
    if (n < 32) this.byte(0xa0 | n);
    else this.sized(n, 0xd9, 0xda, 0xdb);
    const at = this.room(n);
    this.buf.write(v, at, 'utf8');
  }

  ext(v) {
    const n = v.data.length;
    const fixed = [1, 2, 4, 8, 16].indexOf(n);
    if (fixed >= 0) this.byte(0xd4 + fixed);
    else this.sized(n, 0xc7, 0xc8, 0xc9);
    this.byte(v.type & 0xff);
    this.bytes(v.data);
  }

  object(v, depth) {
    if (v instanceof Uint8Array) {
      this.sized(v.length, 0xc4, 0xc5, 0xc6);
      return this.bytes(v);
    }
    if (v instanceof Ext) return this.ext(v);
    if (depth >= NESTING_MAX) throw new RangeError('nested too deep');
    if (Array.isArray(v)) {
      if (v.length < 16) this.byte(0x90 | v.length);
      else this.sized(v.length, 0, 0xdc, 0xdd);
      for (const item of v) this.value(item, depth + 1);
      return undefined;
    }
    if (typeof v.toJSON === 'function') return this.value(v.toJSON(), depth);
    const entries = v instanceof Map ? [...v]
      : Object.entries(v).filter(([, item]) => item !== undefined);
    if (entries.length < 16) this.byte(0x80 | entries.length);
    else this.sized(entries.length, 0, 0xde, 0xdf);
    for (const [key, item] of entries) {
      this.value(key, depth + 1);
      this.value(item, depth + 1);
    }
    return undefined;
  }
}

/** One MessagePack value as a Buffer. */
export function encode(value) {
  const packer = new Packer();
  packer.value(value, 0);
  return packer.buf.subarray(0, packer.len);
}

class Unpacker {
  constructor(buf) {
    this.buf = buf;
    this.at = 0;
  }

  take(n) {
    const at = this.at;
    if (n > this.buf.length - at) throw new RangeError('truncated');
    this.at += n;
    return at;
  }

  size(bytes) {
    return this.buf.readUIntBE(this.take(bytes), bytes);
  }

  value(depth) {
    const tag = this.buf[this.take(1)];
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.map(tag & 15, depth);
    if (tag < 0xa0) return this.array(tag & 15, depth);
    if (tag < 0xc0) return this.str(tag & 31);
    if (tag >= 0xe0) return tag - 0x100;
    return this.tagged(tag, depth);
  }

  tagged(tag, depth) {
    const { buf } = this;
    switch (tag) {
    case 0xc0: return null;
    case 0xc2: return false;
    case 0xc3: return true;
    case 0xc4: case 0xc5: case 0xc6: return this.bin(this.size(1 << (tag - 0xc4)));
    case 0xc7: case 0xc8: case 0xc9: return this.ext(this.size(1 << (tag - 0xc7)));
    case 0xca: return buf.readFloatBE(this.take(4));
    case 0xcb: return buf.readDoubleBE(this.take(8));
    case 0xcc: case 0xcd: case 0xce: return this.size(1 << (tag - 0xcc));
    case 0xcf: return Unpacker.integer(buf.readBigUInt64BE(this.take(8)));
    case 0xd0: return buf.readInt8(this.take(1));
    case 0xd1: return buf.readInt16BE(this.take(2));
    case 0xd2: return buf.readInt32BE(this.take(4));
    case 0xd3: return Unpacker.integer(buf.readBigInt64BE(this.take(8)));
    case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return this.ext(1 << (tag - 0xd4));
    case 0xd9: case 0xda: case 0xdb: return this.str(this.size(1 << (tag - 0xd9)));
    case 0xdc: case 0xdd: return this.array(this.size(2 << (tag - 0xdc)), depth);
    case 0xde: case 0xdf: return this.map(this.size(2 << (tag - 0xde)), depth);
    default: throw new RangeError('not MessagePack');
    }
  }

  static integer(big) {
    const n = Number(big);
    return Number.isSafeInteger(n) ? n : big;
  }

  bin(n) {
    const at = this.take(n);
    return this.buf.subarray(at, at + n);
  }

  ext(n) {
    const type = this.buf.readInt8(this.take(1));
    return new Ext(type, this.bin(n));
  }

  str(n) {
    const bytes = this.bin(n);
    const text = bytes.toString('utf8');
    // A replacement character may be one that was sent, or stand for what is not UTF-8.
    return text.includes('\ufffd') && !isUtf8(bytes) ? bytes : text;
  }

  open(n, each, depth) {
    if (depth >= NESTING_MAX) throw new RangeError('nested too deep');
    if (n * each > this.buf.length - this.at) throw new RangeError('truncated');
  }

  array(n, depth) {
    this.open(n, 1, depth);
    const out = new Array(n);
    for (let i = 0; i < n; i++) out[i] = this.value(depth + 1);
    return out;
  }

  map(n, depth) {
    this.open(n, 2, depth);
    const entries = new Array(n);
    let plain = true;
    for (let i = 0; i < n; i++) {
      const key = this.value(depth + 1);
      entries[i] = [key, this.value(depth + 1)];
      // Assigning to __proto__ would change the object instead of adding a key.
      plain &&= typeof key === 'string' && key !== '__proto__';
    }
    return plain ? Object.fromEntries(entries) : new Map(entries);
  }
}

/** The one MessagePack value in a Buffer. */
export function decode(buf) {
  const unpacker = new Unpacker(buf);
  const value = unpacker.value(0);
  if (unpacker.at !== buf.length) throw new RangeError('bytes after the value');
  return value;
}

// Frames

class Frames {
  constructor(limit) {
    this.limit = limit;
    this.parts = [];
    this.len = 0;
    this.need = 4;
  }

  push(part) {
    this.parts.push(part);
    this.len += part.length;
  }

  next() {
    if (this.len < this.need) return null;
    const all = this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts);
    this.parts = [all];
    const size = all.readUInt32BE(0);
    if (size === 0 || size > this.limit) throw new RangeError(`frame of ${size} bytes`);
    this.need = 4 + size;
    if (this.len < this.need) return null;
    this.len -= this.need;
    this.parts = [all.subarray(this.need)];
    const payload = all.subarray(4, this.need);
    this.need = 4;
    return payload;
  }
}

function frame(message) {
  const packer = new Packer();
  packer.room(4);
  packer.value(message, 0);
  packer.buf.writeUInt32BE(packer.len - 4, 0);
  return packer.buf.subarray(0, packer.len);
}

/** What is known of a request besides its params. */
export class Context {
  #worker;
  #abort = new AbortController();
  #beat = null;

  constructor(owner, msgid, meta) {
    this.#worker = owner;
    this.msgid = msgid;
    this.meta = meta;
    this.credit = CREDIT_START;
    this.wake = null;
    /** W3C traceparent or null */
    this.trace = meta.traceparent ?? null;
    /** 1 for the first try */
    this.attempt = meta.attempt ?? 1;
    /** does the caller take chunks? */
    this.wantsStream = meta.stream === true;
    /** end of the time allowed, as performance.now() counts, or null */
    this.deadline = meta.deadline_ms == null ? null : performance.now() + Number(meta.deadline_ms);
  }

  /** Milliseconds left, null if there is no limit. */
  get remainingMs() {
    return this.deadline === null ? null : Math.max(0, this.deadline - performance.now());
  }

  /** AbortSignal: aborted once nobody waits for the answer. */
  get signal() {
    return this.#abort.signal;
  }

  get cancelled() {
    return this.#abort.signal.aborted;
  }

  /** Tell the caller how far it is, if it asked. */
  progress(value) {
    this.#worker.notify('control.progress', [this.msgid, value]);
  }

  /** Say "still alive" once or, given a period in ms, until the request is answered. */
  heartbeat(everyMs) {
    this.#worker.heartbeat();
    if (everyMs !== undefined && this.#beat === null) {
      this.#beat = setInterval(() => this.#worker.heartbeat(), everyMs);
    }
  }

  cancel() {
    this.#abort.abort(new Cancelled('cancelled'));
    this.wake?.();
  }

  grant(n) {
    this.credit += n;
    this.wake?.();
  }

  done() {
    clearInterval(this.#beat);
  }
}

/** A request of the raw loop: answer it once, with reply() or fail(). */
export class Request {
  #worker;

  constructor(owner, msgid, method, params, meta) {
    this.#worker = owner;
    this.msgid = msgid;
    this.method = method;
    this.params = params;
    this.ctx = new Context(owner, msgid, meta);
    this.answered = false;
  }

  #answer(error, result) {
    if (this.answered) throw new Error(`request ${this.msgid} is answered already`);
    const data = frame([1, this.msgid, error, result]);
    this.answered = true;
    this.ctx.done();
    return this.#worker.answer(this.msgid, data);
  }

  reply(result) {
    return this.#answer(null, result);
  }

  fail(code, message, more = {}) {
    return this.#answer({ code, message, ...more }, null);
  }
}

const isStream = (v) => v !== null && typeof v === 'object' && typeof v.next === 'function'
  && (Symbol.asyncIterator in v || Symbol.iterator in v);

export class Worker {
  #methods = new Map();
  #fallback = null;
  #task;
  #control;
  #taskIn;
  #taskOut;
  #controlIn;
  #controlOut = null;
  #open = new Map();
  #queue = [];
  #takers = [];
  #ended = false;
  #error = null;
  #concurrency = 1;
  #idle = null;

  constructor({ requestMax = 64 << 20 } = {}) {
    this.#task = new Frames(requestMax);
    this.#control = new Frames(CONTROL_MAX);
    /** has urd announced the end? */
    this.stopping = false;
  }

  /** Serve a method: fn(params, ctx), plain, async or a generator. */
  method(name, fn) {
    if (this.#methods.has(name)) throw new Error(`method ${name} is served already`);
    this.#methods.set(name, fn);
    return this;
  }

  /** Serve whatever has no handler: fn(method, params, ctx). */
  fallback(fn) {
    this.#fallback = fn;
    return this;
  }

  /** Say ready and begin to read; run() and next() do it if you did not. */
  ready({ concurrency = 1 } = {}) {
    if (this.#controlOut !== null) return;
    const fd = (name) => {
      const text = process.env[name];
      if (!text) throw new Error(`not started by urd: ${name} is not set`);
      return Number(text);
    };
    const reader = (name) => new Socket({ fd: fd(name), readable: true, writable: false });
    const writer = (name) => new Socket({ fd: fd(name), readable: false, writable: true });
    this.#concurrency = concurrency;
    this.#taskIn = reader('URD_TASK_IN_FD');
    this.#taskOut = writer('URD_TASK_OUT_FD');
    this.#controlIn = reader('URD_CONTROL_IN_FD');
    this.#controlOut = writer('URD_CONTROL_OUT_FD');
    for (const out of [this.#taskOut, this.#controlOut]) {
      out.on('error', () => process.exit(0)); // urd has gone; there is nobody to tell
    }
    process.on('SIGINT', () => {});
    process.on('SIGTERM', () => this.#stop());
    const hello = {
      pid: process.pid,
      protocol: 1,
      concurrency,
      features: ['meta', 'cancel', 'stream', 'shutdown'],
      sdk: SDK,
    };
    if (this.#methods.size && !this.#fallback) hello.methods = [...this.#methods.keys()];
    this.notify('control.ready', hello);
    this.#taskIn.on('data', (part) => this.#guard(() => this.#onTask(part)));
    this.#taskIn.on('end', () => {
      if (this.#task.len) this.#end(new RangeError('end of file within a frame'));
      else this.#end();
    });
    this.#taskIn.on('error', (error) => this.#end(error));
    this.#controlIn.on('data', (part) => this.#guard(() => this.#onControl(part)));
    this.#controlIn.on('error', () => {});
  }

  /** Ask urd to replace this worker. */
  retire() {
    this.notify('control.retire', null);
  }

  /** Say "still alive". */
  heartbeat() {
    this.notify('control.heartbeat', null);
  }

  /** Send a notification on the control channel. */
  notify(method, params) {
    const data = frame([2, method, params]);
    if (data.length - 4 > CONTROL_MAX) throw new RangeError('more than the control channel takes');
    this.#controlOut.write(data);
  }

  /** Raw loop: the next Request, null at the end. */
  async next() {
    this.ready();
    if (!this.#queue.length && !this.#ended) {
      await new Promise((resolve) => this.#takers.push(resolve));
    }
    if (this.#queue.length) return this.#queue.shift();
    if (this.#error) throw this.#error;
    return null;
  }

  /**
   * Say ready and serve until the end.  Then the process exits with status 0,
   * whatever else keeps it busy, unless exit is false.
   */
  async run({ concurrency = 1, exit = true } = {}) {
    this.ready({ concurrency });
    for (let request = await this.next(); request; request = await this.next()) {
      this.#serve(request);
    }
    if (this.#open.size) {
      await new Promise((resolve) => {
        this.#idle = resolve;
      });
    }
    this.#controlIn.destroy();
    await Promise.all([this.#taskOut, this.#controlOut].map((out) => new Promise((resolve) => {
      out.end(resolve);
    })));
    if (exit) process.exit(0);
  }

  /** @internal Resolves when more may be sent. */
  answer(msgid, data) {
    this.#open.delete(msgid);
    const sent = this.#send(data);
    if (!this.#open.size) this.#idle?.();
    return sent;
  }

  #send(data) {
    if (this.#taskOut.write(data)) return undefined;
    return new Promise((resolve) => this.#taskOut.once('drain', resolve));
  }

  #guard(fn) {
    try {
      fn();
    } catch (error) {
      this.#end(error);
    }
  }

  #stop() {
    this.stopping = true;
    // What is in the pipe already arrives within a turn of the loop.
    setImmediate(() => setImmediate(() => {
      if (!this.#task.len) this.#end();
      else this.#taskIn.on('data', () => this.#task.len || this.#end());
    }));
  }

  #end(error = null) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#taskIn.destroy();
    for (const taker of this.#takers.splice(0)) taker();
  }

  #onTask(part) {
    this.#task.push(part);
    for (let bytes = this.#task.next(); bytes; bytes = this.#task.next()) {
      const request = this.#request(bytes);
      if (request) {
        this.#queue.push(request);
        this.#takers.shift()?.();
      }
    }
  }

  #request(bytes) {
    const unpacker = new Unpacker(bytes);
    const head = bytes[0];
    let message;
    try {
      message = decode(bytes);
    } catch (error) {
      // Params that cannot be had are an error of this request alone.
      unpacker.at = 1;
      if ((head !== 0x94 && head !== 0x95) || unpacker.value(1) !== 0) throw error;
      const text = `params cannot be decoded: ${error.message}`;
      this.#send(frame([1, unpacker.value(1), { code: BAD_PARAMS, message: text }, null]));
      return null;
    }
    if (!Array.isArray(message)) throw new RangeError('not a message');
    if (message[0] === 2) return null;
    if (message[0] !== 0 || message.length < 4 || message.length > 5) {
      throw new RangeError('not a request');
    }
    const [, msgid, method, params, meta] = message;
    const plain = meta && !(meta instanceof Map) && !Array.isArray(meta) ? meta : {};
    const request = new Request(this, msgid, String(method), params, plain);
    this.#open.set(msgid, request);
    return request;
  }

  #onControl(part) {
    this.#control.push(part);
    for (let bytes = this.#control.next(); bytes; bytes = this.#control.next()) {
      const message = decode(bytes);
      if (!Array.isArray(message) || message[0] !== 2) continue;
      const [, method, params] = message;
      if (method === 'control.shutdown') this.stopping = true;
      else if (Array.isArray(params)) this.#apply(method, params, 2);
    }
  }

  #apply(method, params, tries) {
    const request = this.#open.get(params[0]);
    if (!request) {
      // A cancel is written after its request, but on another pipe: let that arrive.
      if (tries > 0) setImmediate(() => this.#apply(method, params, tries - 1));
    } else if (method === 'control.cancel') {
      request.ctx.cancel();
    } else if (method === 'control.credit') {
      request.ctx.grant(params[1]);
    }
  }

  async #serve(request) {
    try {
      let result = await this.#call(request);
      if (isStream(result)) result = await this.#stream(request, result);
      if (!request.answered) await request.reply(result);
    } catch (error) {
      await this.#failed(request, error);
    }
  }

  #call({ method, params, ctx }) {
    const fn = this.#methods.get(method);
    if (fn) return fn(params, ctx);
    if (this.#fallback) return this.#fallback(method, params, ctx);
    throw new WorkerError(`method not found: ${method}`, { code: NO_METHOD });
  }

  #failed(request, error) {
    if (request.answered) {
      console.error(error);
      return undefined;
    }
    if (error instanceof WorkerError) {
      const more = error.retry === undefined ? error.more : { retry: error.retry, ...error.more };
      return request.fail(error.code, error.message, more);
    }
    if (!request.ctx.cancelled) console.error(error);
    const text = String(error?.message || error);
    return request.fail(FAILED, text, { type: error?.constructor?.name ?? typeof error });
  }

  /** Send what a generator yields.  Without a stream it is a list. */
  async #stream(request, items) {
    const { ctx } = request;
    if (!ctx.wantsStream) {
      const all = [];
      for await (const item of items) all.push(item);
      return all;
    }
    let step = await items.next();
    while (!step.done) {
      const data = frame([3, request.msgid, step.value]);
      while (!ctx.cancelled && ctx.credit <= 0) {
        await new Promise((resolve) => {
          ctx.wake = resolve;
        });
      }
      if (ctx.cancelled) {
        await items.return?.();
        throw new Cancelled('cancelled');
      }
      ctx.credit -= 1;
      await this.#send(data);
      step = await items.next();
    }
    return step.value;
  }

  get concurrency() {
    return this.#concurrency;
  }
}

/** the worker of this process */
export const worker = new Worker();
