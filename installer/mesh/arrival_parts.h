/* What the files of an arrival share: arrival.c, its life from the question to the result, and arrival_decide.c, the answer to
 * the question. Private to both. */
#ifndef AMBIENT_INSTALLER_MESH_ARRIVAL_PARTS_H
#define AMBIENT_INSTALLER_MESH_ARRIVAL_PARTS_H

#include <string.h>

#include "installer/mesh/state.h"

enum arrival_stage {
	ARRIVAL_WAITS,	   /* for the source to know pod and namespace */
	ARRIVAL_READS,	   /* the pod from the source */
	ARRIVAL_FOLLOWS,   /* another ADD of the same sandbox, which has been decided */
	ARRIVAL_APPLIES,   /* the plugin does */
	ARRIVAL_IN_TUNNEL, /* an Add is on its way, or no tunnel is connected */
};

struct mesh_arrival {
	TAILQ_ENTRY(mesh_arrival) all;
	struct mesh *mesh;
	struct mesh_arrival_listener listener;
	struct attachment attachment;
	int netns; /* as the plugin handed it over; owned */
	enum arrival_stage stage;
	struct mesh_pod *pod;		/* from the decision on */
	struct source_request *request; /* the pod is being read; NULL: it is not */
	bool has_read;			/* the source was asked for this pod: it does not know it */
	char *replaced;			/* the container id of the pod's sandbox before this one; NULL: none is known */
	bool is_new_sandbox;		/* not another interface, or a second ADD, of one that is in already */
	struct event *deadline;
	double began, decided, reported; /* seconds, CLOCK_MONOTONIC */
	char waits_for[256];		 /* words for the plugin when the deadline passes */
};

static inline bool mesh_arrival_is_of(const struct mesh_arrival *arrival, const char *container_id)
{
	return strcmp(arrival->attachment.container_id, container_id) == 0;
}

/* arrival.c */
/* Both end the arrival: the plugin is told, and it is freed. The pod is in the mesh (CNI_OK), or can't start yet, and `message`
 * says why: those that follow are answered, or refused too. */
void mesh_arrival_finish(struct mesh_arrival *arrival, enum cni_code code, const char *message);
/* The pod starts outside the mesh. */
void mesh_arrival_skip(struct mesh_arrival *arrival, const char *reason);

/* arrival_decide.c */
/* Looks whether the question can be answered by now. May end the arrival. */
void mesh_arrival_decide(struct mesh_arrival *arrival);
/* The source does not know the pod, or can't be asked: ends the arrival. */
void mesh_arrival_decide_without_pod(struct mesh_arrival *arrival, const char *why);

#endif
