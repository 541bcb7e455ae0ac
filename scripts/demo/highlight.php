<?php
// SPDX-License-Identifier: MIT
// Demo worker: source code to coloured HTML.  PHP by PHP itself, C by a small tokenizer.

declare(strict_types=1);

require __DIR__ . '/../../src/sdk/php/urd_worker.php';

const C_TOKENS = '~
    (?<comment>/\*.*?\*/|//[^\n]*)
  | (?<string>"(?:\\\\.|[^"\\\\])*"|\'(?:\\\\.|[^\'\\\\])*\')
  | (?<macro>^\h*\#\h*\w+)
  | (?<number>\b\d[\w.]*)
  | (?<word>[A-Za-z_]\w*)
  | (?<space>\s+)
  | (?<other>.)
~xsm';

const C_KEYWORDS = 'auto break case char const continue default do double else enum extern float for
    goto if inline int long register restrict return short signed sizeof static struct switch
    typedef typeof union unsigned void volatile while bool true false NULL u8 u16 u32 u64 s32 s64
    size_t ssize_t uint8_t uint16_t uint32_t uint64_t int32_t int64_t';

function highlight_c(string $text): array
{
    static $keywords = null;
    $keywords ??= array_flip(preg_split('/\s+/', C_KEYWORDS));
    preg_match_all(C_TOKENS, $text, $tokens, PREG_SET_ORDER | PREG_UNMATCHED_AS_NULL);
    $html = '';
    $colored = 0;
    foreach ($tokens as $t) {
        $class = match (true) {
            $t['comment'] !== null => 'comment',
            $t['string'] !== null => 'string',
            $t['macro'] !== null => 'macro',
            $t['number'] !== null => 'number',
            $t['word'] !== null && isset($keywords[$t[0]]) => 'keyword',
            default => null,
        };
        $escaped = htmlspecialchars($t[0], ENT_QUOTES | ENT_SUBSTITUTE);
        $colored += $class !== null ? 1 : 0;
        $html .= $class === null ? $escaped : "<span class=\"$class\">$escaped</span>";
    }
    return ['html' => "<pre>$html</pre>", 'spans' => $colored];
}

function highlight_php(string $text): array
{
    $html = highlight_string($text, true);
    return ['html' => $html, 'spans' => substr_count($html, '<span')];
}

(new Urd\Worker())
    ->on('html', function ($params, $ctx) {
        return str_ends_with($params['name'], '.php')
            ? highlight_php($params['text'])
            : highlight_c($params['text']);
    })
    ->on('endless', function ($params, $ctx) {
        while (true) {
            usleep(10_000);     // a bug: it never looks at $ctx->cancelled()
        }
    })
    ->run();
