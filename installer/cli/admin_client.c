/* The client of the admin socket. See admin_client.h.
 *
 * HTTP is OpenSSL's client, which takes any connection; libevent's connects to addresses only. Of an answer that is an error
 * OpenSSL 3.0 keeps nothing but the first line, and 3.5 hands over the body and does not tell the status: the agent puts its
 * sentence into both. */
#include "installer/cli/admin_client.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "ambient/unix_address.h"
#include "installer/kube/client.h"
#include "installer/observe/observe.h"

#define ANSWER_MAX (64UL << 20)
#define ANSWER_SECONDS 30

int admin_find(const struct config_options *options, struct error *error, struct admin *ret_admin)
{
	cleanup_installer_config struct installer_config config = { 0 };
	if (config_options_load_agents(options, error, &config) < 0)
		return -1;
	return file_join(config.run_dir, OBSERVE_ADMIN_SOCKET, error, &ret_admin->socket);
}

void admin_clear(struct admin *admin)
{
	free(admin->socket);
	admin->socket = NULL;
}

static int open_socket(const struct admin *admin, struct error *error, int *ret_fd)
{
	const struct timeval patience = { .tv_sec = ANSWER_SECONDS };
	struct sockaddr_un address;
	if (unix_address(admin->socket, error, &address) < 0)
		return -1;
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0)
		return error_set(error, errno, "cannot open a socket");
	if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
		if (errno == EACCES || errno == EPERM)
			return error_say(error, EACCES, "only root may ask the node agent (%s)", admin->socket);
		return error_say(error, ECONNREFUSED,
				 "no node agent answers at %s (%s); whether it runs: kubectl get pods -A -l "
				 "k8s-app=istio-cni-node -o wide; another runDir: --config or --set runDir=PATH",
				 admin->socket, strerror(errno));
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* "code=404, reason=there is no pod ..." */
static int explain_refusal(struct error *error)
{
	const char *text;
	int flags;
	struct error found = { 0 };
	for (unsigned long code; (code = ERR_get_error_all(NULL, NULL, NULL, &text, &flags)) != 0;) {
		int status;
		const char *reason = text ? strstr(text, "reason=") : NULL;
		if (ERR_GET_LIB(code) == ERR_LIB_HTTP && reason && sscanf(text, "code=%d", &status) == 1 &&
		    !error_is_set(&found))
			error_say(&found, status == 404 ? ENOENT : EINVAL, "%.900s", reason + strlen("reason="));
	}
	if (error_is_set(&found)) {
		if (error)
			*error = found;
		return -1;
	}
	return error_say(error, EPROTO, "the node agent gave no answer that can be understood");
}

static int read_all(BIO *bio, struct error *error, char **ret_text, size_t *ret_length)
{
	cleanup_free char *text = NULL;
	size_t length = 0, size = 0;
	for (;;) {
		if (size - length < 4096) {
			char *larger = size < ANSWER_MAX ? realloc(text, size ? size * 2 : 65536) : NULL;
			if (!larger)
				return error_set(error, EMSGSIZE, "the node agent's answer is too long");
			text = larger;
			size = size ? size * 2 : 65536;
		}
		int count = BIO_read(bio, text + length, (int)(size - length - 1));
		if (count <= 0)
			break;
		length += (size_t)count;
	}
	text[length] = '\0';
	*ret_text = steal_pointer(text);
	*ret_length = length;
	return 0;
}

static int exchange(const struct admin *admin, bool is_post, const char *path, struct error *error, char **ret_text,
		    size_t *ret_length)
{
	cleanup_close int fd = -1;
	int result = -1;
	if (open_socket(admin, error, &fd) < 0)
		return -1;
	ERR_clear_error();
	BIO *bio = BIO_new_socket(fd, BIO_NOCLOSE);
	OSSL_HTTP_REQ_CTX *request = bio ? OSSL_HTTP_REQ_CTX_new(bio, bio, 0) : NULL;
	if (!request || !OSSL_HTTP_REQ_CTX_set_request_line(request, is_post, NULL, NULL, path) ||
	    !OSSL_HTTP_REQ_CTX_add1_header(request, "Host", "localhost") ||
	    !OSSL_HTTP_REQ_CTX_add1_header(request, "Accept", "application/json") ||
	    !OSSL_HTTP_REQ_CTX_set_expected(request, NULL, 0, ANSWER_SECONDS, 0)) {
		error_set(error, ENOMEM, "cannot ask the node agent");
	} else {
		OSSL_HTTP_REQ_CTX_set_max_response_length(request, ANSWER_MAX);
		BIO *answer = OSSL_HTTP_REQ_CTX_exchange(request); /* the context's */
		result = answer ? read_all(answer, error, ret_text, ret_length) : explain_refusal(error);
	}
	OSSL_HTTP_REQ_CTX_free(request);
	BIO_free(bio);
	return result;
}

static int ask(const struct admin *admin, bool is_post, const char *path, struct error *error, cJSON **ret_json)
{
	cleanup_free char *text = NULL;
	cleanup_cjson cJSON *json = NULL;
	size_t length = 0;
	if (exchange(admin, is_post, path, error, &text, &length) < 0 ||
	    json_parse(text, length, ANSWER_MAX, "the node agent's answer", error, &json) < 0)
		return -1;
	const char *sentence = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "error"));
	const cJSON *status = cJSON_GetObjectItemCaseSensitive(json, "status");
	if (sentence && cJSON_IsNumber(status))
		return error_say(error, status->valuedouble == 404 ? ENOENT : EINVAL, "%.900s", sentence);
	*ret_json = steal_pointer(json);
	return 0;
}

/* What the agent passes on may come from anywhere: no text moves a cursor. */
static void make_printable(cJSON *json)
{
	if (json->valuestring)
		for (char *c = json->valuestring; *c; c++)
			if ((unsigned char)*c < ' ' || *c == 0x7f)
				*c = ' ';
	for (cJSON *child = json->child; child; child = child->next)
		make_printable(child);
}

int admin_get(const struct admin *admin, const char *path, struct error *error, cJSON **ret_json)
{
	if (ask(admin, false, path, error, ret_json) < 0)
		return -1;
	make_printable(*ret_json);
	return 0;
}

int admin_post(const struct admin *admin, const char *path, struct error *error)
{
	cleanup_cjson cJSON *answer = NULL;
	return ask(admin, true, path, error, &answer);
}

int admin_pod_path(const char *pod, const char *rest, struct error *error, char **ret_path)
{
	const char *slash = strchr(pod, '/');
	if (!slash || slash == pod || slash[1] == '\0' || strchr(slash + 1, '/'))
		return error_say(error, EINVAL, "expected NAMESPACE/POD, found \"%.300s\"", pod);
	cleanup_free char *bare = strndup(pod, (size_t)(slash - pod));
	cleanup_free char *namespace_name = bare ? kube_escape(bare) : NULL, *name = kube_escape(slash + 1);
	if (!namespace_name || !name || asprintf(ret_path, "/pods/%s/%s%s", namespace_name, name, rest) < 0)
		return error_set(error, ENOMEM, "cannot ask for %s", pod);
	return 0;
}
