// SPDX-License-Identifier: MIT
/*
 * The worker side of docs/worker-protocol.md in C: registration of handlers,
 * the ready message and the loop.  One thread, one request at a time, no
 * dependence on the daemon's layers.
 */
#include "sdk/worker_impl.h"

#include <msgpack/pack.h>
#include <msgpack/sbuffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SDK_NAME "c/0.1"

static const u8 nil_value = 0xc0;

URD_API struct urd_worker *urd_worker_new(const struct urd_worker_conf *conf)
{
	static const struct urd_worker_conf defaults = { 0, -1, -1, -1, -1 };
	struct urd_worker *w;
	int ret;

	if (!conf)
		conf = &defaults;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->request_max = URD_RESPONSE_MAX;
	if (conf->request_max)
		w->request_max = (u32)urd_min(conf->request_max, (size_t)UINT32_MAX);
	ret = urd_worker_attach(w, conf);
	if (ret) {
		free(w);
		errno = -ret;
		return NULL;
	}
	return w;
}

URD_API void urd_worker_free(struct urd_worker *w)
{
	struct urd_handler *h;

	if (!w)
		return;
	while ((h = w->handlers)) {
		w->handlers = h->next;
		free(h->method);
		free(h);
	}
	urd_stream_fini(&w->task);
	urd_stream_fini(&w->control);
	free(w);
}

URD_API int urd_worker_on(struct urd_worker *w, const char *method, urd_handler_fn fn, void *arg)
{
	struct urd_handler **at;
	struct urd_handler *h;

	for (at = &w->handlers; (h = *at); at = &h->next) {
		if (method ? h->method && !strcmp(h->method, method) : !h->method)
			return -EEXIST;
	}
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	if (method) {
		h->method = strdup(method);
		if (!h->method) {
			free(h);
			return -ENOMEM;
		}
	}
	h->fn = fn;
	h->arg = arg;
	*at = h;
	return 0;
}

static const struct urd_handler *handler_find(const struct urd_worker *w)
{
	const struct urd_handler *any = NULL;
	const struct urd_handler *h;

	for (h = w->handlers; h; h = h->next) {
		if (!h->method)
			any = h;
		else if (strlen(h->method) == w->req.method_len &&
			 !memcmp(h->method, w->req.method, w->req.method_len))
			return h;
	}
	return any;
}

static void pack_text(msgpack_packer *pk, const char *s)
{
	msgpack_pack_str_with_body(pk, s, strlen(s));
}

/* The names are left out if anything is served, or if nobody registered (raw loop). */
static u32 methods_count(const struct urd_worker *w)
{
	const struct urd_handler *h;
	u32 n = 0;

	for (h = w->handlers; h; h = h->next) {
		if (!h->method)
			return 0;
		n++;
	}
	return n;
}

URD_API int urd_worker_ready(struct urd_worker *w)
{
	static const char *const features[] = { "meta", "cancel", "stream" };
	u32 methods_nr = methods_count(w);
	const struct urd_handler *h;
	msgpack_sbuffer sbuf;
	msgpack_packer pk;
	size_t i;
	int ret;

	if (w->said_ready)
		return -EALREADY;
	msgpack_sbuffer_init(&sbuf);
	msgpack_packer_init(&pk, &sbuf, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, methods_nr ? 6 : 5);
	pack_text(&pk, "pid");
	msgpack_pack_int64(&pk, getpid());
	pack_text(&pk, "protocol");
	msgpack_pack_int(&pk, URD_PROTOCOL_VERSION);
	pack_text(&pk, "concurrency");
	msgpack_pack_int(&pk, 1);
	pack_text(&pk, "features");
	msgpack_pack_array(&pk, ARRAY_SIZE(features));
	for (i = 0; i < ARRAY_SIZE(features); i++)
		pack_text(&pk, features[i]);
	pack_text(&pk, "sdk");
	pack_text(&pk, SDK_NAME);
	if (methods_nr) {
		pack_text(&pk, "methods");
		msgpack_pack_array(&pk, methods_nr);
		for (h = w->handlers; h; h = h->next)
			pack_text(&pk, h->method);
	}
	ret = -EMSGSIZE;
	if (sbuf.size <= URD_CONTROL_MAX)
		ret = urd_worker_notify(w, "control.ready",
					(struct urd_span){ (u8 *)sbuf.data, (u32)sbuf.size });
	msgpack_sbuffer_destroy(&sbuf);
	if (!ret)
		w->said_ready = true;
	return ret;
}

/* Return: 1 with a request, 0 more bytes are needed, negative errno. */
static int request_take(struct urd_worker *w)
{
	struct urd_span frame;
	struct urd_msg m;
	int ret;

	while ((ret = urd_stream_next(&w->task, w->request_max, &frame)) > 0) {
		ret = urd_rpc_parse(frame.p, frame.len, &m);
		if (ret)
			return ret;
		if (m.tag == URD_TAG_NOTIFY)
			continue;
		if (m.tag != URD_TAG_REQUEST)
			return -EBADMSG;
		urd_req_init(&w->req, w, &m);
		return 1;
	}
	return ret;
}

URD_API int urd_worker_next(struct urd_worker *w, struct urd_req **req)
{
	int ret;

	if (!w->said_ready) {
		ret = urd_worker_ready(w);
		if (ret)
			return ret;
	}
	if (w->req.open) {
		ret = urd_req_fail(&w->req, CODE_FAILED, "the worker gave no answer");
		if (ret)
			return ret;
	}
	if (w->broken)
		return w->broken;
	if (w->last)
		return 0;
	urd_stream_trim(&w->task);
	do {
		ret = request_take(w);
		if (ret < 0)
			return ret;
		if (ret) {
			*req = &w->req;
			w->last = w->term;
			return 1;
		}
		ret = urd_worker_fill(w);
	} while (ret > 0);
	return ret;
}

static int request_serve(struct urd_worker *w, struct urd_req *req)
{
	const struct urd_handler *h = handler_find(w);
	char text[URD_METHOD_MAX + 32];
	int ret;

	if (!h) {
		snprintf(text, sizeof(text), "method not found: %s", req->method);
		return urd_req_fail(req, CODE_NO_METHOD, text);
	}
	ret = h->fn(req, h->arg);
	if (!req->open)
		return w->broken;
	if (ret < 0)
		return urd_req_fail(req, ret, strerror(-ret));
	return urd_req_reply(req, &nil_value, 1);
}

URD_API int urd_worker_run(struct urd_worker *w)
{
	struct urd_req *req;
	int status = 0;
	int ret;

	if (!w) {
		fprintf(stderr, "urd worker: not started by urd, or out of memory\n");
		return 1;
	}
	while ((ret = urd_worker_next(w, &req)) > 0) {
		ret = request_serve(w, req);
		if (ret)
			break;
	}
	/* A reader that went away is how urd's end looks from here: no reason to complain. */
	if (ret < 0 && ret != -EPIPE) {
		fprintf(stderr, "urd worker: %s\n", strerror(-ret));
		status = 1;
	}
	urd_worker_free(w);
	return status;
}

URD_API int urd_worker_retire(struct urd_worker *w)
{
	return urd_worker_notify(w, "control.retire", (struct urd_span){ &nil_value, 1 });
}

URD_API int urd_worker_heartbeat(struct urd_worker *w)
{
	return urd_worker_notify(w, "control.heartbeat", (struct urd_span){ &nil_value, 1 });
}
