// SPDX-License-Identifier: MIT
/*
 * liburd in a program of one's own: no daemon, no socket.  The program starts a
 * pool of workers, asks one question and waits for the answer, then asks many at
 * once and is called back.
 *
 *	cc embed.c -o embed $(pkg-config --cflags --libs urd msgpack)
 *	./embed python3 worker.py
 *
 * (Debian 13 calls the second package msgpack-c.)  The worker must serve the
 * method "echo", which answers its params; tests/workers/echo.py is one.
 */
#include <errno.h>
#include <msgpack.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <urd/client.h>
#include <urd/urd.h>

#define REQUESTS 1000u
#define WORKERS 2u

/* What the callbacks count.  They run in liburd's thread, hence the lock. */
struct tally {
	pthread_mutex_t lock;
	pthread_cond_t all_here;
	unsigned int answers;
	unsigned int right;
};

/* One question: its params, and where to count the answer. */
struct question {
	struct tally *tally;
	msgpack_sbuffer params;
};

/* Params are one MessagePack value; here {"n": n}. */
static void pack_number(msgpack_sbuffer *buf, unsigned int n)
{
	msgpack_packer pk;

	msgpack_sbuffer_init(buf);
	msgpack_packer_init(&pk, buf, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	msgpack_pack_str_with_body(&pk, "n", 1);
	msgpack_pack_unsigned_int(&pk, n);
}

static void print_reply(const struct urd_reply *reply)
{
	msgpack_unpacked value;

	if (reply->code != URD_OK) {
		printf("%s: %s (executed: %s)\n", urd_code_name(reply->code), reply->message,
		       urd_executed_name(reply->executed));
		return;
	}
	msgpack_unpacked_init(&value);
	if (msgpack_unpack_next(&value, reply->data, reply->len, NULL) == MSGPACK_UNPACK_SUCCESS)
		msgpack_object_print(stdout, value.data);
	putchar('\n');
	msgpack_unpacked_destroy(&value);
}

/* Ask and wait.  What urd has to say about the request is in the reply. */
static int ask_one(struct urd *urd, const char *method)
{
	struct urd_reply *reply = NULL;
	msgpack_sbuffer params;
	int ret;

	pack_number(&params, 1);
	ret = urd_execute(urd,
			  &(struct urd_call){ .method = method,
					      .params = params.data,
					      .params_len = params.size,
					      .deadline_ns = 10 * URD_SEC },
			  &reply);
	msgpack_sbuffer_destroy(&params);
	if (ret) {
		fprintf(stderr, "urd_execute: %s\n", strerror(-ret));
		return ret;
	}
	printf("%s: ", method);
	print_reply(reply);
	urd_reply_free(reply);
	return 0;
}

/* Called once per request, by liburd's thread: take what you need and return. */
static void answered(const struct urd_reply *reply, void *arg)
{
	struct question *q = arg;
	struct tally *t = q->tally;

	pthread_mutex_lock(&t->lock);
	t->answers++;
	t->right += reply->code == URD_OK && reply->len == q->params.size &&
		    !memcmp(reply->data, q->params.data, reply->len);
	if (t->answers == REQUESTS)
		pthread_cond_signal(&t->all_here);
	pthread_mutex_unlock(&t->lock);
}

/* Ask without waiting.  The params are copied, so they could go at once. */
static int ask_many(struct urd *urd)
{
	struct tally t = { .lock = PTHREAD_MUTEX_INITIALIZER,
			   .all_here = PTHREAD_COND_INITIALIZER };
	static struct question questions[REQUESTS];
	unsigned int asked;
	int ret = 0;

	for (asked = 0; asked < REQUESTS && !ret; asked++) {
		struct question *q = &questions[asked];

		q->tally = &t;
		pack_number(&q->params, asked);
		ret = urd_submit(urd,
				 &(struct urd_call){ .method = "echo",
						     .params = q->params.data,
						     .params_len = q->params.size },
				 answered, q);
	}
	if (ret) { /* this one gets no answer, those before it do */
		fprintf(stderr, "urd_submit: %s\n", strerror(-ret));
		pthread_mutex_lock(&t.lock);
		t.answers += REQUESTS - asked + 1;
		pthread_mutex_unlock(&t.lock);
	}

	pthread_mutex_lock(&t.lock);
	while (t.answers < REQUESTS)
		pthread_cond_wait(&t.all_here, &t.lock);
	pthread_mutex_unlock(&t.lock);
	for (unsigned int i = 0; i < asked; i++)
		msgpack_sbuffer_destroy(&questions[i].params);
	printf("%u requests at once, %u right answers\n", asked, t.right);
	return t.right == REQUESTS ? 0 : -EIO;
}

int main(int argc, char **argv)
{
	struct urd_pool_conf pool = URD_POOL_CONF_INIT;
	struct urd_conf conf = URD_CONF_INIT;
	struct urd *urd = NULL;
	char err[256];
	int ret;

	if (argc < 2) {
		fprintf(stderr, "usage: embed COMMAND [ARG]...\n");
		return 2;
	}
	pool.name = "default";
	pool.argv = (const char *const *)&argv[1];
	pool.min_workers = WORKERS;
	pool.max_workers = WORKERS;
	pool.queue_max = REQUESTS; /* or those beyond it are answered with BUSY */
	conf.pools = &pool;
	conf.pools_nr = 1;

	ret = urd_open(&conf, 0, &urd, err, sizeof(err));
	if (ret) {
		fprintf(stderr, "urd_open: %s\n", err);
		return 1;
	}
	/* no need to wait for the workers: requests wait for them in the queue */
	ret = ask_one(urd, "echo");
	if (!ret)
		ret = ask_one(urd, "no such method");
	if (!ret)
		ret = ask_many(urd);
	printf("%u workers ready\n", urd_ready(urd, "default"));

	urd_drain(urd, 5 * URD_SEC); /* let what runs come to its end */
	urd_close(urd);
	return ret ? 1 : 0;
}
