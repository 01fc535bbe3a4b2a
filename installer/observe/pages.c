/* What each path answers, and to whom.
 *
 * Answers are JSON, or a sentence as text. Reading is open to whoever reaches the address: the health and metrics ports to the
 * node and to Prometheus, the admin port to the node alone. What changes anything is taken on the admin socket, which only root
 * can open. A browser on the node must not be made to read the admin port by a foreign page under a name of its own (DNS
 * rebinding), so there a Host that is neither an address nor localhost is refused. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/observe/state.h"

#define JSON "application/json"
#define TEXT "text/plain; charset=utf-8"
#define PAUSE_SECONDS_MAX 86400
#define SENTENCE_MAX 1536

struct page_request {
	struct observe *observe;
	struct evhttp_request *http;
	const char *rest; /* of the path, behind the page's own name */
	struct evkeyvalq query;
};

static void send_body(const struct page_request *request, int status, const char *phrase, const char *type,
		      struct evbuffer *body)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request->http);
	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	evhttp_send_reply(request->http, status, phrase, body);
}

static bool does_want_json(const struct page_request *request)
{
	const char *accept = evhttp_find_header(evhttp_request_get_input_headers(request->http), "Accept");
	return accept && strstr(accept, JSON);
}

/* As text, or for who asks for JSON as {"status": N, "error": SENTENCE}. The sentence is the reason phrase too, for clients
 * that show nothing else of an error. */
