/* ZDS messages to bytes and back, and what makes a workload fit to be sent. The bytes are protobuf's (zds.proto). */
#ifndef AMBIENT_INSTALLER_TUNNEL_MESSAGE_H
#define AMBIENT_INSTALLER_TUNNEL_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ambient/error.h"
#include "installer/tunnel/server.h"

/* The tunnel receives into 1024 bytes; its own answers hold the text of an error and are not bounded. */
#define TUNNEL_SEND_MAX 1024
#define TUNNEL_RECEIVE_MAX 65536

struct tunnel_message {
	size_t length;
	uint8_t bytes[TUNNEL_SEND_MAX];
};

/* Fails with EINVAL for an empty uid or name or one with other characters than printable ASCII (Kubernetes has no others, and a
 * string that is not UTF-8 ends the tunnel), with EMSGSIZE for one that no message holds. */
int tunnel_encode_add(const struct tunnel_workload *workload, struct error *error, struct tunnel_message *ret_message);
int tunnel_encode_keep(const char *uid, struct error *error, struct tunnel_message *ret_message);
int tunnel_encode_delete(const char *uid, struct error *error, struct tunnel_message *ret_message);
void tunnel_encode_snapshot_sent(struct tunnel_message *ret_message);

/* A tunnel's first message. A later version than 1 is no error: the tunnel knows what we are too. */
int tunnel_decode_hello(const uint8_t *bytes, size_t length, struct error *error, int *ret_version);

/* An answer: accepted, or refused with the tunnel's words in `ret_refusal` (number EREMOTEIO). */
int tunnel_decode_answer(const uint8_t *bytes, size_t length, struct error *error, bool *ret_is_accepted,
			 struct error *ret_refusal);

#endif
