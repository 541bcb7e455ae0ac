/* SPDX-License-Identifier: MIT */
/*
 * "Did you mean": the word of a list that is nearest to one that is not in it.
 * Pure.
 */
#ifndef URD_SUGGEST_H
#define URD_SUGGEST_H

#include "base/base.h"

/** Longer words are not compared. */
#define URD_SUGGEST_MAX 64

/**
 * struct urd_suggest - a search for the nearest word
 * @word: what somebody wrote
 * @best: nearest so far, or NULL if none is near enough
 * @distance: edits between the two
 */
struct urd_suggest {
	const char *word;
	const char *best;
	u32 distance;
};

/** urd_suggest_init - begin a search; a third of the letters may differ */
void urd_suggest_init(struct urd_suggest *s, const char *word);

/** urd_suggest_try - consider a word of the list */
void urd_suggest_try(struct urd_suggest *s, const char *candidate);

/** urd_edit_distance - letters to insert, drop, change, or swap with a neighbour */
u32 urd_edit_distance(const char *a, const char *b);

#endif /* URD_SUGGEST_H */
