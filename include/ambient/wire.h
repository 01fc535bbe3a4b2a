/* What plugin and installer say to each other.
 *
 * A Unix socket of type SOCK_SEQPACKET, runDir/installer.sock, mode 0600; both ends ask the kernel who the other is
 * (SO_PEERCRED) and talk to uid 0 only. A packet is one JSON object of at most WIRE_PACKET_MAX bytes, one conversation a
 * connection:
 *
 *   ADD   plugin    add       the attachment, a descriptor of its network namespace (SCM_RIGHTS), and how long it waits
 *         installer decision  redirect: how; or skip: why, and the conversation ends; or a result that refuses
 *         plugin    report    the rules are in place; or why not, and the conversation ends
 *         installer result    the tunnel has acknowledged; or why not: the plugin takes the rules away
 *   DEL   plugin    del       the attachment, and the descriptor where there still is one
 *         installer result
 *   GC    plugin    gc        the network's name and its attachments that are still valid
 *         installer result
 *
 * A plugin whose end closes before the result came wants nothing more: the installer takes back what it did. Only `add` and
 * `del` carry a descriptor, exactly one, a network namespace that is not the host's.
 *
 * The first packet of each side names the version that it speaks and the oldest that it understands; the two agree when each
 * understands the other's, and otherwise say who must be upgraded. So both ends may be a version apart during an upgrade.
 * Unknown keys are passed over. */
#ifndef AMBIENT_WIRE_H
#define AMBIENT_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/attachment.h"
#include "ambient/error.h"
#include "ambient/redirect.h"

#define WIRE_SOCKET "installer.sock"
#define WIRE_PACKET_MAX 65536
#define WIRE_TIMEOUT_MAX 1000000 /* milliseconds */
#define WIRE_VERSION 1
#define WIRE_VERSION_MINIMUM 1

enum wire_kind { WIRE_ADD, WIRE_DECISION, WIRE_REPORT, WIRE_RESULT, WIRE_DEL, WIRE_GC, WIRE_KIND_COUNT };

enum wire_verdict { WIRE_VERDICT_REDIRECT, WIRE_VERDICT_SKIP };

struct wire_valid_attachment {
	char *container_id, *interface;
};

struct wire_message {
	enum wire_kind kind;
	int version, version_minimum; /* of the sender */
	struct attachment attachment; /* add, del */
	long timeout_milliseconds;    /* add: the plugin waits for the result no longer; 0: not said */
	enum wire_verdict verdict;    /* decision */
	struct redirect redirect;     /* decision redirect */
	char *reason;		      /* decision: which label, annotation or setting decided */
	int code;		      /* result: 0 done, else a code of the CNI specification */
	char *message,
		*details; /* result: the CNI error's; report: message is why the rules are not in place, NULL: they are */
	char *network;	  /* gc */
	struct wire_valid_attachment *valid; /* gc */
	size_t valid_count;
	char *log; /* the plugin's log lines since its last packet, or NULL */
};

void wire_message_clear(struct wire_message *message);
#define cleanup_wire_message __attribute__((cleanup(wire_message_clear)))

/* The packet's text. The version fields are filled in. EMSGSIZE: larger than a packet may be. */
int wire_encode(const struct wire_message *message, struct error *error, char **ret_text);

/* Reads a packet; a version that can't be talked to is EPROTONOSUPPORT. */
int wire_decode(const char *text, size_t length, struct error *error, struct wire_message *ret_message);

/* Sends one packet, with a descriptor unless it is -1. Never raises SIGPIPE. */
int wire_send(int socket, const struct wire_message *message, int descriptor, struct error *error);

/* Receives one packet. `ret_descriptor` is -1 unless one came. Error numbers: EAGAIN (nothing there, or the socket's time-out),
 * ECONNRESET (the peer closed), EPROTO (what came breaks the protocol), EMFILE (there was no room for the descriptor that came,
 * which is lost). */
int wire_receive(int socket, struct error *error, struct wire_message *ret_message, int *ret_descriptor);

/* Connects. ENOENT or ECONNREFUSED: nobody is there. Both directions time out after `timeout_milliseconds`. */
int wire_connect(const char *path, long timeout_milliseconds, struct error *error, int *ret_connection);

#endif
