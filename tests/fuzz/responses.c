/* HTTP responses of the API server, in plain text over a loopback connection: TLS is OpenSSL's, and left out by the linker. The
 * input is what the server answers, response by response, each ended by a 0xff; a first byte of each says in bit 0 that the
 * connection is closed behind it, in bit 1 that it is cut in two. A GET, a PATCH that may go out only once, the removal of a
 * taint and a stream are asked. The clock goes as far as somebody wants to wait.
 *
 * Each request ends at most once, and with an error unless its status is 2xx. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "installer/kube/client.h"
#include "installer/kube/requests.h"
#include "installer/kube/tls.h"
#include "tests/fuzz/agent.h"

#define CONNECTIONS 16
#define TURNS 64
#define TURNS_AFTERWARDS 4
#define EVER_MILLISECONDS 3600000

static int listening;
static uint16_t port;
static uint64_t fake_milliseconds;
static SSL_CTX *context;

struct bufferevent *__wrap_bufferevent_openssl_socket_new(struct event_base *base, evutil_socket_t fd, SSL *ssl,
							  enum bufferevent_ssl_state state, int options);
unsigned long __wrap_bufferevent_get_openssl_error(struct bufferevent *bufferevent);
int __wrap_kube_tls_new(const struct kube_credentials *credentials, struct error *error, struct kube_tls **ret_tls);
void __wrap_kube_tls_free(struct kube_tls *tls);
int __wrap_kube_tls_connection(struct kube_tls *tls, bool *was_established, struct error *error, SSL **ret_ssl);
bool __wrap_kube_tls_is_untrusted(const SSL *ssl, const char *server, struct error *error);
int __wrap_event_add(struct event *event, const struct timeval *time);
int __real_event_add(struct event *event, const struct timeval *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now);

struct bufferevent *__wrap_bufferevent_openssl_socket_new(struct event_base *base, evutil_socket_t fd, SSL *ssl,
							  enum bufferevent_ssl_state state, int options)
{
	(void)state;
	SSL_free(ssl);
	return bufferevent_socket_new(base, fd, options);
}

unsigned long __wrap_bufferevent_get_openssl_error(struct bufferevent *bufferevent)
{
	(void)bufferevent;
	return 0;
}

int __wrap_kube_tls_new(const struct kube_credentials *credentials, struct error *error, struct kube_tls **ret_tls)
{
	(void)credentials, (void)error;
	*ret_tls = (struct kube_tls *)&context;
	return 0;
}

void __wrap_kube_tls_free(struct kube_tls *tls)
{
	(void)tls;
}

int __wrap_kube_tls_connection(struct kube_tls *tls, bool *was_established, struct error *error, SSL **ret_ssl)
{
	(void)tls, (void)error;
	*was_established = true;
	HOLDS(*ret_ssl = SSL_new(context));
	return 0;
}

bool __wrap_kube_tls_is_untrusted(const SSL *ssl, const char *server, struct error *error)
{
	(void)ssl, (void)server, (void)error;
	return false;
}

/* Pauses are over at once, and the clock has gone on by as much; what waits for an hour waits. */
int __wrap_event_add(struct event *event, const struct timeval *time)
{
	static const struct timeval none;
	if (!time || time->tv_sec >= EVER_MILLISECONDS / 2000)
		return __real_event_add(event, time);
	fake_milliseconds += (uint64_t)time->tv_sec * 1000 + (uint64_t)time->tv_usec / 1000;
	return __real_event_add(event, &none);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now)
{
	(void)clock;
	fake_milliseconds++;
	*ret_now = (struct timespec){ .tv_sec = (time_t)(1000 + fake_milliseconds / 1000),
				      .tv_nsec = (long)(fake_milliseconds % 1000) * 1000000 };
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	fuzz_agent_place();
	context = SSL_CTX_new(TLS_client_method());
	listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	HOLDS(context && listening >= 0 && ioctl(listening, SIOCSIFFLAGS, &lo) == 0);
	HOLDS(bind(listening, (const struct sockaddr *)&address, sizeof address) == 0 && listen(listening, 64) == 0);
	HOLDS(getsockname(listening, (struct sockaddr *)&address, &length) == 0);
	port = ntohs(address.sin_port);
	return 0;
}

/* ---- The server. ---- */

struct server {
	const uint8_t *next, *end;
	int connections[CONNECTIONS]; /* -1: none */
};