__attribute__((format(printf, 3, 4))) static void say(const struct page_request *request, int status, const char *format, ...)
{
	char sentence[SENTENCE_MAX];
	struct evbuffer *body = evbuffer_new();
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(sentence, sizeof sentence, format, arguments);
	va_end(arguments);
	for (char *c = sentence; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	bool wants_json = does_want_json(request);
	cleanup_cjson cJSON *json = wants_json ? cJSON_CreateObject() : NULL;
	cleanup_free char *text = NULL;
	if (cJSON_AddNumberToObject(json, "status", status) &&
	    cJSON_AddStringToObject(json, status < 400 ? "message" : "error", sentence))
		text = cJSON_PrintUnformatted(json);
	if (body)
		evbuffer_add_printf(body, "%s\n", text ? text : sentence);
	send_body(request, status, status < 400 ? "OK" : sentence, text ? JSON : TEXT, body);
	if (body)
		evbuffer_free(body);
}

static void free_text(const void *text, size_t length, void *unused)
{
	(void)length;
	(void)unused;
	free((void *)text);
}

/* Takes the object; NULL: there was no memory for it. */
static void send_json(const struct page_request *request, cJSON *json)
{
	char *text = json ? cJSON_PrintUnformatted(json) : NULL;
	struct evbuffer *body = evbuffer_new();
	cJSON_Delete(json);
	if (!text || !body || evbuffer_add_reference(body, text, strlen(text), free_text, NULL) < 0) {
		free(text);
		say(request, 503, "there is not enough memory for the answer");
	} else {
		evbuffer_add(body, "\n", 1);
		send_body(request, 200, "OK", JSON, body);
	}
	if (body)
		evbuffer_free(body);
}

/* Whether the agent runs: it does when it answers. */
static void answer_healthz(const struct page_request *request)
{
	say(request, 200, "ok");
}

static void answer_readyz(const struct page_request *request)
{
	char reason[HOST_REASON_MAX + 128];
	if (observe_is_ready(request->observe, reason, sizeof reason))
		say(request, 200, "ok");
	else
		say(request, 503, "%s", reason);
}

static void answer_metrics(const struct page_request *request)
{
	struct evbuffer *body = evbuffer_new();
	if (!body || metrics_print(request->observe, body) < 0)
		say(request, 503, "there is not enough memory for the answer");
	else
		send_body(request, 200, "OK", "text/plain; version=0.0.4; charset=utf-8", body);
	if (body)
		evbuffer_free(body);
}

static void answer_page(const struct page_request *request)
{
	struct evbuffer *body = evbuffer_new();
	if (!body || evbuffer_add_reference(body, status_page, (size_t)(status_page_end - status_page), NULL, NULL) < 0) {
		say(request, 503, "there is not enough memory for the answer");
	} else {
		evhttp_add_header(evhttp_request_get_output_headers(request->http), "Content-Security-Policy",
				  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
				  "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'");
		send_body(request, 200, "OK", "text/html; charset=utf-8", body);
	}
	if (body)
		evbuffer_free(body);
}

static void answer_status(const struct page_request *request)
{
	send_json(request, observe_overview(request->observe));
}

static void answer_config(const struct page_request *request)
{
	send_json(request, installer_config_to_json(request->observe->seen.config));
}

static void answer_pods(const struct page_request *request)
{
	send_json(request, mesh_pods_view(request->observe->seen.mesh));
}

/* "NAMESPACE/NAME" or, behind it, "/pause"; each part unescaped. */
struct pod_path {
	char *namespace_name, *name;
	const char *rest;
};

static void pod_path_clear(struct pod_path *path)
{
	free(path->namespace_name);
	free(path->name);
}

static char *take_segment(const char **text)
{
	size_t length = strcspn(*text, "/");
	cleanup_free char *raw = strndup(*text, length);
	char *segment = raw && length > 0 ? evhttp_uridecode(raw, 0, NULL) : NULL;
	*text += length + ((*text)[length] == '/');
	return segment;
}

static bool split_pod_path(const struct page_request *request, struct pod_path *ret_path)
{
	const char *text = request->rest;
	*ret_path = (struct pod_path){ .namespace_name = take_segment(&text) };
	if (ret_path->namespace_name)
		ret_path->name = take_segment(&text);
	ret_path->rest = text;
	if (ret_path->name)
		return true;
	say(request, 404, "a pod is asked for by /pods/NAMESPACE/NAME");
	return false;
}

static void answer_pod(const struct page_request *request)
{
	__attribute__((cleanup(pod_path_clear))) struct pod_path path;
	const char *verify = evhttp_find_header(&request->query, "verify");
	if (!split_pod_path(request, &path))
		return;
	if (path.rest[0] != '\0') {
		say(request, 404, "there is nothing at this path");
		return;
	}
	cJSON *json =
		mesh_pod_view(request->observe->seen.mesh, path.namespace_name, path.name, verify && strcmp(verify, "1") == 0);
	if (json)
		send_json(request, json);
	else
		say(request, 404, "there is no pod %.300s/%.300s on this node", path.namespace_name, path.name);
}

static void change_pod(const struct page_request *request)
{
	__attribute__((cleanup(pod_path_clear))) struct pod_path path;
	struct error error = { 0 };
	if (!split_pod_path(request, &path))
		return;
	if (strcmp(path.rest, "pause") != 0) {
		say(request, 404, "there is nothing at this path that can be changed");
		return;
	}
	const char *text = evhttp_find_header(&request->query, "seconds");
	char *end = NULL;
	errno = 0;
	long seconds = text ? strtol(text, &end, 10) : -1;
	if (!text || end == text || *end != '\0' || errno != 0 || seconds < 0 || seconds > PAUSE_SECONDS_MAX)
		say(request, 400, "seconds=N is missing, or is no number from 0 (repair again) to %d", PAUSE_SECONDS_MAX);
	else if (mesh_pause(request->observe->seen.mesh, path.namespace_name, path.name, seconds, &error) < 0)
		say(request, error.number == ENOENT ? 404 : 500, "%s", error.message);
	else
		say(request, 200, "%s", seconds > 0 ? "paused" : "repairs again");
}

static void change_log_level(const struct page_request *request)
{
	const struct observed *seen = &request->observe->seen;
	const char *text = evhttp_find_header(&request->query, "level");
	struct error error = { 0 };
	enum log_level level;
	if (!text) {
		say(request, 400, "level=debug, info, warn or error is missing");
		return;
	}
	if (log_level_parse(text, &error, &level) < 0) {
		say(request, 400, "level: %s", error.message);
		return;
	}
	seen->set_log_level(seen->data, level);
	say(request, 200, "%s", log_level_name(level));
}

#define ADMIN (SITE_ADMIN | SITE_ADMIN_SOCKET)
#define READ (EVHTTP_REQ_GET | EVHTTP_REQ_HEAD)

static const struct page {
	const char *path;    /* ending with '/': and all below it */
	unsigned int sites;  /* where it is answered */
	unsigned int method; /* READ, or EVHTTP_REQ_POST, for which the site is only the socket */
	void (*answer)(const struct page_request *request);
} pages[] = {
	{ "/healthz", SITE_HEALTH | ADMIN, READ, answer_healthz },
	{ "/readyz", SITE_HEALTH | ADMIN, READ, answer_readyz },
	{ "/metrics", SITE_METRICS | ADMIN, READ, answer_metrics },
	{ "/", ADMIN, READ, answer_page },
	{ "/status", ADMIN, READ, answer_status },
	{ "/config", ADMIN, READ, answer_config },
	{ "/pods", ADMIN, READ, answer_pods },
	{ "/pods/", ADMIN, READ, answer_pod },
	{ "/pods/", SITE_ADMIN_SOCKET, EVHTTP_REQ_POST, change_pod },
	{ "/log-level", SITE_ADMIN_SOCKET, EVHTTP_REQ_POST, change_log_level },
};

static bool matches(const struct page *page, const char *path)
{
	size_t length = strlen(page->path);
	bool is_folder = length > 1 && page->path[length - 1] == '/';
	return is_folder ? strncmp(page->path, path, length) == 0 : strcmp(page->path, path) == 0;
}

/* By a name, only "localhost"; by an address, any. */
static bool is_host_trusted(struct evhttp_request *http)
{
	struct in_addr four;
	struct in6_addr six;
	char bare[INET6_ADDRSTRLEN + 1] = "";
	const char *host = evhttp_request_get_host(http);
	size_t length = host ? strlen(host) : 0;
	if (length == 0 || strcmp(host, "localhost") == 0 || inet_pton(AF_INET, host, &four) == 1)
		return true;
	if (host[0] != '[' || host[length - 1] != ']' || length - 2 >= sizeof bare)
		return false;
	memcpy(bare, host + 1, length - 2);
	return inet_pton(AF_INET6, bare, &six) == 1;
}

static void answer_at(const struct page_request *request, const char *path, enum site site)
{
	unsigned int method = (unsigned int)evhttp_request_get_command(request->http), elsewhere = 0, allowed = 0;
	for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
		if (!matches(&pages[i], path))
			continue;
		if ((pages[i].sites & site) && (pages[i].method & method)) {
			struct page_request below = *request;
			below.rest = path + strlen(pages[i].path);
			pages[i].answer(&below);
			return;
		}
		if (pages[i].sites & site)
			allowed |= pages[i].method;
		else if (pages[i].method & method)
			elsewhere |= pages[i].sites;
	}
	if ((elsewhere & SITE_ADMIN_SOCKET) && !(method & READ) && (site & ADMIN)) {
		say(request, 403, "what changes anything is taken on %s/" OBSERVE_ADMIN_SOCKET " alone",
		    request->observe->seen.config->run_dir);
		return;
	}
	if (allowed) {
		const char *names = !(allowed & EVHTTP_REQ_POST) ? "GET, HEAD" : allowed & READ ? "GET, HEAD, POST" : "POST";
		evhttp_add_header(evhttp_request_get_output_headers(request->http), "Allow", names);
		say(request, 405, "this path takes %s", names);
		return;
	}
	say(request, 404, "there is nothing at this path%s",
	    site & ADMIN ? ": /, /status, /pods, /pods/NAMESPACE/NAME, /config, /metrics, /healthz and /readyz are here"
	    : site == SITE_HEALTH ? ": /healthz and /readyz are here"
				  : ": /metrics is here");
}

static void answer(struct observe *observe, struct evhttp_request *http, enum site site)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL, *query = uri ? evhttp_uri_get_query(uri) : NULL;
	struct page_request request = { .observe = observe, .http = http };
	TAILQ_INIT(&request.query);
	if (!path || evhttp_parse_query_str(query ? query : "", &request.query) < 0)
		say(&request, 400, "the address is malformed");
	else if (site == SITE_ADMIN && !is_host_trusted(http))
		say(&request, 403, "ask by an address or by \"localhost\": other names are refused for the sake of browsers");
	else
		answer_at(&request, path, site);
	evhttp_clear_headers(&request.query);
}

void observe_answer_health(struct evhttp_request *request, void *observe)
{
	answer(observe, request, SITE_HEALTH);
}

void observe_answer_metrics(struct evhttp_request *request, void *observe)
{
	answer(observe, request, SITE_METRICS);
}

void observe_answer_admin(struct evhttp_request *request, void *observe)
{
	answer(observe, request, SITE_ADMIN);
}

void observe_answer_admin_socket(struct evhttp_request *request, void *observe)
{
	answer(observe, request, SITE_ADMIN_SOCKET);
}
