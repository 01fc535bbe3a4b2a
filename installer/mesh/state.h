/* What the files of the mesh share: the mesh's own struct, and one pod's. Private to installer/mesh/. */
#ifndef AMBIENT_INSTALLER_MESH_STATE_H
#define AMBIENT_INSTALLER_MESH_STATE_H

#include <sys/queue.h>
#include <time.h>

#include "ambient/clock.h"
#include "ambient/netns.h"
#include "ambient/outside.h"
#include "installer/probes/aws_branch_eni.h"
#include "installer/netns/drift.h"
#include "installer/mesh/mesh.h"
#include "installer/probes/probe_set.h"

/* A pod's sandbox: what is known of its network namespace, and, while it is open, what holds it. */
struct sandbox {
	char *container_id;	       /* of the ADD that brought it; NULL: found among processes or by annotation */
	char *network;		       /* the network configuration's name, of that ADD */
	char *netns_path;	       /* of that ADD; NULL: not known */
	struct netns_id id;	       /* 0, 0: the pod's namespace is not known */
	struct pod_address *addresses; /* of prevResult, or that were reported after a change in place */
	size_t addresses_count;
	bool is_readdressed; /* the attachment names others */
	bool is_doubted;     /* the kubelet reports other addresses by now (addresses.c) */

	int netns; /* -1: not held open */
	struct redirect_session *session;
	struct drift_watch *watch;

	enum redirect_standing standing; /* rules in the namespace, as of the last look or change */
	bool is_looked_at;		 /* false: standing is not known */
	bool was_ours;			 /* in an earlier run: its table may have been taken, and its routes stand still */
	bool is_suspect;		 /* somebody else changed something there: compare */
	enum drift_kind suspicion;
	struct redirect in_force;      /* what the rules say, while standing is not NOTHING */
	time_t verified;	       /* CLOCK_REALTIME of the last look at the kernel that agreed; 0: never */
	bool is_taken_over;	       /* this namespace was looked at for rules of istio-cni */
	struct nft_socket *taken_over; /* that removed them: closed as late as the session; NULL: none */
};

enum pod_tunnel {
	POD_TUNNEL_UNKNOWN, /* nothing asked; or what was accepted may be forgotten by now */
	POD_TUNNEL_KEPT,    /* it may run the pod, by a Keep or in an older namespace: needs an Add, or a Del */
	POD_TUNNEL_ADDING,  /* an Add is on its way */
	POD_TUNNEL_ACCEPTED,
	POD_TUNNEL_REFUSED,  /* the latest Add was answered with an error */
	POD_TUNNEL_DELETING, /* a Del is on its way */
	POD_TUNNEL_DELETED,
};

enum pod_patch { POD_PATCH_NONE, POD_PATCH_SENT };

struct mesh_pod {
	/* The key of the index: first, so that a lookup needs no whole pod. */
	const char *uid; /* metadata.uid; owned */
	struct mesh *mesh;
	TAILQ_ENTRY(mesh_pod) all;
	LIST_ENTRY(mesh_pod) named;
	TAILQ_ENTRY(mesh_pod) queue;
	bool is_queued;

	/* As the source has it. */
	struct pod *object; /* NULL: not (yet, or any more) */
	bool is_listed;	    /* named in the list that is under way */
	bool is_missed;	    /* it is to be read: somebody says that it is gone, or how it is, who may be wrong (missed.c) */
	struct source_request *missed_request;
	double gone_at;	   /* when the source let go of it; 0: it did not */
	char *static_hash; /* config.hash of a static pod's mirror, which outlives the object; NULL: it is none. Owned */
	/* Names that outlive the object; owned. */
	char *name, *namespace_name, *service_account;

	/* As it should be. */
	struct selection_decision decision;
	struct redirect wanted; /* the redirect for it, while decision.wanted */
	char *warning;		/* an annotation that is ignored; NULL: none */

