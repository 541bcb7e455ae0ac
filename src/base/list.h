/* SPDX-License-Identifier: MIT */
/*
 * Intrusive doubly linked list: the subset of the kernel's list that urd uses.
 * A node that is in no list points to itself, so that urd_list_del() may be
 * called twice and urd_list_empty() on a node tells whether it is linked.
 */
#ifndef URD_LIST_H
#define URD_LIST_H

#include "base/base.h"

/** struct urd_list - a list head or a node of one */
struct urd_list {
	struct urd_list *next;
	struct urd_list *prev;
};

/** urd_list_init - make an empty list, or a node in no list */
static inline void urd_list_init(struct urd_list *l)
{
	l->next = l;
	l->prev = l;
}

/** urd_list_empty - is the list empty, or the node in no list? */
static inline bool urd_list_empty(const struct urd_list *l)
{
	return l->next == l;
}

/** urd_list_add_between - link @n between two neighbours */
static inline void urd_list_add_between(struct urd_list *n, struct urd_list *prev,
					struct urd_list *next)
{
	urd_assert_slow(urd_list_empty(n));
	n->next = next;
	n->prev = prev;
	prev->next = n;
	next->prev = n;
}

/** urd_list_push - add @n at the end */
static inline void urd_list_push(struct urd_list *head, struct urd_list *n)
{
	urd_list_add_between(n, head->prev, head);
}

/** urd_list_push_front - add @n at the beginning */
static inline void urd_list_push_front(struct urd_list *head, struct urd_list *n)
{
	urd_list_add_between(n, head, head->next);
}

/** urd_list_del - take @n out of whatever list it is in, if any */
static inline void urd_list_del(struct urd_list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	urd_list_init(n);
}

/** urd_list_pop - take the first node out; NULL if there is none */
static inline struct urd_list *urd_list_pop(struct urd_list *head)
{
	struct urd_list *n = head->next;

	if (n == head)
		return NULL;
	urd_list_del(n);
	return n;
}

#define urd_list_entry(ptr, type, member) container_of(ptr, type, member)
#define urd_list_first(head, type, member) urd_list_entry((head)->next, type, member)
#define urd_list_last(head, type, member) urd_list_entry((head)->prev, type, member)

/** urd_list_for_each - visit each entry; the list must not change */
#define urd_list_for_each(pos, head, member)                                                   \
	for (pos = urd_list_entry((head)->next, typeof(*pos), member); &pos->member != (head); \
	     pos = urd_list_entry(pos->member.next, typeof(*pos), member))

/** urd_list_for_each_safe - visit each entry; the visited one may be taken out */
#define urd_list_for_each_safe(pos, n, head, member)                    \
	for (pos = urd_list_entry((head)->next, typeof(*pos), member),  \
	    n = urd_list_entry(pos->member.next, typeof(*pos), member); \
	     &pos->member != (head);                                    \
	     pos = n, n = urd_list_entry(n->member.next, typeof(*n), member))

#endif /* URD_LIST_H */
