/* One request to the tunnel and the places where it stands: it goes to one connection or to several, waits, is sent, and ends
 * with one outcome. */
#ifndef AMBIENT_INSTALLER_TUNNEL_REQUEST_H
#define AMBIENT_INSTALLER_TUNNEL_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "installer/tunnel/message.h"

struct request {
	TAILQ_ENTRY(request) link; /* among those that have ended and are to be told */
	enum tunnel_request_kind kind;
	bool is_told;	      /* the listener hears the outcome */
	unsigned int entries; /* places where it stands */
	int netns;	      /* the descriptor that goes with it, -1: none */
	enum tunnel_outcome outcome;
	char *problem; /* words for the outcome, NULL: none were to be had */
	int problem_number;
	char *uid;
	size_t length;
	uint8_t bytes[];
};
TAILQ_HEAD(request_list, request);

/* A request in the queue of one connection. */
struct entry {
	TAILQ_ENTRY(entry) link;
	struct entry *next_of_hash; /* while it waits */
	struct request *request;
	uint32_t hash;
	int64_t sent; /* ns, CLOCK_MONOTONIC */
};
TAILQ_HEAD(entry_list, entry);

/* `netns` is duplicated. On failure of the duplication the number is EMFILE or ENFILE. */
int request_new(enum tunnel_request_kind kind, const char *uid, const struct tunnel_message *message, int netns,
		struct error *error, struct request **ret_request);
void request_free(struct request *request);

/* What became of it in one place. Of several the one counts that is most worth hearing. */
void request_note_outcome(struct request *request, enum tunnel_outcome outcome, const struct error *error);

uint32_t request_hash(const char *uid);

#endif