	/* As it is. */
	struct sandbox sandbox;
	bool is_attachment_stale; /* its attachment may say something else than what stands */
	bool is_torn_down;	  /* its sandbox was removed: no namespace is looked for until an ADD brings one */
	/* The addresses of a sandbox that was removed before the source told anything of the pod; owned. */
	struct pod_address *removed_addresses;
	size_t removed_addresses_count;
	bool is_entering;   /* it is to be written down before any rule of ours goes into its namespace */
	bool is_written;    /* enrolled.json names it */
	bool is_remembered; /* an earlier run of the agent had it enrolled, and it was not looked at yet */
	bool is_enrolled;   /* the redirects stood while the tunnel had accepted: in force until it is released */
	bool is_releasing;
	bool is_stranded; /* mesh_release_all could not take its annotation off: it stays enrolled */
	enum pod_tunnel tunnel;
	bool is_in_snapshot;	      /* the Add that is on its way belongs to a snapshot */
	unsigned int adds_unanswered; /* other Adds: the last one's answer counts */
	bool is_branch_eni_settled;   /* its addresses have the host's rules that they need (aws_branch_eni.h) */
	bool has_branch_eni;	      /* they needed some */
	bool was_accepted;	      /* by the tunnel, since it was enrolled: an annotation "enabled" is right */

	/* The annotation: what the source shows, or what we wrote and it does not show yet. */
	char *annotation;
	struct source_request *patch;
	char *patch_value;     /* of the patch on its way; NULL: removal */
	bool is_patch_shown;   /* the source has shown it before its answer came */
	bool is_patch_doubted; /* a list has shown the pod before its answer came, and not the patch */
	double annotate_after;
	unsigned int annotate_failures;

	/* Release. */
	bool is_annotation_off; /* the patch succeeded, or there is nothing to take off */
	double drain_began;	/* 0: not */
	double drain_look;	/* the next look at what is carried */
	bool is_drained;
	bool is_listened_to; /* by a tunnel that is away: the guard stays */

	/* Trying again. */
	struct event *timer;
	unsigned int failures;
	double retry_after; /* nothing that failed is tried before; 0: nothing failed */
	char *last_error;   /* its words, while failures are counted; NULL: none, or no memory for them */
	enum metrics_step last_error_step;
	bool is_unseen;	       /* the look into its namespace failed, and something of ours may be in there */
	bool is_to_be_located; /* among processes, by the next scan */

	/* Drift repair. */
	unsigned int repairs; /* in the window that began at repairs_since */
	double repairs_since;
	double paused_until;

	struct mesh_arrival *arrival; /* an ADD is under way: the namespace is the plugin's until it reports */
	double began;		      /* when enrolling or releasing began; 0: not under way */
	time_t since;		      /* CLOCK_REALTIME of the last change of state */
	enum mesh_state shown_state;  /* as last logged */
};

struct mesh_namespace {
	const char *name; /* the key: first */
	struct namespace_object *object;
	TAILQ_ENTRY(mesh_namespace) all;
	bool is_listed;
	bool has_enrolled_pod; /* one in it was enrolled by its own label, ever */
};

TAILQ_HEAD(mesh_pods, mesh_pod);
LIST_HEAD(mesh_named_pods, mesh_pod);
#define MESH_NAME_BUCKETS 512
TAILQ_HEAD(mesh_namespaces, mesh_namespace);
TAILQ_HEAD(mesh_arrivals, mesh_arrival);

/* Sockets to be closed later (sandbox.c). */
struct closing;
TAILQ_HEAD(closings, closing);

struct mesh {
	struct event_base *base;
	struct mesh_settings settings;
	struct mesh_observer observer;
	struct source source;
	struct tunnel_server *tunnel;

	struct mesh_pods pods, queue;
	size_t pods_count;
	void *pods_by_uid; /* tsearch(3) */
	/* By a hash of namespace and name, which are not unique: in each bucket the newest first. */
	struct mesh_named_pods pods_by_name[MESH_NAME_BUCKETS];
	struct mesh_namespaces namespaces;
	size_t namespaces_count;
	void *namespaces_by_name;
	struct mesh_arrivals arrivals;
	struct mesh_arrival *next_arrival; /* of a walk over them, each step of which may end others */
	struct closings closings;

