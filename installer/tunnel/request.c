/* One request to the tunnel. See request.h. */
#include "installer/tunnel/request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int request_new(enum tunnel_request_kind kind, const char *uid, const struct tunnel_message *message, int netns,
		struct error *error, struct request **ret_request)
{
	struct request *request = calloc(1, sizeof *request + message->length);
	if (request)
		request->uid = strdup(uid);
	if (!request || !request->uid) {
		free(request);
		return error_set(error, ENOMEM, "cannot ask the tunnel for workload %.64s", uid);
	}
	request->kind = kind;
	request->is_told = kind == TUNNEL_ADD || kind == TUNNEL_DELETE || kind == TUNNEL_SNAPSHOT_ADD;
	request->netns = -1;
	/* What a Delete says when no connection said anything. */
	request->outcome = TUNNEL_ABSENT;
	request->length = message->length;
	memcpy(request->bytes, message->bytes, message->length);
	if (netns >= 0) {
		request->netns = fcntl(netns, F_DUPFD_CLOEXEC, 0);
		if (request->netns < 0) {
			error_set(error, errno, "cannot keep the network namespace of workload %.64s until it is sent", uid);
			request_free(request);
			return -1;
		}
	}
	*ret_request = request;
	return 0;
}

void request_free(struct request *request)
{
	if (!request)
		return;
	if (request->netns >= 0)
		close(request->netns);
	free(request->problem);
	free(request->uid);
	free(request);
}

/* FNV-1a. */
uint32_t request_hash(const char *uid)
{
	uint32_t hash = 2166136261u;
	for (const char *c = uid; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 16777619u;
	return hash;
}

/* Of several outcomes of one Delete: a refusal is worth hearing, else one acceptance is enough, else what is known. */
static int rank(enum tunnel_outcome outcome)
{
	static const int ranks[] = { [TUNNEL_REFUSED] = 5, [TUNNEL_ACCEPTED] = 4, [TUNNEL_SUPERSEDED] = 3,
				     [TUNNEL_LATE] = 2,	   [TUNNEL_LOST] = 1,	  [TUNNEL_ABSENT] = 0 };
	return ranks[outcome];
}

void request_note_outcome(struct request *request, enum tunnel_outcome outcome, const struct error *error)
{
	if (request->problem && rank(outcome) <= rank(request->outcome))
		return;
	if (rank(outcome) < rank(request->outcome))
		return;
	request->outcome = outcome;
	free(request->problem);
	request->problem = outcome != TUNNEL_ACCEPTED && error ? strdup(error->message) : NULL;
	request->problem_number = error ? error->number : 0;
}
