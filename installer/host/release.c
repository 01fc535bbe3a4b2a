/* Taking our redirection out of every pod of the node. See release.h.
 *
 * Closing a netfilter socket soon after something was destroyed in its namespace waits for the kernel (12 to 36 ms): sessions
 * are kept and closed together, so that one wait serves many. */
#include "installer/host/release.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/attachment.h"
#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"

#define SESSIONS_MAX 128

struct owner {
	struct netns_id id;
	char *pod, *path;
};

struct release {
	const struct release_places *places;
	release_told told;
	void *data;
	struct owner *owners;
	size_t owners_count;
	struct netns_id *seen;
	size_t seen_count;
	struct redirect_session *sessions[SESSIONS_MAX];
	size_t sessions_count, failed;
};

static void close_sessions(struct release *release)
{
	for (size_t i = 0; i < release->sessions_count; i++)
		redirect_session_close(release->sessions[i]);
	release->sessions_count = 0;
}

/* True for the first time only. */
static bool is_new(struct release *release, const struct netns_id *id)
{
	for (size_t i = 0; i < release->seen_count; i++)
		if (netns_id_equal(release->seen[i], *id))
			return false;
	struct netns_id *grown = realloc(release->seen, (release->seen_count + 1) * sizeof *grown);
	if (!grown)
		return true;
	release->seen = grown;
	grown[release->seen_count++] = *id;
	return true;
}

static void tell(struct release *release, const struct netns_id *id, const char *path, const char *problem)
{
	const char *pod = NULL;
	for (size_t i = 0; i < release->owners_count && !pod; i++)
		if (netns_id_equal(release->owners[i].id, *id))
			pod = release->owners[i].pod;
	if (problem)
		release->failed++;
	release->told(release->data, pod, path, problem);
}

/* Where our table stands, and there only: routes like ours may be another's. */
static void release_one(struct release *release, int netns, const struct netns_id *id, const char *path)
{
	struct error error = { 0 };
	struct redirect_session *session = NULL;
	enum redirect_standing standing = REDIRECT_STANDING_NOTHING;
	if (release->sessions_count == SESSIONS_MAX)
		close_sessions(release);
	if (redirect_session_open(netns, &error, &session) < 0 || redirect_look(session, &error, &standing) < 0 ||
	    (standing != REDIRECT_STANDING_NOTHING && redirect_remove(session, &error) < 0))
		tell(release, id, path, error.message);
	else if (standing != REDIRECT_STANDING_NOTHING)
		tell(release, id, path, NULL);
	if (session)
		release->sessions[release->sessions_count++] = session;
}

/* A namespace that goes meanwhile is no failure. */
static void visit(struct release *release, const char *path)
{
	cleanup_close int netns = -1;
	struct netns_id id, host;
	if (netns_open(path, NULL, &netns) < 0 || netns_identify(netns, NULL, &id) < 0 || !is_new(release, &id) ||
	    netns_refuse_own(netns, NULL) < 0)
		return;
	if (release->places->host_netns >= 0 && netns_identify(release->places->host_netns, NULL, &host) == 0 &&
	    netns_id_equal(id, host))
		return;
	release_one(release, netns, &id, path);
}

static int remember(void *data, struct attachment *attachment, struct error *error)
{
	struct release *release = data;
	if (!attachment->is_enrolled)
		return 0;
	struct owner *grown = realloc(release->owners, (release->owners_count + 1) * sizeof *grown);
	if (!grown)
		return error_set(error, ENOMEM, "cannot read what is remembered");
	release->owners = grown;
	struct owner owner = { .id = attachment->netns,
			       .path = attachment->netns_path ? strdup(attachment->netns_path) : NULL };
	if (attachment->pod_namespace && attachment->pod_name &&
	    asprintf(&owner.pod, "%s/%s", attachment->pod_namespace, attachment->pod_name) < 0)
		owner.pod = NULL;
	grown[release->owners_count++] = owner;
	return 0;
}

/* Visits DIRECTORY/NAME and what is behind it for each name that begins with a digit (processes), or for all. */
static int walk(struct release *release, const char *directory, bool only_numbers, const char *behind, struct error *error)
{
	DIR *stream = opendir(directory);
	if (!stream)
		return error_set(error, errno, "cannot list %s", directory);
	for (const struct dirent *entry; (entry = readdir(stream));) {
		cleanup_free char *path = NULL;
		if (entry->d_name[0] == '.' || (only_numbers && !isdigit((unsigned char)entry->d_name[0])))
			continue;
		if (asprintf(&path, "%s/%s%s", directory, entry->d_name, behind) < 0) {
			path = NULL;
			continue;
		}
		visit(release, path);
	}
	closedir(stream);
	return 0;
}

int release_all(const struct release_places *places, release_told told, void *data, struct error *error)
{
	struct release release = { .places = places, .told = told, .data = data };
	struct error problem = { 0 };
	/* What can't be understood tells no names, but the scan finds the namespace. */
	attachment_list(places->run_dir, remember, NULL, &release, &problem);
	int result = walk(&release, places->proc_dir, true, "/ns/net", error);
	walk(&release, places->netns_dir, false, "", NULL);
	for (size_t i = 0; i < release.owners_count; i++)
		if (release.owners[i].path)
			visit(&release, release.owners[i].path);
	close_sessions(&release);
	for (size_t i = 0; i < release.owners_count; i++) {
		free(release.owners[i].pod);
		free(release.owners[i].path);
	}
	free(release.owners);
	free(release.seen);
	if (result == 0 && release.failed > 0)
		return error_set(error, 0, "%zu pods could not be released", release.failed);
	return result;
}
