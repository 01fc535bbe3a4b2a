/* A dump of nftables, as verify reads it. The input is netlink messages one after the other; each question of verify is
 * answered with those of the kind that it asked for. The kernel is not asked: nft_dump and route_verify are replaced by the
 * linker (see FUZZ_WRAPS in the Makefile).
 *
 * What a kernel sends is whole: libnftnl relies on every expression having a name. So inputs are changed within that: messages
 * are dropped, doubled and moved, attributes get other values and types. */
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

/* The messages of an input, as far as they are whole. */
static size_t list_messages(const uint8_t *data, size_t size, size_t *offsets, size_t max)
{
	size_t count = 0;
	for (size_t at = 0; count < max && size - at >= NLMSG_HDRLEN;) {
		struct nlmsghdr header;
		memcpy(&header, data + at, sizeof header);
		size_t aligned = NLMSG_ALIGN((size_t)header.nlmsg_len);
		if (header.nlmsg_len < NLMSG_HDRLEN + sizeof(struct nfgenmsg) || aligned > size - at)
			break;
		offsets[count++] = at;
		at += aligned;
	}
	return count;
}

static uint32_t next_random(uint32_t *random)
{
	*random = *random * 1664525 + 1013904223;
	return *random >> 8;
}

/* nf_tables marks only some attributes as nested; the others are known by their form. */
static bool holds_attributes(const uint8_t *data, size_t size)
{
	size_t at = 0;
	while (size - at >= sizeof(struct nlattr)) {
		struct nlattr attribute;
		memcpy(&attribute, data + at, sizeof attribute);
		size_t aligned = NLMSG_ALIGN((size_t)attribute.nla_len);
		if (attribute.nla_len < sizeof attribute || aligned > size - at || (attribute.nla_type & NLA_TYPE_MASK) > 63)
			return false;
		at += aligned;
	}
	return at == size && size > 0;
}

/* Goes down at random to an attribute that holds no others, and changes its value. */
static void change_attribute(uint8_t *data, size_t size, uint32_t *random)
{
	size_t offsets[256], count = 0;
	for (size_t at = 0; count < 256 && size - at >= sizeof(struct nlattr);) {
		struct nlattr attribute;
		memcpy(&attribute, data + at, sizeof attribute);
		size_t aligned = NLMSG_ALIGN((size_t)attribute.nla_len);
		if (attribute.nla_len < sizeof attribute || aligned > size - at)
			break;
		offsets[count++] = at;
		at += aligned;
	}
	if (count == 0)
		return;
	struct nlattr attribute;
	size_t at = offsets[next_random(random) % count];
	memcpy(&attribute, data + at, sizeof attribute);
	size_t length = attribute.nla_len - sizeof attribute;
	if (holds_attributes(data + at + sizeof attribute, NLMSG_ALIGN(length)))
		change_attribute(data + at + sizeof attribute, NLMSG_ALIGN(length), random);
	else if (length > 0)
		/* A name stays a string: the last byte is its end. */
		data[at + sizeof attribute + next_random(random) % (length > 1 ? length - 1 : 1)] ^=
			(uint8_t)(1U << next_random(random) % 8);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	size_t offsets[256];
	size_t count = list_messages(data, size, offsets, 256);
	uint32_t random = seed;
	if (count == 0)
		return size;
	size_t at = offsets[next_random(&random) % count];
	struct nlmsghdr header;
	memcpy(&header, data + at, sizeof header);
	size_t length = NLMSG_ALIGN((size_t)header.nlmsg_len);
	switch (next_random(&random) % 8) {
	case 0: /* drop */
		memmove(data + at, data + at + length, size - at - length);
		return size - length;
	case 1: /* double, at the end */
		if (size + length > max_size)
			return size;
		memcpy(data + size, data + at, length);
		return size + length;
	default:
		change_attribute(data + at + NLMSG_HDRLEN + sizeof(struct nfgenmsg),
				 header.nlmsg_len - NLMSG_HDRLEN - sizeof(struct nfgenmsg), &random);
		return size;
	}
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
