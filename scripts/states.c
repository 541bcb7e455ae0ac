// SPDX-License-Identifier: MIT
/*
 * Prints docs/states.md: the worker slot as a diagram and as tables, taken from
 * the table that urd runs, so that the page can't tell another story.
 * Linked with src/fsm/slot_fsm.c and src/base/base.c; writes to stdout.
 */
#include "fsm/slot_fsm.h"

#include <stdio.h>

#define TEXT(n, text) text,
static const char *const state_texts[] = { URD_SLOT_STATES(TEXT) };
static const char *const event_texts[] = { URD_SLOT_EVENTS(TEXT) };
static const char *const act_texts[] = { URD_SLOT_ACTS(TEXT) };
#undef TEXT

static void print_acts(u32 acts)
{
	const char *sep = "";

	for (enum urd_slot_act a = 0; a < SACT_NR; a++) {
		if (!(acts & 1u << a))
			continue;
		printf("%s%s", sep, urd_slot_act_name(a));
		sep = ", ";
	}
}

/* One arrow from @s to @n, with every event that leads there, if any does. */
static void print_arrow(enum urd_slot_state s, enum urd_slot_state n)
{
	const char *sep = " : ";
	bool any = false;

	for (enum urd_slot_event e = 0; e < SEV_NR; e++) {
		struct urd_slot_row r = urd_slot_fsm(s, e);

		if (!r.used || r.next != n)
			continue;
		if (!any)
			printf("    %s --> %s", urd_slot_state_name(s), urd_slot_state_name(n));
		printf("%s%s", sep, urd_slot_event_name(e));
		sep = "<br>";
		any = true;
	}
	if (any)
		printf("\n");
}

static void print_diagram(void)
{
	printf("## Diagram\n\n");
	printf("Events that leave the state as it is are left out; the tables have them.\n\n");
	printf("```mermaid\nstateDiagram-v2\n    [*] --> %s\n", urd_slot_state_name(SLOT_VACANT));
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		for (enum urd_slot_state n = 0; n < SLOT_NR; n++)
			if (n != s)
				print_arrow(s, n);
	printf("```\n\n");
}

static void print_words(void)
{
	printf("## States\n\n| state | meaning |\n|---|---|\n");
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		printf("| %s | %s |\n", urd_slot_state_name(s), state_texts[s]);
	printf("\n## Events\n\n| event | meaning |\n|---|---|\n");
	for (enum urd_slot_event e = 0; e < SEV_NR; e++)
		printf("| %s | %s |\n", urd_slot_event_name(e), event_texts[e]);
	printf("\n## Actions\n\nIn the order in which they are carried out.\n\n");
	printf("| action | meaning |\n|---|---|\n");
	for (enum urd_slot_act a = 0; a < SACT_NR; a++)
		printf("| %s | %s |\n", urd_slot_act_name(a), act_texts[a]);
}

static void print_grid(void)
{
	printf("\n## State by event\n\nThe next state; an empty cell can't happen.\n\n| event |");
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		printf(" %s |", urd_slot_state_name(s));
	printf("\n|---|");
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++)
		printf("---|");
	printf("\n");
	for (enum urd_slot_event e = 0; e < SEV_NR; e++) {
		printf("| %s |", urd_slot_event_name(e));
		for (enum urd_slot_state s = 0; s < SLOT_NR; s++) {
			struct urd_slot_row r = urd_slot_fsm(s, e);

			printf(" %s |", r.used ? urd_slot_state_name(r.next) : "");
		}
		printf("\n");
	}
}

static void print_rows(void)
{
	printf("\n## Rows\n");
	for (enum urd_slot_state s = 0; s < SLOT_NR; s++) {
		printf("\n### %s\n\n| event | next | actions |\n|---|---|---|\n",
		       urd_slot_state_name(s));
		for (enum urd_slot_event e = 0; e < SEV_NR; e++) {
			struct urd_slot_row r = urd_slot_fsm(s, e);

			if (!r.used)
				continue;
			printf("| %s | %s | ", urd_slot_event_name(e), urd_slot_state_name(r.next));
			print_acts(r.acts);
			printf(" |\n");
		}
	}
}

int main(void)
{
	printf("# The states of a worker slot\n\n");
	printf("Made from `src/fsm/slot_fsm.c` by `scripts/states.c`; do not edit.\n\n");
	print_diagram();
	print_words();
	print_grid();
	print_rows();
	return fflush(stdout) || ferror(stdout);
}
