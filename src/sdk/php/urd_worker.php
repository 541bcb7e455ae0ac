<?php
// SPDX-License-Identifier: MIT
/*
 * Write a urd worker in PHP.
 *
 *     require 'urd_worker.php';
 *     $model = boot();                       // runs before "ready"
 *     (new Urd\Worker)
 *         ->on('resize', fn($params, $ctx) => $model->resize($params['width']))
 *         ->run();
 *
 * One file; it needs PHP 8.2 on the command line with ext-msgpack, and ext-pcntl
 * for SIGTERM to mean "finish, then leave".  Close-on-exec on the descriptors
 * needs ext-ffi: PHP itself cannot set it, nor close a descriptor it inherited.
 * echo is harmless: stdout goes to urd's log.
 */

declare(strict_types=1);

namespace Urd;

const SDK = 'php/0.1';
const CONTROL_MAX = 64 << 10;
const CREDIT_START = 16;
const COLLECT_LOOK = 256;
const NO_METHOD = -32601;
const FAILED = -32603;

/** An error answer with a code of your own; more keys may be given. */
class Error extends \Exception
{
    public ?bool $retry = null;

    public function __construct(string $message = '', int $code = FAILED, public array $more = [])
    {
        parent::__construct($message, $code);
    }
}

/** Trying again may help. */
class Retry extends Error
{
    public ?bool $retry = true;
}

/** Trying again will not help. */
class Fatal extends Error
{
    public ?bool $retry = false;
}

/** Nobody waits for the answer. */
class Cancelled extends Error
{
}

/** urd has gone; there is nobody to tell. */
final class Gone extends \Exception
{
}

/** A result that is sent as bin: PHP has one type of string, and it is sent as str. */
final class Bin
{
    public function __construct(public readonly string $bytes)
    {
    }

    public function pack(): string
    {
        $n = strlen($this->bytes);
        $head = match (true) {
            $n < 0x100 => "\xc4" . chr($n),
            $n < 0x10000 => "\xc5" . pack('n', $n),
            default => "\xc6" . pack('N', $n),
        };
        return $head . $this->bytes;
    }
}

/** What is known of a request besides its params. */
final class Context
{
    /** W3C traceparent or null */
    public readonly ?string $trace;
    /** 1 for the first try */
    public readonly int $attempt;
    /** does the caller take chunks? */
    public readonly bool $wantsStream;
    /** end of the time allowed, as hrtime(true) / 1e9 counts, or null */
    public readonly ?float $deadline;
    /** @internal */
    public bool $cancel = false;
    /** @internal */
    public int $credit = CREDIT_START;

    public function __construct(
        private readonly Worker $worker,
        public readonly int $msgid,
        public readonly array $meta,
    ) {
        $this->trace = isset($meta['traceparent']) ? (string)$meta['traceparent'] : null;
        $this->attempt = (int)($meta['attempt'] ?? 1);
        $this->wantsStream = ($meta['stream'] ?? false) === true;
        $left = $meta['deadline_ms'] ?? null;
        $this->deadline = $left === null ? null : hrtime(true) / 1e9 + $left / 1000;
    }

    /** Milliseconds left, null if there is no limit. */
    public function remainingMs(): ?int
    {
        if ($this->deadline === null) {
            return null;
        }
        return max(0, (int)(($this->deadline - hrtime(true) / 1e9) * 1000));
    }

    /** True once nobody waits for the answer. */
    public function cancelled(): bool
    {
        while (!$this->cancel && $this->worker->listen(0)) {
        }
        return $this->cancel;
    }

    /** Tell the caller how far it is, if it asked. */
    public function progress(mixed $value): void
    {
        $this->worker->notify('control.progress', [$this->msgid, $value]);
    }

    /** Say "still alive". */
    public function heartbeat(): void
    {
        $this->worker->heartbeat();
    }
}

/** A request of the raw loop: answer it once, with reply() or fail(). */
final class Request
{
    public bool $answered = false;

    public function __construct(
        private readonly Worker $worker,
        public readonly int $msgid,
        public readonly string $method,
        public readonly mixed $params,
        public readonly Context $ctx,
    ) {
    }

    public function reply(mixed $result): void
    {
        $bytes = $result instanceof Bin ? $result->pack() : $this->worker->pack($result);
        $this->answer("\xc0", $bytes);
    }

    public function fail(int $code, string $message, array $more = []): void
    {
        $error = ['code' => $code, 'message' => $message] + $more;
        $this->answer($this->worker->pack($error), "\xc0");
    }