static void answer(struct server *server, int *connection)
{
	const uint8_t *end = memchr(server->next, 0xff, (size_t)(server->end - server->next));
	if (!end)
		end = server->end;
	uint8_t how = server->next < end ? *server->next++ : 1;
	size_t length = (size_t)(end - server->next), first = how & 2 ? length / 2 : length;
	(void)!send(*connection, server->next, first, MSG_NOSIGNAL);
	(void)!send(*connection, server->next + first, length - first, MSG_NOSIGNAL);
	server->next = end < server->end ? end + 1 : end;
	if (how & 1) {
		/* No TIME_WAIT: ports are few. */
		const struct linger at_once = { .l_onoff = !(how & 4) };
		setsockopt(*connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		shutdown(*connection, SHUT_WR);
	}
}

static void serve(struct server *server)
{
	char bytes[8192];
	bool is_any_waiting = true;
	for (size_t i = 0; i < CONNECTIONS; i++) {
		if (server->connections[i] < 0 && is_any_waiting)
			server->connections[i] = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (server->connections[i] < 0) {
			is_any_waiting = false;
			continue;
		}
		ssize_t length = recv(server->connections[i], bytes, sizeof bytes, 0);
		if (length > 0 && server->next < server->end) {
			HOLDS(memmem(bytes, (size_t)length, " HTTP/1.1\r\n", 11));
			answer(server, &server->connections[i]);
		} else if (length >= 0 || errno != EAGAIN) {
			close(steal_fd(&server->connections[i]));
		}
	}
}

/* ---- The client. ---- */

struct asked {
	unsigned int ends, begins;
};

static void ended(struct asked *asked, int status, const struct error *error)
{
	HOLDS(asked->ends++ == 0);
	/* evhttp takes any number for a status. */
	HOLDS(error_is_set(error) == !(status >= 200 && status < 300));
}

static void done(void *data, int status, const cJSON *object, const struct error *error)
{
	(void)object;
	ended(data, status, error);
}

static void begun(void *data)
{
	struct asked *asked = data;
	HOLDS(asked->ends == 0 && asked->begins++ == 0);
}

static void received(void *data, const char *bytes, size_t length)
{
	const struct asked *asked = data;
	HOLDS(asked->begins == 1 && asked->ends == 0 && length > 0 && bytes);
}

static void stream_ended(void *data, int status, const cJSON *object, unsigned retry_after, const struct error *error)
{
	HOLDS(retry_after <= 300000 && !(status == 200 && object));
	ended(data, status, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char kubeconfig[40];
	struct error error = { 0 };
	const struct log log = { .fd = -1 };
	char text[512];
	int text_length =
		snprintf(text, sizeof text,
			 "clusters: [{name: c, cluster: {server: \"https://127.0.0.1:%u\", insecure-skip-tls-verify: true}}]\n"
			 "users: [{name: u, user: {token: t}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
			 "current-context: x\n",
			 port);
	struct fuzz_file file = fuzz_file_make((const uint8_t *)text, (size_t)text_length);
	memcpy(kubeconfig, file.path, sizeof kubeconfig);
	const struct kube_client_options options = { .origin = { .kubeconfig = kubeconfig },
						     .log = &log,
						     .connections_max = 2,
						     .idle_milliseconds = EVER_MILLISECONDS,
						     .reload_milliseconds = EVER_MILLISECONDS };
	struct event_base *base = event_base_new();
	struct kube_client *client = NULL;
	struct kube_request *requests[3];
	struct kube_taint_removal *removal = NULL;
	struct asked asked[4] = { 0 };
	fake_milliseconds = 0;
	struct server server = { .next = data, .end = data + size };
	memset(server.connections, -1, sizeof server.connections);
	if (kube_client_new(base, &options, &error, &client) < 0) {
		fprintf(stderr, "%s\n", error.message);
		abort();
	}
	const struct kube_call get = { .path = "/api/v1/a",
				       .response_limit = 4096,
				       .deadline_milliseconds = EVER_MILLISECONDS };
	const struct kube_call patch = { .method = KUBE_PATCH,
					 .path = "/api/v1/b",
					 .body = "{}",
					 .once = true,
					 .deadline_milliseconds = EVER_MILLISECONDS };
	const struct kube_stream_listener listener = { begun, received, stream_ended, &asked[2] };
	HOLDS(kube_client_request(client, &get, done, &asked[0], &error, &requests[0]) == 0);
	HOLDS(kube_client_request(client, &patch, done, &asked[1], &error, &requests[1]) == 0);
	HOLDS(kube_client_stream(client, &get, EVER_MILLISECONDS, &listener, &error, &requests[2]) == 0);
	HOLDS(kube_remove_taint(client, "node", "cni.istio.io/not-ready", done, &asked[3], &error, &removal) == 0);
	for (int turn = 0, afterwards = 0; turn < TURNS && afterwards < TURNS_AFTERWARDS; turn++) {
		event_base_loop(base, EVLOOP_NONBLOCK);
		serve(&server);
		afterwards += server.next == server.end;
		if (asked[0].ends && asked[1].ends && asked[2].ends && asked[3].ends)
			break;
	}
	if (!asked[3].ends)
		kube_taint_removal_cancel(removal);
	kube_client_free(client);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	for (size_t i = 0; i < CONNECTIONS; i++)
		if (server.connections[i] >= 0)
			close(server.connections[i]);
	fuzz_file_clear(&file);
	return 0;
}
