/* SPDX-License-Identifier: MIT */
/*
 * A urd of one's own for a test: started in a folder that nobody else has, asked
 * for through the C client, watched through /proc, stopped, and held to it that
 * it ends well.  A criterion assertion fails the test whatever goes wrong.
 */
#ifndef URD_TEST_DAEMON_H
#define URD_TEST_DAEMON_H

#include <sys/types.h>

#include <urd/client.h>

#include "base/base.h"

/** How long to wait for what must come, ms. */
#define PATIENCE_MS 20000u
/** Sanitizers make everything slower: no deadline that shows speed is held then. */
#ifdef __SANITIZE_ADDRESS__
#define SLOWNESS 4u
#else
#define SLOWNESS 1u
#endif
/** Workers of one urd, at most. */
#define WORKERS_MAX 64

/** BAD - path of the misbehaving worker; ECHO - of the well-behaved one in C */
#define BAD URD_BUILD_DIR "/tests/workers/bad"
#define ECHO URD_BUILD_DIR "/tests/workers/echo"

/** struct daemon - a running urd */
struct daemon {
	pid_t pid;
	char dir[64];
	char sock[96];
	char log[96];
	bool silent; /* do not connect after the start */
	struct urd_client *client;
};

/**
 * daemon_start - start one and connect
 * @d: zeroed, or with @silent set
 * @opts: values of -o, NULL-terminated, or NULL
 * @command: of the pool default, NULL-terminated
 */
void daemon_start(struct daemon *d, const char *const *opts, const char *const *command);

/** daemon_stop - SIGTERM; it must exit with 0 and leave nothing behind */
void daemon_stop(struct daemon *d);

/** daemon_reap - wait for its end; the wait status */
int daemon_reap(struct daemon *d);

/** daemon_logged - is the text in its log by now? */
bool daemon_logged(const struct daemon *d, const char *text);

/** workers_of - living children of a process, zombies not counted; how many */
u32 workers_of(pid_t parent, pid_t *pids, u32 max);

/** pid_lives - is there such a process, and is it no zombie? */
bool pid_lives(pid_t pid);

/** pid_is_reaped - is not even a zombie left? */
bool pid_is_reaped(pid_t pid);

/** now_ms - CLOCK_MONOTONIC */
u64 now_ms(void);

/** nap - what a loop does that polls for something */
void nap(void);

/** await - poll until @cond holds; fails the test after PATIENCE_MS */
#define await(cond)                                                                   \
	do {                                                                          \
		u64 end_ = now_ms() + PATIENCE_MS;                                    \
		while (!(cond)) {                                                     \
			cr_assert_lt(now_ms(), end_, "waited in vain for %s", #cond); \
			nap();                                                        \
		}                                                                     \
	} while (0)

/** struct value - a packed value */
struct value {
	u8 p[64];
	u32 len;
};

/** value_number, value_text - pack one; text of at most 60 bytes */
struct value value_number(u64 n);
struct value value_text(const char *s);

/** answer_number - the number that was answered */
u64 answer_number(const struct urd_answer *a);
/** answer_is - was that answered, byte for byte? */
bool answer_is(const struct urd_answer *a, struct value v);

/** call - call and wait; there must be an answer, of whatever code */
struct urd_answer call(struct daemon *d, const char *method, struct value v);
/** call_ok - the same, and it must be a success */
struct urd_answer call_ok(struct daemon *d, const char *method, struct value v);
/** worker_pid - the pid that answers */
pid_t worker_pid(struct daemon *d);
/** must_echo - a request and its own answer */
void must_echo(struct daemon *d, const char *text);

/** post - send without waiting; the number of the request */
u32 post(struct urd_client *c, const char *method, struct value v);
/** push - have what was posted written; no answer may come meanwhile */
void push(struct urd_client *c);
/** take - the next answer that comes */
struct urd_answer take(struct urd_client *c);
/** client_new - another connection */
struct urd_client *client_new(const struct daemon *d);

#endif /* URD_TEST_DAEMON_H */