    private function answer(string $error, string $result): void
    {
        if ($this->answered) {
            throw new \LogicException("request {$this->msgid} is answered already");
        }
        $this->answered = true;
        $this->worker->sendTask("\x94\x01\xce" . pack('N', $this->msgid) . $error . $result);
    }
}

/** A worker; one per process. */
final class Worker
{
    /** @var array<string, callable> */
    private array $methods = [];
    /** @var callable|null */
    private $fallback = null;
    private bool $folk = false;
    private bool $attached = false;
    private bool $saidReady = false;
    private bool $term = false;
    private bool $last = false;
    private bool $stopping = false;
    private bool $eof = false;
    private string $task = '';
    private string $control = '';
    /** @var resource|null */
    private $taskIn = null;
    /** @var resource|null */
    private $taskOut = null;
    /** @var resource|null */
    private $controlIn = null;
    /** @var resource|null */
    private $controlOut = null;
    private ?Request $open = null;
    private \MessagePack $packer;
    private int $pid = 0;

    public function __construct(private readonly int $requestMax = 64 << 20)
    {
        if (!class_exists(\MessagePack::class)) {
            throw new \RuntimeException('urd_worker.php needs ext-msgpack');
        }
        // Without PHP's own types: params must not make objects of whatever class they name.
        $this->packer = new \MessagePack(false);
    }

    /** Serve a method: $fn($params, $ctx). */
    public function on(string $method, callable $fn): static
    {
        if (isset($this->methods[$method])) {
            throw new \LogicException("method $method is served already");
        }
        $this->methods[$method] = $fn;
        return $this;
    }

    /** Serve whatever has no handler: $fn($method, $params, $ctx). */
    public function fallback(callable $fn): static
    {
        $this->fallback = $fn;
        return $this;
    }

    /** Has urd announced the end? */
    public function stopping(): bool
    {
        return $this->stopping;
    }

    /** @internal */
    public function pack(mixed $value): string
    {
        return $this->packer->pack($value);
    }

    private function attach(): void
    {
        if ($this->attached) {
            return;
        }
        if (getenv('URD_TASK_IN_FD') !== false) {
            $names = [
                'URD_TASK_IN_FD', 'URD_TASK_OUT_FD', 'URD_CONTROL_IN_FD', 'URD_CONTROL_OUT_FD',
            ];
        } elseif (getenv('FOLK_TASK_FD') !== false && getenv('FOLK_CONTROL_FD') !== false) {
            $names = ['FOLK_TASK_FD', 'FOLK_TASK_FD', 'FOLK_CONTROL_FD', 'FOLK_CONTROL_FD'];
            $this->folk = true;
        } else {
            throw new \RuntimeException('not started by urd: URD_TASK_IN_FD is not set');
        }
        $fds = array_map(fn(string $name): int => (int)getenv($name), $names);
        $this->taskIn = self::fdOpen($fds[0], 'r');
        $this->taskOut = self::fdOpen($fds[1], 'w');
        $this->controlIn = self::fdOpen($fds[2], 'r');
        $this->controlOut = self::fdOpen($fds[3], 'w');
        self::closeOnExec($fds);
        $this->pid = getmypid();
        if (function_exists('pcntl_async_signals')) {
            pcntl_async_signals(true);
            pcntl_signal(SIGINT, SIG_IGN);
            pcntl_signal(SIGTERM, $this->onTerm(...));
        }
        $this->attached = true;
    }

    /** @return resource */
    private static function fdOpen(int $fd, string $mode)
    {
        $stream = fopen("php://fd/$fd", $mode);
        if ($stream === false) {
            throw new \RuntimeException("descriptor $fd cannot be opened");
        }
        stream_set_read_buffer($stream, 0);
        stream_set_write_buffer($stream, 0);
        return $stream;
    }

    /** php://fd duplicates: the originals and the duplicates lead to the same pipes. */
    private static function closeOnExec(array $fds): void
    {
        if (!class_exists(\FFI::class)) {
            return;
        }
        try {
            $c = \FFI::cdef('int fcntl(int fd, int cmd, ...);');
        } catch (\FFI\Exception) {
            return;
        }
        $pipes = array_map(fn(int $fd) => @readlink("/proc/self/fd/$fd"), $fds);
        foreach (scandir('/proc/self/fd') ?: $fds as $fd) {
            if (is_numeric($fd) && in_array(@readlink("/proc/self/fd/$fd"), $pipes, true)) {
                $c->fcntl((int)$fd, 2, 1); // F_SETFD, FD_CLOEXEC
            }
        }
    }

    private function onTerm(): void
    {
        if (getmypid() !== $this->pid) {
            // A forked child is not the worker: it just dies.
            pcntl_signal(SIGTERM, SIG_DFL);
            posix_kill(getmypid(), SIGTERM);
            return;
        }
        $this->term = true;
        $this->stopping = true;
    }

