<?php
// SPDX-License-Identifier: MIT
// The test worker in PHP.  The same methods exist in C, Python and Node.

declare(strict_types=1);

require __DIR__ . '/../../src/sdk/php/urd_worker.php';

$worker = new Urd\Worker();

$worker
    ->on('echo', fn($params, $ctx) => $params)
    ->on('sleep', function ($params, $ctx) {
        $end = hrtime(true) + $params['ms'] * 1_000_000;
        while (hrtime(true) < $end) {
            if ($ctx->cancelled()) {
                return 'cancelled';
            }
            usleep((int)max(0, min(5000, ($end - hrtime(true)) / 1000)));
        }
        return 'slept';
    })
    ->on('fail', function ($params, $ctx) {
        throw match ($params) {
            'retry' => new Urd\Retry('try again', 7),
            'fatal' => new Urd\Fatal('give up', 8),
            default => new ValueError('it failed'),
        };
    })
    ->on('die', function ($params, $ctx) {
        if (isset($params['exit'])) {
            exit($params['exit']);
        }
        posix_kill(getmypid(), SIGKILL);
    })
    ->on('noise', function ($params, $ctx) {
        for ($i = 0; $i < 1000; $i++) {
            echo "noise on stdout\n";
            fwrite(STDERR, "noise on stderr\n");
        }
    })
    ->on('pid', fn($params, $ctx) => getmypid())
    ->on('retire', function ($params, $ctx) use ($worker) {
        $worker->retire();
    })
    ->on('progress', function (int $params, $ctx) {
        for ($i = 0; $i < $params; $i++) {
            $ctx->progress($i);
        }
        return $params;
    })
    ->on('beat', function ($params, $ctx) {
        $ctx->heartbeat();
    })
    ->on('meta', fn($params, $ctx) => [
        'attempt' => $ctx->attempt,
        'trace' => $ctx->trace,
        'stream' => $ctx->wantsStream,
        'deadline' => $ctx->remainingMs(),
    ])
    ->on('stream', function (int $params, $ctx) {
        for ($i = 0; $i < $params; $i++) {
            yield $i;
        }
    })
    ->on('bin', fn($params, $ctx) => new Urd\Bin($params))
    ->on('spawn', function ($params, $ctx) {
        exec('sleep 60 </dev/null >/dev/null 2>&1 & echo $!', $out);
        return (int)$out[0];
    });

exit($worker->run());
