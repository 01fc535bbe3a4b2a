/* A dump of nftables, as verify reads it. The input is netlink messages one after the other; each question of verify is
 * answered with those of the kind that it asked for. The kernel is not asked: nft_dump and route_verify are replaced by the
 * linker (see FUZZ_WRAPS in the Makefile). */
#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/nft.h"
#include "ambient/redirect.h"
#include "lib/redirect_session.h"
#include "tests/fuzz/fuzz.h"

static const uint8_t *messages;
static size_t messages_size;

int __wrap_nft_dump(struct nft_socket *socket, uint16_t type, uint16_t family, const char *table, const char *set,
		    mnl_cb_t callback, void (*restart)(void *), void *data, struct error *error);
int __wrap_route_verify(struct nl_sock *socket, bool ipv6, struct error *error, char *ret_difference, size_t size);

int __wrap_nft_dump(struct nft_socket *socket, uint16_t type, uint16_t family, const char *table, const char *set,
		    mnl_cb_t callback, void (*restart)(void *), void *data, struct error *error)
{
	(void)socket, (void)family, (void)table, (void)set, (void)restart;
	size_t at = 0;
	while (messages_size - at >= NLMSG_HDRLEN) {
		struct nlmsghdr header;
		memcpy(&header, messages + at, sizeof header);
		if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > messages_size - at)
			break;
		/* The answers to GETx are NEWx, one less. libmnl reads whole structs, as the kernel sends them. */
		if (header.nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | (type - 1)) &&
		    header.nlmsg_len >= NLMSG_HDRLEN + sizeof(struct nfgenmsg)) {
			cleanup_free struct nlmsghdr *copy = malloc(header.nlmsg_len);
			memcpy(copy, messages + at, header.nlmsg_len);
			if (callback(copy, data) < 0)
				return error_set(error, 71 /* EPROTO */, "cannot read the nftables ruleset");
		}
		at += NLMSG_ALIGN(header.nlmsg_len) < messages_size - at ? NLMSG_ALIGN(header.nlmsg_len) : messages_size - at;
	}
	return 0;
}

int __wrap_route_verify(struct nl_sock *socket, bool ipv6, struct error *error, char *ret_difference, size_t size)
{
	(void)socket, (void)ipv6, (void)error, (void)size;
	ret_difference[0] = '\0';
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct address_range range = { .family = AF_INET, .prefix_length = 8 };
	struct port_range port = { 1, 9 };
	cleanup_redirect struct redirect redirect;
	struct redirect_session session = { 0 };
	redirect_init(&redirect);
	/* Given back before the clean-up: they are not malloc'ed. */
	inet_pton(AF_INET, "10.0.0.0", &range.ipv4);
	redirect.exclude.outbound_ports = &port;
	redirect.exclude.outbound_ranges = &range;
	redirect.exclude.outbound_ports_count = redirect.exclude.outbound_ranges_count = 1;
	messages = data;
	messages_size = size;
	for (enum redirect_stage stage = REDIRECT_STAGE_GUARD; stage <= REDIRECT_STAGE_FULL; stage++) {
		struct error error = { 0 };
		struct redirect_difference difference = { .text = "" };
		if (redirect_verify(&session, &redirect, stage, &error, &difference) < 0)
			HOLDS(error_is_set(&error));
	}
	redirect.exclude.outbound_ports = NULL;
	redirect.exclude.outbound_ranges = NULL;
	redirect.exclude.outbound_ports_count = redirect.exclude.outbound_ranges_count = 0;
	return 0;
}