    /** @param resource $stream */
    private static function write($stream, string $payload): void
    {
        $data = pack('N', strlen($payload)) . $payload;
        $done = 0;
        $size = strlen($data);
        while ($done < $size) {
            error_clear_last();
            // Pieces, as substr() of all that is left would copy it each time.
            $n = @fwrite($stream, substr($data, $done, 1 << 16));
            if (!$n) {
                $text = error_get_last()['message'] ?? '';
                if (str_contains($text, 'errno=4 ') || str_contains($text, 'errno=11 ')) {
                    continue;
                }
                throw new Gone($text);
            }
            $done += $n;
        }
    }

    /** @internal */
    public function sendTask(string $payload): void
    {
        self::write($this->taskOut, $payload);
    }

    /** @internal */
    public function notify(string $method, mixed $params): void
    {
        if ($this->folk && $method !== 'control.ready') {
            return;
        }
        $payload = $this->pack([2, $method, $params]);
        if (strlen($payload) > CONTROL_MAX) {
            throw new \LengthException('more than the control channel takes');
        }
        self::write($this->controlOut, $payload);
    }

    /** Say ready; run() and next() do it if you did not. */
    public function ready(): void
    {
        $this->attach();
        if ($this->saidReady) {
            return;
        }
        $this->saidReady = true;
        $hello = ['pid' => getmypid()];
        if (!$this->folk) {
            $hello += [
                'protocol' => 1,
                'concurrency' => 1,
                'features' => ['meta', 'cancel', 'stream', 'shutdown'],
                'sdk' => SDK,
            ];
            if ($this->methods && $this->fallback === null) {
                $hello['methods'] = array_map(strval(...), array_keys($this->methods));
            }
        }
        $this->notify('control.ready', $hello);
    }

    /** Ask urd to replace this worker. */
    public function retire(): void
    {
        $this->notify('control.retire', null);
    }

    /** Say "still alive". */
    public function heartbeat(): void
    {
        $this->notify('control.heartbeat', null);
    }

    /**
     * Streams that can be read, or null after a signal.
     *
     * @return array<int, resource>|null
     */
    private function readable(array $streams, ?int $timeoutMs): ?array
    {
        $none = null;
        $none2 = null;
        $sec = $timeoutMs === null ? null : intdiv($timeoutMs, 1000);
        $usec = $timeoutMs === null ? null : $timeoutMs % 1000 * 1000;
        $n = @stream_select($streams, $none, $none2, $sec, $usec);
        return $n === false ? null : $streams;
    }

    /** @return string|null a payload, null if more bytes are needed */
    private static function frame(string &$buf, int $max): ?string
    {
        if (strlen($buf) < 4) {
            return null;
        }
        $size = unpack('N', $buf)[1];
        if ($size === 0 || $size > $max) {
            throw new \UnexpectedValueException("frame of $size bytes");
        }
        if (strlen($buf) < 4 + $size) {
            return null;
        }
        $payload = substr($buf, 4, $size);
        $buf = substr($buf, 4 + $size);
        return $payload;
    }

    /** Read the control channel. @internal */
    public function listen(?int $timeoutMs): bool
    {
        if ($this->folk || $this->controlIn === null) {
            return false;
        }
        $there = $this->readable([$this->controlIn], $timeoutMs);
        if (!$there) {
            return false;
        }
        $more = $this->readControl();
        $this->applyControl();
        return $more;
    }

    private function readControl(): bool
    {
        $bytes = @fread($this->controlIn, 1 << 16);
        if ($bytes === false || $bytes === '') {
            $this->controlIn = null;
            return false;
        }
        $this->control .= $bytes;
        return true;
    }

    private function applyControl(): void
    {
        while (($payload = self::frame($this->control, CONTROL_MAX)) !== null) {
            $m = @$this->packer->unpack($payload);
            if (!is_array($m) || count($m) !== 3 || ($m[0] ?? null) !== 2) {
                continue;
            }
            if ($m[1] === 'control.shutdown') {
                $this->stopping = true;
            } elseif ($this->open !== null && ($m[2][0] ?? null) === $this->open->msgid) {
                if ($m[1] === 'control.cancel') {
                    $this->open->ctx->cancel = true;
                } elseif ($m[1] === 'control.credit') {
                    $this->open->ctx->credit += (int)($m[2][1] ?? 0);
                }
            }
        }
    }

    private function readTask(): void
    {
        $bytes = @fread($this->taskIn, 1 << 16);
        if ($bytes !== false && $bytes !== '') {
            $this->task .= $bytes;
            return;
        }
        if ($this->task !== '') {
            throw new \UnexpectedValueException('end of file within a frame');
        }
        $this->eof = true;
    }

