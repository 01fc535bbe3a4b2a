/* The API server's address. See resolve.h. */
#include "installer/kube/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/dns.h>
#include <event2/util.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESSES_MAX 16
#define LIFETIME_SECONDS 60

/* A lookup under way. It outlives its resolver until libevent has called back for the last time. */
struct lookup {
	struct kube_resolver *resolver; /* NULL: it is gone */
};

struct kube_resolver {
	struct event_base *base;
	char *host;
	bool is_address;
	void (*changed)(void *data);
	void *data;

	struct evdns_base *dns; /* there during a lookup */
	struct lookup *lookup;
	struct event *soon; /* what a lookup has found is told from the loop, where libevent's resolver can be freed */
	char addresses[ADDRESSES_MAX][INET6_ADDRSTRLEN];
	size_t count, current;
	struct timeval found; /* when */
	struct error error;
};

static void say_changed(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	struct kube_resolver *resolver = data;
	if (resolver->dns)
		evdns_base_free(resolver->dns, 0);
	resolver->dns = NULL;
	resolver->changed(resolver->data);
}

int kube_resolver_new(struct event_base *base, const char *host, void (*changed)(void *data), void *data, struct error *error,
		      struct kube_resolver **ret_resolver)
{
	struct kube_resolver *resolver = calloc(1, sizeof *resolver);
	if (!resolver || !(resolver->host = strdup(host)) || !(resolver->soon = evtimer_new(base, say_changed, resolver))) {
		kube_resolver_free(resolver);
		return error_set(error, ENOMEM, "cannot prepare to resolve %s", host);
	}
	resolver->base = base;
	resolver->changed = changed;
	resolver->data = data;
	struct in6_addr address;
	resolver->is_address = inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
	*ret_resolver = resolver;
	return 0;
}

void kube_resolver_free(struct kube_resolver *resolver)
{
	if (!resolver)
		return;
	/* A lookup under way fails by this, from the loop. */
	if (resolver->lookup)
		resolver->lookup->resolver = NULL;
	if (resolver->dns)
		evdns_base_free(resolver->dns, 1);
	if (resolver->soon)
		event_free(resolver->soon);
	free(resolver->host);
	free(resolver);
}

static void found(int result, struct evutil_addrinfo *list, void *data)
{
	struct lookup *lookup = data;
	struct kube_resolver *resolver = lookup->resolver;
	free(lookup);
	if (!resolver) {
		if (list)
			evutil_freeaddrinfo(list);
		return;
	}
	resolver->lookup = NULL;
	resolver->count = resolver->current = 0;
	for (struct evutil_addrinfo *entry = list; entry && resolver->count < ADDRESSES_MAX; entry = entry->ai_next) {
		const void *address = entry->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)entry->ai_addr)->sin_addr
								  : (void *)&((struct sockaddr_in6 *)entry->ai_addr)->sin6_addr;
		if ((entry->ai_family == AF_INET || entry->ai_family == AF_INET6) &&
		    inet_ntop(entry->ai_family, address, resolver->addresses[resolver->count], INET6_ADDRSTRLEN))
			resolver->count++;
	}
	if (list)
		evutil_freeaddrinfo(list);
	event_base_gettimeofday_cached(resolver->base, &resolver->found);
	if (resolver->count == 0)
		error_set(&resolver->error, 0, "cannot resolve the API server's name %s: %s", resolver->host,
			  result ? evutil_gai_strerror(result) : "it has no address");
	static const struct timeval at_once = { 0 };
	evtimer_add(resolver->soon, &at_once);
}

static void look_up(struct kube_resolver *resolver)
{
	if (resolver->lookup || resolver->dns)
		return;
	resolver->error = (struct error){ 0 };
	/* Made anew for each lookup: a resolv.conf that has changed counts, and nothing stays open in between. */
	resolver->dns = evdns_base_new(resolver->base, EVDNS_BASE_INITIALIZE_NAMESERVERS);
	struct lookup *lookup = resolver->dns ? malloc(sizeof *lookup) : NULL;
	if (!lookup) {
		error_set(&resolver->error, ENOMEM, "cannot resolve the API server's name %s", resolver->host);
		return;
	}
	*lookup = (struct lookup){ .resolver = resolver };
	resolver->lookup = lookup;
	struct evutil_addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	evdns_getaddrinfo(resolver->dns, resolver->host, NULL, &hints, found, lookup);
}

const char *kube_resolver_address(struct kube_resolver *resolver)
{
	if (resolver->is_address)
		return resolver->host;
	struct timeval now;
	event_base_gettimeofday_cached(resolver->base, &now);
	bool is_old = now.tv_sec - resolver->found.tv_sec > LIFETIME_SECONDS || now.tv_sec < resolver->found.tv_sec;
	if (resolver->count > 0 && !is_old)
		return resolver->addresses[resolver->current];
	if (!error_is_set(&resolver->error))
		look_up(resolver);
	return NULL;
}

bool kube_resolver_take_error(struct kube_resolver *resolver, struct error *error)
{
	if (!error_is_set(&resolver->error))
		return false;
	*error = resolver->error;
	resolver->error = (struct error){ 0 };
	return true;
}

void kube_resolver_failed(struct kube_resolver *resolver, const char *address)
{
	if (resolver->is_address || resolver->count == 0 || strcmp(address, resolver->addresses[resolver->current]) != 0)
		return;
	if (++resolver->current == resolver->count)
		resolver->count = resolver->current = 0;
}