	struct event *run;    /* the queue is to be worked on */
	struct event *locate; /* pods are to be looked for among processes */
	struct event *save;   /* files are to be written */
	struct event *close;  /* sockets are to be closed */
	struct event *prune_attachments;
	struct event *patience; /* the source is given up waiting for, for the tunnel's sake */

	struct netns_id host;
	struct probe_set *probes;
	struct aws_branch_eni *aws;

	bool is_listed[SOURCE_KIND_COUNT]; /* listed whole at least once */
	bool is_listing_pods;		   /* what is put is a list's, and not one change after another */
	bool is_kernel_seen;		   /* after that, every pod's namespace was looked at once */
	bool is_pruned;			   /* what an earlier run left on the host was looked through */
	char *trouble[SOURCE_KIND_COUNT];
	bool is_enrolled_dirty, is_outside_dirty;
	double save_took;	/* the latest one, seconds of the processor */
	struct outside outside; /* as read at start, until the source has spoken */
	bool is_stopped;
	void (*released)(void *data, size_t stranded);
	void *released_data;
	size_t stranded;
};

/* store.c */
struct mesh_pod *mesh_find_pod(const struct mesh *mesh, const char *uid);
/* Newest of that name first. */
struct mesh_pod *mesh_find_pod_by_name(const struct mesh *mesh, const char *namespace_name, const char *name);
/* The pod of a source's uid, or of a static pod's config.hash. */
struct mesh_pod *mesh_find_pod_of_sandbox(const struct mesh *mesh, const char *namespace_name, const char *name,
					  const char *uid);
/* Whether a runtime means this pod by the uid: it knows a static pod by its config.hash. */
bool pod_is_called(const struct pod *pod, const char *uid);
struct mesh_namespace *mesh_find_namespace(const struct mesh *mesh, const char *name);
/* A pod that only its names are known of. NULL: no memory. */
struct mesh_pod *mesh_add_pod(struct mesh *mesh, const char *uid, const char *namespace_name, const char *name,
			      const char *service_account);
/* The source has it no more. */
void mesh_pod_is_gone(struct mesh_pod *pod);
/* Takes the object. */
int mesh_put_pod(struct mesh *mesh, struct pod **object, struct error *error, struct mesh_pod **ret_pod);
void mesh_forget_pod(struct mesh_pod *pod);
void mesh_forget_namespaces(struct mesh *mesh);
bool mesh_put(void *data, enum source_kind kind, const cJSON *object);
void mesh_gone(void *data, enum source_kind kind, const cJSON *object);
void mesh_list_started(void *data, enum source_kind kind);
void mesh_list_finished(void *data, enum source_kind kind);
/* Whether both kinds have been listed. */
bool mesh_is_listed(const struct mesh *mesh);
/* Decides anew from labels and settings. */
void mesh_decide(struct mesh_pod *pod);

/* addresses.c */
const struct pod_address *mesh_pod_addresses(const struct mesh_pod *pod, size_t *ret_count);
/* What the pod's object to be names, compared with what is known: the sandbox may be doubted afterwards. */
void mesh_addresses_reported(struct mesh_pod *pod, const struct pod *put);
/* Of a doubted sandbox: where its namespace is held, and all that is reported is configured there, that is the pod's from now
 * on. Else the pod is looked for. */
void mesh_addresses_settle(struct mesh_pod *pod);
/* What is reported is in the namespace that is held: it is the pod's, and what else is configured there of what it had. */
void mesh_addresses_take(struct mesh_pod *pod);

/* mirror.c */
/* A pod was put: a mirror takes over what is known and held of its static pod's sandbox. */
void mesh_mirror_seen(struct mesh_pod *pod);
/* Seconds for which a mirror pod that is gone is not released, since it may come again; 0: none. */
double mesh_mirror_wait(const struct mesh_pod *pod);

