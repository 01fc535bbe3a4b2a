/* An attachment is (container id, interface): one interface of one sandbox. What an ADD did is remembered in one file each,
 * runDir/attachments/CONTAINER:INTERFACE.json: it serves CHECK and DEL without the installer, DEL without CNI_NETNS, GC, and
 * the installer's restart. */
#ifndef AMBIENT_ATTACHMENT_H
#define AMBIENT_ATTACHMENT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"

/* A pod has one or two. */
#define ATTACHMENT_ADDRESSES_MAX 64

struct attachment {
	char *network;	    /* the network configuration's name */
	char *container_id; /* as CNI allows: [a-zA-Z0-9][a-zA-Z0-9_.-]* */
	char *interface;
	char *netns_path;			  /* NULL: not known */
	struct netns_id netns;			  /* 0, 0: not known */
	char *pod_namespace, *pod_name, *pod_uid; /* NULL: no pod, or not known */
	char **addresses;			  /* of prevResult, as text without a prefix length */
	size_t addresses_count;
	bool is_enrolled; /* the redirect below is in force */
	struct redirect redirect;
};

void attachment_clear(struct attachment *attachment);
#define cleanup_attachment __attribute__((cleanup(attachment_clear)))

/* Whether a container id or an interface may be part of a file name and of a message. */
bool attachment_container_id_is_valid(const char *container_id);
bool attachment_interface_is_valid(const char *interface);

/* The object of the file, and of messages; NULL: no memory. */
cJSON *attachment_to_json(const struct attachment *attachment);
/* `where` is the object's place, for messages. */
int attachment_from_json(const cJSON *json, const char *where, struct error *error, struct attachment *ret_attachment);

/* Writes the file, atomically; makes the directory. */
int attachment_write(const char *run_dir, const struct attachment *attachment, struct error *error);

/* Absent: 0, and `ret_found` is false. A file that can't be understood is renamed to NAME.corrupt and is an error that says
 * so: the next look finds none. */
int attachment_read(const char *run_dir, const char *container_id, const char *interface, struct error *error,
		    struct attachment *ret_attachment, bool *ret_found);

/* Absent is no error. */
int attachment_remove(const char *run_dir, const char *container_id, const char *interface, struct error *error);

/* Whether another interface of the same container has an attachment. Looks at names only; at no other than the mark of `netns`
 * (0, 0: not known) where that answers it. */
bool attachment_has_other(const char *run_dir, const char *container_id, const char *interface, struct netns_id netns);
/* The same by the names of the files alone: all of them are looked through. */
bool attachment_has_other_file(const char *run_dir, const char *container_id, const char *interface);

/* Calls `visit` for each, which borrows it; one that returns -1 ends the walk, which fails then. Files that can't be understood
 * are set aside and told to `corrupt`; so are those that can't be read at the moment. Without `corrupt` the walk goes on, and
 * fails at its end when there was one that could not be read. */
int attachment_list(const char *run_dir, int (*visit)(void *data, struct attachment *attachment, struct error *error),
		    void (*corrupt)(void *data, const char *message), void *data, struct error *error);

/* Marks (attachment_mark.c): which attachment stands for a namespace. attachment_write makes them.
 *
 * Whether (container id, interface) is known to be the only attachment that stands for the namespace: false where that is not
 * known, and all have to be read. */
bool attachment_is_alone(const char *run_dir, struct netns_id netns, const char *container_id, const char *interface);
/* Before the file is written. A namespace that is not known needs none. */
int attachment_mark(const char *run_dir, const struct attachment *attachment, struct error *error);
/* Of an attachment that was found: a version without marks may have written it after another made them. Where there are none at
 * all, the next attachment_write marks what is there. */
int attachment_mark_found(const char *run_dir, const struct attachment *attachment, struct error *error);
/* Nothing stands for the namespace any more. */
void attachment_unmark(const char *run_dir, struct netns_id netns);
void attachment_unmark_all(const char *run_dir);
/* Takes away what writers of marks left that were killed (file_is_abandoned). */
void attachment_unmark_abandoned(const char *run_dir);

#endif