    private function take(): ?Request
    {
        while (($payload = self::frame($this->task, $this->requestMax)) !== null) {
            $m = @$this->packer->unpack($payload);
            $count = is_array($m) ? count($m) : 0;
            if ($count === 3 && $m[0] === 2) {
                continue;
            }
            if (($count !== 4 && $count !== 5) || $m[0] !== 0 || !is_int($m[1])) {
                throw new \UnexpectedValueException('not a request');
            }
            $meta = is_array($m[4] ?? null) ? $m[4] : [];
            $ctx = new Context($this, $m[1], $meta);
            return new Request($this, $m[1], (string)$m[2], $m[3], $ctx);
        }
        return null;
    }

    /** Raw loop: the next request, null at the end. */
    public function next(): ?Request
    {
        $this->ready();
        $this->open = null;
        $glance = false;
        while (($request = $this->take()) === null) {
            if ($this->last || $this->eof) {
                return null;
            }
            // After SIGTERM only what is in the pipe already is served, once.
            $idle = $this->term && $this->task === '';
            $streams = [$this->taskIn];
            if (!$this->folk && $this->controlIn !== null) {
                $streams[] = $this->controlIn;
            }
            // PHP cannot wait for a signal and a descriptor at once: a SIGTERM that comes
            // just before the wait is seen when the second is over.
            $there = $this->readable($streams, $idle || $glance ? 0 : 1000);
            if ($there === null) {
                continue;
            }
            $task = in_array($this->taskIn, $there, true);
            if (!$task && in_array($this->controlIn, $there, true)) {
                // A cancel is written after its request, but on another pipe: look again.
                $glance = $this->readControl();
                continue;
            }
            if ($task) {
                $this->readTask();
            } elseif ($idle) {
                return null;
            } elseif ($glance && $this->task === '') {
                $this->applyControl();
            }
            $glance = false;
        }
        $this->last = $this->last || $this->term;
        return $this->open = $request;
    }

    /** Say ready and serve until the end. Returns 0. */
    public function run(): int
    {
        try {
            while (($request = $this->next()) !== null) {
                $this->serve($request);
            }
        } catch (Gone) {
        }
        return 0;
    }

    private function serve(Request $request): void
    {
        try {
            $result = $this->call($request);
            if ($result instanceof \Generator) {
                $result = $this->stream($request, $result);
            }
            if (!$request->answered) {
                $request->reply($result);
            }
        } catch (Gone $e) {
            throw $e;
        } catch (\Throwable $e) {
            $this->failed($request, $e);
        }
    }

    private function failed(Request $request, \Throwable $e): void
    {
        if ($request->answered) {
            throw $e;
        }
        if ($e instanceof Error) {
            $more = $e->more + ($e->retry === null ? [] : ['retry' => $e->retry]);
            $request->fail($e->getCode(), $e->getMessage(), $more);
            return;
        }
        error_log((string)$e);
        $text = $e->getMessage() !== '' ? $e->getMessage() : get_class($e);
        $request->fail(FAILED, $text, ['type' => get_class($e)]);
    }

    private function call(Request $request): mixed
    {
        $fn = $this->methods[$request->method] ?? null;
        if ($fn !== null) {
            return $fn($request->params, $request->ctx);
        }
        if ($this->fallback !== null) {
            return ($this->fallback)($request->method, $request->params, $request->ctx);
        }
        throw new Error('method not found: ' . $request->method, NO_METHOD);
    }

    /** Send what a generator yields. Without a stream it is a list. */
    private function stream(Request $request, \Generator $items): mixed
    {
        $ctx = $request->ctx;
        if (!$ctx->wantsStream) {
            $list = [];
            foreach ($items as $item) {
                // Whatever yields without end is to end with the request at least.
                if (count($list) % COLLECT_LOOK === 0 && $ctx->cancelled()) {
                    throw new Cancelled('cancelled');
                }
                $list[] = $item;
            }
            return $list;
        }
        foreach ($items as $item) {
            while (!$ctx->cancelled() && $ctx->credit <= 0) {
                $this->listen(1000);
                if ($this->controlIn === null) {
                    throw new Gone('control channel closed');
                }
            }
            if ($ctx->cancel) {
                throw new Cancelled('cancelled');
            }
            $ctx->credit--;
            $bytes = $item instanceof Bin ? $item->pack() : $this->pack($item);
            $this->sendTask("\x93\x03\xce" . pack('N', $request->msgid) . $bytes);
        }
        return $items->getReturn();
    }
}
