<?php
// SPDX-License-Identifier: MIT
// A folk worker of our own, on ext-msgpack and nothing else.  On the wire it does
// what the loop of a folk 0.1 worker does: it reads descriptor 3, writes the one
// ready message to 4 and never reads that, serves one request at a time, takes
// the end of file for the end, and dies of whatever breaks the protocol.

declare(strict_types=1);

const FRAME_MAX = 16 * 1024 * 1024;

function channel(string $name)
{
    $fd = (int)getenv($name);
    if ($fd === 0) {
        fwrite(STDERR, "$name is not set\n");
        exit(1);
    }
    $stream = fopen("php://fd/$fd", 'r+b');
    stream_set_blocking($stream, true);
    stream_set_read_buffer($stream, 0);
    return $stream;
}

function take($stream, int $len, bool $may_end = false): ?string
{
    $data = '';
    while (strlen($data) < $len) {
        $part = fread($stream, $len - strlen($data));
        if ($part === false || $part === '') {
            if ($may_end && $data === '') {
                return null;
            }
            throw new RuntimeException('end of file within a frame');
        }
        $data .= $part;
    }
    return $data;
}

function put($stream, mixed $message): void
{
    $body = msgpack_pack($message);
    $data = pack('N', strlen($body)) . $body;
    for ($sent = 0; $sent < strlen($data); $sent += $n) {
        $n = fwrite($stream, $sent ? substr($data, $sent) : $data);
        if (!$n) {
            throw new RuntimeException('short write');
        }
    }
}

$methods = [
    'echo' => fn($params) => $params,
    'http.handle' => fn($params) => [
        'status' => $params['uri'] === '/' ? 200 : 404,
        'headers' => $params['uri'] === '/' ? [] : ['x-method' => $params['method'] ?? 'GET'],
        'body' => strrev($params['body'] ?? ''),
    ],
    'jobs.process' => function ($params) {
        if ($params === 'bad job') {
            throw new DomainException('the job is bad');
        }
        return ['status' => 'ok', 'length' => strlen($params)];
    },
    'env' => fn($params) => getenv($params),
    'pid' => fn() => getmypid(),
    'sleep' => fn($params) => usleep($params * 1000),
    'oversize' => fn() => str_repeat('x', FRAME_MAX + 1),
];

$task = channel('FOLK_TASK_FD');
$control = channel('FOLK_CONTROL_FD');
put($control, [2, 'control.ready', ['pid' => getmypid()]]);

while (($head = take($task, 4, true)) !== null) {
    $len = unpack('N', $head)[1];
    if ($len === 0 || $len > FRAME_MAX) {
        throw new RuntimeException("a frame of $len bytes");
    }
    $message = msgpack_unpack(take($task, $len));
    if (!is_array($message) || $message[0] !== 0) {
        continue;
    }
    if (count($message) !== 4) {
        throw new RuntimeException('a request has four elements');
    }
    [, $msgid, $method, $params] = $message;
    $error = $result = null;
    try {
        if (isset($methods[$method])) {
            $result = $methods[$method]($params);
        } else {
            $error = ['code' => -32601, 'message' => "method not found: $method"];
        }
    } catch (Throwable $e) {
        $error = ['code' => -32603, 'message' => $e->getMessage()];
    }
    put($task, [1, $msgid, $error, $result]);
}