/* missed.c */
/* Reads the pod, which the last list did not name, from the source. */
void mesh_missed_read(struct mesh_pod *pod);
/* It is known now whether it is there. */
void mesh_missed_is_over(struct mesh_pod *pod);

/* queue.c */
void mesh_queue(struct mesh_pod *pod);
void mesh_queue_after(struct mesh_pod *pod, double seconds);
void mesh_log(const struct mesh_pod *pod, enum log_level level, const char *step, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void mesh_event(const struct mesh_pod *pod, bool is_warning, const char *reason, const char *message);
/* Seconds before the next try: `least`, doubled with each failure so far, `most` at the most. */
double mesh_retry_wait(double least, double most, unsigned int failures);
/* Sets (empty: clears) the error that people are shown, counts it, logs it when it is another one. */
void mesh_failed(struct mesh_pod *pod, enum metrics_step step, const struct error *error);
void mesh_succeeded(struct mesh_pod *pod);
/* Forgets an error of this step; one of another step stands. */
void mesh_step_succeeded(struct mesh_pod *pod, enum metrics_step step);
void mesh_arm(struct event *event, double seconds);

/* mesh.c */
/* Where nothing but the pod's own fault holds the tunnel's snapshot, let it go. */
void mesh_consider_snapshot(struct mesh *mesh);

/* release_all.c: tells when nothing is left to be released. */
void mesh_release_count_left(struct mesh *mesh);

/* probes.c */
int mesh_probes_open(struct mesh *mesh, struct error *error);
/* The host's set of probe addresses, which a successor may own by now: then nothing is done, and nothing is held. */
int mesh_probe_put(struct mesh_pod *pod, struct error *error);
void mesh_probe_remove(struct mesh_pod *pod);
/* Of a pod that starts outside. Its addresses may have been those of one whose end is not known yet. */
void mesh_probe_give_away(struct mesh *mesh, const struct attachment *attachment);
bool mesh_probe_holds(const struct mesh_pod *pod);
/* Takes away what an earlier run left and no pod claims. */
int mesh_probes_prune(struct mesh *mesh, struct error *error);

/* reconcile.c: does the next steps of one pod. The pod may be gone afterwards. */
void mesh_reconcile(struct mesh_pod *pod);
enum mesh_state mesh_state_of(const struct mesh_pod *pod);
/* Of the ways in and out that were under way for the pod, none is any more. */
void mesh_begin_anew(struct mesh_pod *pod);
/* The pod has another sandbox by now than the one that is known. */
void mesh_leave_sandbox(struct mesh_pod *pod);
/* Whether the pod has anything of the mesh in or about it. */
bool mesh_has_traces(const struct mesh_pod *pod);

/* tunnel.c */
/* Asks the tunnel to take the pod, whose namespace is held. */
int mesh_tunnel_add(struct mesh_pod *pod, struct error *error);
/* Asks it to let go of the pod. Where that can't even be asked for, the pod needs an Add or a Del still. */
void mesh_tunnel_delete(struct mesh_pod *pod);
void mesh_tunnel_answered(void *data, enum tunnel_request_kind kind, const char *uid, enum tunnel_outcome outcome,
			  const struct error *error);
void mesh_tunnel_snapshot(void *data, struct tunnel_snapshot *snapshot);
void mesh_tunnel_connections_changed(void *data, size_t count);

/* families.c */
enum mesh_families {
	MESH_FAMILIES_SERVED,
	MESH_FAMILIES_REFUSED_IN_PART, /* the tunnel listens in one of the pod's families only, the other's redirects lead
					  nowhere */
	MESH_FAMILIES_REFUSED,	       /* the pod has addresses of no other family than that */
};
/* Looks where the tunnel, which has accepted the pod, listens in it. `ret_words` is filled unless all is served. */
enum mesh_families mesh_look_at_families(const struct mesh_pod *pod, const struct redirect *redirect, struct error *ret_words);

/* sandbox.c */
/* Holds the namespace `netns` (duplicated): opens the session and the watch. */
int sandbox_hold_unseen(struct mesh_pod *pod, int netns, struct error *error);
/* The same, and looks what stands. */
int sandbox_hold(struct mesh_pod *pod, int netns, struct error *error);
/* Opens a namespace by the path that it has for the runtime. ENOENT: the path leads to another namespace by now. */
int sandbox_open_path(const struct mesh *mesh, const char *path, struct netns_id expected, struct error *error, int *ret_netns);
/* Opens the remembered path where it still leads to the remembered namespace, and holds it. ENOENT: there is none any more. */
int sandbox_reopen(struct mesh_pod *pod, struct error *error);
bool sandbox_is_held(const struct sandbox *sandbox);
/* Takes over what an ADD told of the sandbox; does not open it. Another interface of the same container adds its addresses.
 * -1: no memory. */
int sandbox_remember(struct mesh_pod *pod, const struct attachment *attachment);
/* Lets the namespace go; rules in it stay. What is known of it (id, path, addresses) stays too. */
void sandbox_let_go(struct mesh_pod *pod);
/* Forgets all of it. */
void sandbox_forget(struct mesh_pod *pod);
int sandbox_look(struct mesh_pod *pod, struct error *error);
int sandbox_apply(struct mesh_pod *pod, enum redirect_stage stage, const struct redirect *redirect, struct error *error);
int sandbox_remove(struct mesh_pod *pod, struct error *error);
/* take_over.c: rules of istio-cni in the sandbox become ours; none there is no error. And those on the host, said in the log.
 */
int sandbox_take_over(struct mesh_pod *pod, struct error *error);
void mesh_take_over_host(struct mesh *mesh);
/* What should be in force: before the first comparison what is wanted, so that an earlier run's rules are adopted where they
 * agree. */
const struct redirect *sandbox_expected(const struct mesh_pod *pod);
/* Compares and puts right what somebody else changed. */
int sandbox_repair(struct mesh_pod *pod, struct error *error);
/* Closes at once what was let go and is still open; sandbox_close_due closes what is so for a second. */
void sandbox_close_all(struct mesh *mesh);
void sandbox_close_due(evutil_socket_t fd, short what, void *data);

/* annotate.c: makes the annotation `value` (NULL: none). True: it is so already, or nothing can be done about it any more. */
bool mesh_annotate(struct mesh_pod *pod, const char *value);
void mesh_annotation_seen(struct mesh_pod *pod);
void mesh_annotation_cancel(struct mesh_pod *pod);

/* locate.c */
void mesh_locate_soon(struct mesh_pod *pod);
void mesh_locate(evutil_socket_t fd, short what, void *data);
/* Looks once at what stands in every pod whose namespace can be told. */
void mesh_look_around(struct mesh *mesh);

/* remember.c */
void mesh_remember_enrolled(struct mesh *mesh);
/* Whether a restart would find the pod's namespace, even if its object is gone by then. False: it is being written down, and
 * has its turn again when that is done, or has failed. */
bool mesh_remember_entering(struct mesh_pod *pod);
void mesh_remember_outside(struct mesh *mesh);
void mesh_save(evutil_socket_t fd, short what, void *data);
/* Reads what an earlier run left. */
void mesh_recall(struct mesh *mesh);
/* Removes attachments of sandboxes that went without a DEL: a runtime that lost them calls none, nor does one whose chain
 * lacked us just then. */
void mesh_prune_attachments(evutil_socket_t fd, short what, void *data);
/* Holds pods of the mesh whose ADD another agent answered after that. */
void mesh_recall_late(struct mesh *mesh);

/* arrival.c */
/* Something changed that ADDs may be waiting for. */
void mesh_arrivals_look(struct mesh *mesh);
/* The tunnel has answered, or can't, for the pod that arrives. */
void mesh_arrival_tunnel(struct mesh_arrival *arrival, enum tunnel_outcome outcome, const struct error *error);
void mesh_arrivals_end(struct mesh *mesh);
/* The same, to a successor. */
void mesh_arrivals_hand_on(struct mesh *mesh);

#endif
