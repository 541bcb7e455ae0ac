// SPDX-License-Identifier: MIT
/*
 * Nearest words by edit distance, a swap of neighbours counted as one edit
 * because it is one slip of the fingers.
 */
#include "cli/suggest.h"

u32 urd_edit_distance(const char *a, const char *b)
{
	u32 rows[3][URD_SUGGEST_MAX + 1];
	size_t a_len = strlen(a);
	size_t b_len = strlen(b);

	if (a_len > URD_SUGGEST_MAX || b_len > URD_SUGGEST_MAX)
		return UINT32_MAX;
	for (size_t j = 0; j <= b_len; j++)
		rows[0][j] = (u32)j;
	for (size_t i = 1; i <= a_len; i++) {
		u32 *now = rows[i % 3];
		const u32 *last = rows[(i + 2) % 3];
		const u32 *before = rows[(i + 1) % 3];

		now[0] = (u32)i;
		for (size_t j = 1; j <= b_len; j++) {
			u32 change = last[j - 1] + (a[i - 1] != b[j - 1]);
			u32 other = urd_min(last[j], now[j - 1]) + 1;

			now[j] = urd_min(change, other);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = urd_min(now[j], before[j - 2] + 1);
		}
	}
	return rows[a_len % 3][b_len];
}

void urd_suggest_init(struct urd_suggest *s, const char *word)
{
	s->word = word;
	s->best = NULL;
	s->distance = (u32)(strlen(word) + 2) / 3 + 1;
}

void urd_suggest_try(struct urd_suggest *s, const char *candidate)
{
	u32 d = urd_edit_distance(s->word, candidate);

	if (d < s->distance) {
		s->distance = d;
		s->best = candidate;
	}
}
