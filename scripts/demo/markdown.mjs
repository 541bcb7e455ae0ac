// SPDX-License-Identifier: MIT
// Demo worker: Markdown to HTML, as much of Markdown as this repository uses.

import { worker } from '../../src/sdk/node/urd_worker.mjs';

const escape = (s) => s.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

// Code first: what stands in backquotes is text and nothing else.
function inline(text) {
  return text.split(/(`+[^`]*`+)/).map((part, i) => {
    if (i % 2) return `<code>${escape(part.replace(/^`+|`+$/g, ''))}</code>`;
    return escape(part)
      .replace(/\[([^\]]*)\]\(([^)\s]*)\)/g, '<a href="$2">$1</a>')
      .replace(/\*\*([^*]+)\*\*/g, '<strong>$1</strong>')
      .replace(/(^|[^\w*])\*([^*\s][^*]*)\*/g, '$1<em>$2</em>');
  }).join('');
}

const cells = (line) => line.trim().replace(/^\||\|$/g, '').split(/(?<!\\)\|/)
  .map((c) => inline(c.trim().replaceAll('\\|', '|')));
const row = (line, tag) => `<tr>${cells(line).map((c) => `<${tag}>${c}</${tag}>`).join('')}</tr>`;
const item = /^(\s*)(?:[-*+]|\d+\.)\s+(.*)$/;
const starts = /^(#{1,6} |```|\s*(?:[-*+]|\d+\.)\s|\||> |---+\s*$)/;

class Renderer {
  constructor(text) {
    this.lines = text.split('\n');
    this.at = 0;
    this.out = [];
    this.headings = 0;
  }

  get line() { return this.lines[this.at]; }

  while(test) {
    const taken = [];
    while (this.at < this.lines.length && test(this.line)) taken.push(this.lines[this.at++]);
    return taken;
  }

  heading([, marks, text]) {
    this.at++;
    this.headings++;
    this.out.push(`<h${marks.length}>${inline(text)}</h${marks.length}>`);
  }

  fence() {
    this.at++;
    const code = this.while((l) => !l.startsWith('```'));
    this.at++;
    this.out.push(`<pre><code>${escape(code.join('\n'))}</code></pre>`);
  }

  indented() {
    const code = this.while((l) => /^( {4}|\t)/.test(l) || !l.trim())
      .map((l) => l.replace(/^( {4}|\t)/, ''));
    this.out.push(`<pre><code>${escape(code.join('\n').trimEnd())}</code></pre>`);
  }

  table() {
    const [head, , ...body] = this.while((l) => l.startsWith('|'));
    const rows = body.map((l) => row(l, 'td')).join('\n');
    this.out.push(`<table>\n${row(head, 'th')}\n${rows}\n</table>`);
  }

  // Items as deep as the first one; deeper ones are a list within the item before them.
  list() {
    const tag = /^\s*\d/.test(this.line) ? 'ol' : 'ul';
    const depth = item.exec(this.line)[1].length;
    const items = [];
    for (let m; this.line !== undefined && (m = item.exec(this.line)) && m[1].length >= depth;) {
      if (m[1].length > depth) {
        items.at(-1).inner = this.list();
      } else {
        this.at++;
        const more = this.while((l) => /^\s+\S/.test(l) && !item.test(l));
        items.push({ text: [m[2], ...more].join('\n'), inner: '' });
      }
    }
    const html = items.map((i) => `<li>${inline(i.text)}${i.inner}</li>`).join('\n');
    return `<${tag}>\n${html}\n</${tag}>`;
  }

  block() {
    const heading = /^(#{1,6}) (.*)$/.exec(this.line);
    if (!this.line.trim()) this.at++;
    else if (heading) this.heading(heading);
    else if (this.line.startsWith('```')) this.fence();
    else if (/^( {4}|\t)/.test(this.line)) this.indented();
    else if (this.line.startsWith('|')) this.table();
    else if (item.test(this.line)) this.out.push(this.list());
    else if (/^---+\s*$/.test(this.line)) { this.at++; this.out.push('<hr>'); }
    else if (this.line.startsWith('> ')) {
      const quote = this.while((l) => l.startsWith('> ')).map((l) => l.slice(2));
      this.out.push(`<blockquote>${inline(quote.join(' '))}</blockquote>`);
    } else {
      const first = this.lines[this.at++];
      const text = [first, ...this.while((l) => l.trim() && !starts.test(l))].join('\n');
      this.out.push(`<p>${inline(text)}</p>`);
    }
  }

  run() {
    while (this.at < this.lines.length) this.block();
    return { headings: this.headings, html: this.out.join('\n') };
  }
}

worker.method('render', (params) => {
  if (typeof params?.text !== 'string') throw new TypeError('params.text is no string');
  return new Renderer(params.text).run();
});
await worker.run();
