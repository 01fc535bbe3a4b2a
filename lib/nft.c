/* nftables transactions and dumps. See nft.h.
 *
 * nfnetlink handles a batch inside sendmsg(2): when it returns, every answer is in the socket's queue. So reading never
 * waits, and a queue that is empty means that nothing more comes. The last object asks for an acknowledgement (old kernels
 * ignore the flag on BATCH_END); messages that failed answer in any case. */
#include "ambient/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"

/* libnftnl writes attributes without looking at the end of the buffer: the largest message (512 elements of 16 byte keys)
 * stays far below this. */
#define MESSAGE_MAX 65536

struct nft_socket {
	struct mnl_socket *netlink;
	uint32_t sequence;
};

struct batch_message {
	size_t offset;
	const char *kind; /* "rule" */
	char name[64];
};

struct nft_batch {
	struct nft_socket *socket;
	char *buffer;
	size_t length, capacity;
	uint32_t first_sequence;
	struct batch_message *messages; /* in the order of their sequence numbers */
	size_t messages_count, messages_capacity;
	int failed; /* errno of the first failure while filling */
	char failed_what[96];
};

int nft_socket_open(struct error *error, struct nft_socket **ret_socket)
{
	cleanup_free struct nft_socket *socket = calloc(1, sizeof *socket);
	if (!socket)
		return error_set(error, ENOMEM, "cannot open an nftables socket");

	socket->netlink = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!socket->netlink)
		return error_set(error, errno, "cannot open an nftables socket%s",
				 errno == EPROTONOSUPPORT ? " (the kernel lacks CONFIG_NETFILTER_NETLINK)" : "");
	if (mnl_socket_bind(socket->netlink, 0, MNL_SOCKET_AUTOPID) < 0) {
		error_set(error, errno, "cannot bind an nftables socket");
		mnl_socket_close(socket->netlink);
		return -1;
	}
	/* Both are comfort: without them errors are longer and less precise. */
	int on = 1;
	mnl_socket_setsockopt(socket->netlink, NETLINK_EXT_ACK, &on, sizeof on);
	mnl_socket_setsockopt(socket->netlink, NETLINK_CAP_ACK, &on, sizeof on);
	socket->sequence = 1;
	*ret_socket = steal_pointer(socket);
	return 0;
}

void nft_socket_close(struct nft_socket *socket)
{
	if (!socket)
		return;
	mnl_socket_close(socket->netlink);
	free(socket);
}

uint32_t nft_socket_port(const struct nft_socket *socket)
{
	return mnl_socket_get_portid(socket->netlink);
}

/* What is left of an answer must not be taken for the answer to the next request, and the kernel makes no new dump before the
 * last one is read (EBUSY). It makes each part of one as it is read, so that an empty queue is the end. errno is kept. */
static void drop_answers(struct nft_socket *socket)
{
	char buffer[32768];
	int saved = errno;
	while (recv(mnl_socket_get_fd(socket->netlink), buffer, sizeof buffer, MSG_DONTWAIT) > 0)
		;
	errno = saved;
}

/* Sends one request and hands its answers to `callback`. 0, or -1 with errno. */
static int request(struct nft_socket *socket, struct nlmsghdr *header, bool many, mnl_cb_t callback, void *data)
{
	char buffer[32768];
	uint32_t port = mnl_socket_get_portid(socket->netlink);

	if (mnl_socket_sendto(socket->netlink, header, header->nlmsg_len) < 0)
		return -1;
	for (;;) {
		ssize_t received = mnl_socket_recvfrom(socket->netlink, buffer, sizeof buffer);
		if (received < 0 && errno == EINTR)
			continue;
		/* EINTR: a commit interrupted the dump. ENOBUFS: something was lost. */
		int result = received < 0 ? -1 : mnl_cb_run(buffer, (size_t)received, header->nlmsg_seq, port, callback, data);
		if (result < 0) {
			drop_answers(socket);
			return -1;
		}
		if (result == MNL_CB_STOP || !many)
			return 0;
	}
}

static int read_generation(const struct nlmsghdr *header, void *data)
{
	const struct nlattr *attribute;
	mnl_attr_for_each (attribute, header, sizeof(struct nfgenmsg)) {
		if (mnl_attr_get_type(attribute) == NFTA_GEN_ID && mnl_attr_get_payload_len(attribute) == sizeof(uint32_t))
			*(uint32_t *)data = ntohl(mnl_attr_get_u32(attribute));
	}
	return MNL_CB_OK;
}

int nft_generation(struct nft_socket *socket, struct error *error, uint32_t *ret_generation)
{
	char buffer[64];
	uint32_t generation = 0;
	struct nlmsghdr *header = nftnl_nlmsg_build_hdr(buffer, NFT_MSG_GETGEN, AF_UNSPEC, 0, socket->sequence++);
	if (request(socket, header, false, read_generation, &generation) < 0) {
		const char *hint = errno == EINVAL || errno == EOPNOTSUPP ? " (the kernel lacks CONFIG_NF_TABLES)" : "";
		return error_set(error, errno, "cannot read the nftables generation%s", hint);
	}
	*ret_generation = generation;
	return 0;
}

int nft_dump(struct nft_socket *socket, uint16_t type, uint16_t family, const char *table, const char *set, mnl_cb_t callback,
	     void (*restart)(void *), void *data, struct error *error)
{
	char buffer[512];
	/* Somebody who commits all the time must not hold us for ever. */
	for (int attempt = 0; attempt < 16; attempt++) {
		struct nlmsghdr *header = nftnl_nlmsg_build_hdr(buffer, type, family, NLM_F_DUMP, socket->sequence++);
		/* NFTA_{CHAIN,RULE,SET,SET_ELEM_LIST}_TABLE are all 1, NFTA_SET_ELEM_LIST_SET is 2. */
		if (table)
			mnl_attr_put_strz(header, NFTA_RULE_TABLE, table);
		if (set)
			mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set);
		if (request(socket, header, true, callback, data) == 0)
			return 0;
		if (errno != EINTR)
			return error_set(error, errno, "cannot read the nftables ruleset");
		if (restart)
			restart(data);
	}
	return error_set(error, EINTR, "cannot read the nftables ruleset: it changes all the time");
}

int nft_request(struct nft_socket *socket, struct nlmsghdr *header, struct error *error)
{
	header->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	header->nlmsg_seq = socket->sequence++;
	if (request(socket, header, false, NULL, NULL) < 0)
		return error_set(error, errno, "the kernel refused a netfilter request");
	return 0;
}

int nft_batch_new(struct nft_socket *socket, struct error *error, struct nft_batch **ret_batch)
{
	struct nft_batch *batch = calloc(1, sizeof *batch);
	if (!batch)
		return error_set(error, ENOMEM, "cannot start an nftables transaction");
	batch->socket = socket;
	batch->capacity = MESSAGE_MAX + 16384;
	batch->buffer = malloc(batch->capacity);
	if (!batch->buffer) {
		free(batch);
		return error_set(error, ENOMEM, "cannot start an nftables transaction");
	}
	batch->first_sequence = socket->sequence++;
	struct nlmsghdr *header = nftnl_batch_begin(batch->buffer, batch->first_sequence);
	batch->length = header->nlmsg_len;
	*ret_batch = batch;
	return 0;
}

void nft_batch_free(struct nft_batch *batch)
{
	if (!batch)
		return;
	free(batch->buffer);
	free(batch->messages);
	free(batch);
}

void nft_batch_freep(struct nft_batch **batch)
{
	nft_batch_free(*batch);
}

void nft_batch_fail(struct nft_batch *batch, int number, const char *what)
{
	if (batch->failed)
		return;
	batch->failed = number;
	snprintf(batch->failed_what, sizeof batch->failed_what, "%s", what);
}

void nft_batch_expect_generation(struct nft_batch *batch, uint32_t generation)
{
	/* Only right behind BATCH_BEGIN, whose attribute it is. */
	struct nlmsghdr *header = (struct nlmsghdr *)batch->buffer;
	if (batch->messages_count != 0) {
		nft_batch_fail(batch, EINVAL, "generation");
		return;
	}
	mnl_attr_put_u32(header, NFNL_BATCH_GENID, htonl(generation));
	batch->length = header->nlmsg_len;
}

/* Starts a message at the end of the buffer, with room for MESSAGE_MAX; NULL once the batch has failed. */
static struct nlmsghdr *start_message(struct nft_batch *batch, uint16_t type, uint16_t family, uint16_t flags, const char *kind,
				      const char *name)
{
	if (batch->failed)
		return NULL;
	if (batch->length + MESSAGE_MAX > batch->capacity) {
		size_t capacity = batch->capacity * 2;
		char *buffer = realloc(batch->buffer, capacity);
		if (!buffer) {
			nft_batch_fail(batch, ENOMEM, kind);
			return NULL;
		}
		batch->buffer = buffer;
		batch->capacity = capacity;
	}
	if (batch->messages_count == batch->messages_capacity) {
		size_t capacity = batch->messages_capacity ? batch->messages_capacity * 2 : 64;
		struct batch_message *messages = realloc(batch->messages, capacity * sizeof *messages);
		if (!messages) {
			nft_batch_fail(batch, ENOMEM, kind);
			return NULL;
		}
		batch->messages = messages;
		batch->messages_capacity = capacity;
	}
	struct batch_message *message = &batch->messages[batch->messages_count++];
	message->offset = batch->length;
	message->kind = kind;
	snprintf(message->name, sizeof message->name, "%s", name);
	return nftnl_nlmsg_build_hdr(batch->buffer + batch->length, type, family, flags, batch->socket->sequence++);
}

static void finish_message(struct nft_batch *batch, const struct nlmsghdr *header)
{
	batch->length += MNL_ALIGN(header->nlmsg_len);
}

void nft_batch_add_table(struct nft_batch *batch, uint16_t family, const struct nftnl_table *table, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_NEWTABLE, family, NLM_F_CREATE, "table", name);
	if (!header)
		return;
	nftnl_table_nlmsg_build_payload(header, table);
	finish_message(batch, header);
}

void nft_batch_delete_table(struct nft_batch *batch, uint16_t family, const struct nftnl_table *table, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_DELTABLE, family, 0, "table", name);
	if (!header)
		return;
	nftnl_table_nlmsg_build_payload(header, table);
	finish_message(batch, header);
}

void nft_batch_add_chain(struct nft_batch *batch, uint16_t family, const struct nftnl_chain *chain, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_NEWCHAIN, family, NLM_F_CREATE, "chain", name);
	if (!header)
		return;
	nftnl_chain_nlmsg_build_payload(header, chain);
	finish_message(batch, header);
}

void nft_batch_add_set(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_NEWSET, family, NLM_F_CREATE, "set", name);
	if (!header)
		return;
	nftnl_set_nlmsg_build_payload(header, set);
	finish_message(batch, header);
}

void nft_batch_add_elements(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_NEWSETELEM, family, NLM_F_CREATE, "elements of set", name);
	if (!header)
		return;
	nftnl_set_elems_nlmsg_build_payload(header, set);
	finish_message(batch, header);
}

void nft_batch_delete_elements(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_DELSETELEM, family, 0, "elements of set", name);
	if (!header)
		return;
	nftnl_set_elems_nlmsg_build_payload(header, set);
	finish_message(batch, header);
}

void nft_batch_add_rule(struct nft_batch *batch, uint16_t family, struct nftnl_rule *rule, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_NEWRULE, family, NLM_F_CREATE | NLM_F_APPEND, "rule", name);
	if (!header)
		return;
	nftnl_rule_nlmsg_build_payload(header, rule);
	finish_message(batch, header);
}

void nft_batch_delete_rule(struct nft_batch *batch, uint16_t family, struct nftnl_rule *rule, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_DELRULE, family, 0, "rule", name);
	if (!header)
		return;
	nftnl_rule_nlmsg_build_payload(header, rule);
	finish_message(batch, header);
}

void nft_batch_delete_chain(struct nft_batch *batch, uint16_t family, const struct nftnl_chain *chain, const char *name)
{
	struct nlmsghdr *header = start_message(batch, NFT_MSG_DELCHAIN, family, 0, "chain", name);
	if (!header)
		return;
	nftnl_chain_nlmsg_build_payload(header, chain);
	finish_message(batch, header);
}

const char *nft_kernel_option(const char *expression)
{
	static const struct {
		const char *name, *option;
	} options[] = {
		{ "redir", "CONFIG_NFT_REDIR" },     { "ct", "CONFIG_NFT_CT" },		{ "reject", "CONFIG_NFT_REJECT_INET" },
		{ "nat", "CONFIG_NFT_NAT" },	     { "masq", "CONFIG_NFT_MASQ" },	{ "route", "CONFIG_NF_TABLES" },
		{ "inet", "CONFIG_NF_TABLES_INET" }, { "counter", "CONFIG_NF_TABLES" }, { "lookup", "CONFIG_NF_TABLES" },
		{ "bitwise", "CONFIG_NF_TABLES" },   { "meta", "CONFIG_NF_TABLES" },
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		if (strcmp(options[i].name, expression) == 0)
			return options[i].option;
	return NULL;
}

static bool is_missing_feature(int number)
{
	return number == ENOENT || number == EOPNOTSUPP || number == EAFNOSUPPORT || number == EPROTONOSUPPORT;
}

/* The offset of the attribute that the kernel complains about, from the extended ack; 0 where it tells none. */
static uint32_t error_offset(const struct nlmsghdr *header)
{
	const struct nlmsgerr *answer = mnl_nlmsg_get_payload(header);
	if (!(header->nlmsg_flags & NLM_F_ACK_TLVS))
		return 0;
	size_t skip = sizeof *answer;
	if (!(header->nlmsg_flags & NLM_F_CAPPED))
		skip += answer->msg.nlmsg_len - sizeof answer->msg;
	if (header->nlmsg_len < MNL_NLMSG_HDRLEN + MNL_ALIGN(skip))
		return 0;
	const struct nlattr *attribute;
	mnl_attr_for_each (attribute, header, (unsigned int)skip) {
		if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_OFFS &&
		    mnl_attr_get_payload_len(attribute) == sizeof(uint32_t))
			return mnl_attr_get_u32(attribute);
	}
	return 0;
}

/* The name of the expression whose list element begins at `offset` of the message; NULL where there is none. */
static const char *expression_at(const struct nft_batch *batch, const struct batch_message *message, uint32_t offset)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)(batch->buffer + message->offset);
	if (offset < MNL_NLMSG_HDRLEN || offset + 2 * sizeof(struct nlattr) > header->nlmsg_len)
		return NULL;
	const struct nlattr *element = (const struct nlattr *)((const char *)header + offset);
	if (mnl_attr_get_type(element) != NFTA_LIST_ELEM || offset + element->nla_len > header->nlmsg_len)
		return NULL;
	const struct nlattr *attribute;
	mnl_attr_for_each_nested (attribute, element) {
		if (mnl_attr_get_type(attribute) == NFTA_EXPR_NAME && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
			return mnl_attr_get_str(attribute);
	}
	return NULL;
}

/* Where the kernel does not tell which expression of a rule it lacks (no extended acks): the options of all of them that are
 * not part of nf_tables itself. Empty: there are none. */
static void list_options(const struct nft_batch *batch, const struct batch_message *message, char *list, size_t size)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)(batch->buffer + message->offset);
	const struct nlattr *attribute, *element, *field;
	size_t used = 0;
	mnl_attr_for_each (attribute, header, sizeof(struct nfgenmsg)) {
		if (mnl_attr_get_type(attribute) != NFTA_RULE_EXPRESSIONS)
			continue;
		mnl_attr_for_each_nested (element, attribute) {
			mnl_attr_for_each_nested (field, element) {
				if (mnl_attr_get_type(field) != NFTA_EXPR_NAME)
					continue;
				const char *option = nft_kernel_option(mnl_attr_get_str(field));
				if (option && strcmp(option, "CONFIG_NF_TABLES") != 0 && !strstr(list, option) && used < size)
					used += (size_t)snprintf(list + used, size - used, "%s%s", used ? " or " : "", option);
			}
		}
	}
}

static int report(const struct nft_batch *batch, const struct nlmsghdr *header, int number, struct error *error)
{
	const struct nlmsgerr *answer = mnl_nlmsg_get_payload(header);
	uint32_t index = answer->msg.nlmsg_seq - batch->first_sequence;

	if (index == 0 || index > batch->messages_count) {
		/* The batch as a whole: not allowed, no nf_tables, another generation. */
		const char *hint = "";
		if (number == EPERM)
			hint = " (CAP_NET_ADMIN in the user namespace of this network namespace is needed)";
		else if (is_missing_feature(number))
			hint = " (the kernel lacks CONFIG_NF_TABLES)";
		return error_set(error, number, "the kernel refused the nftables transaction%s", hint);
	}
	const struct batch_message *message = &batch->messages[index - 1];
	uint32_t offset = error_offset(header);
	const char *expression = expression_at(batch, message, offset);
	const char *option = NULL;
	char options[160] = "";
	if (is_missing_feature(number)) {
		if (expression) {
			option = nft_kernel_option(expression);
		} else if (strcmp(message->kind, "rule") == 0) {
			/* An offset of something else: no expression is missing. */
			if (offset == 0)
				list_options(batch, message, options, sizeof options);
			option = options[0] ? options : NULL;
		} else if (strcmp(message->kind, "table") == 0)
			option = "CONFIG_NF_TABLES_INET";
		else if (strcmp(message->kind, "chain") == 0)
			option = "CONFIG_NFT_NAT";
	}
	return error_set(error, number, "the kernel refused the %s \"%s\"%s%s%s%s%s%s", message->kind, message->name,
			 expression ? " at its expression \"" : "", expression ? expression : "", expression ? "\"" : "",
			 option ? " (the kernel lacks " : "", option ? option : "", option ? ")" : "");
}

/* Reads every answer that waits. The first error counts: what follows it in a batch fails because of it. */
static int read_answers(const struct nft_batch *batch, struct error *error)
{
	int fd = mnl_socket_get_fd(batch->socket->netlink);
	bool answered = false, failed = false;
	for (;;) {
		char buffer[16384];
		ssize_t received = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
		if (received < 0 && errno == EINTR)
			continue;
		if (received < 0 && errno == ENOBUFS) {
			/* Answers were dropped: there were more errors than room for them. */
			failed = true;
			answered = true;
			error_set(error, ENOBUFS, "the kernel refused the nftables transaction");
			continue;
		}
		if (received < 0)
			break;
		int left = (int)received;
		for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; mnl_nlmsg_ok(header, left);
		     header = mnl_nlmsg_next(header, &left)) {
			if (header->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(header) < sizeof(struct nlmsgerr))
				continue;
			const struct nlmsgerr *answer = mnl_nlmsg_get_payload(header);
			/* An answer to an earlier request on this socket is none of ours. */
			if (answer->msg.nlmsg_seq - batch->first_sequence > batch->messages_count + 1)
				continue;
			answered = true;
			if (answer->error != 0 && !failed) {
				failed = true;
				report(batch, header, -answer->error, error);
			}
		}
	}
	if (!answered)
		return error_set(error, EPROTO, "the kernel did not answer the nftables transaction");
	return failed ? -1 : 0;
}

int nft_batch_commit(struct nft_batch *batch, struct error *error)
{
	if (batch->failed)
		return error_set(error, batch->failed, "cannot build the nftables %s", batch->failed_what);
	if (batch->messages_count == 0)
		return 0;

	struct nlmsghdr *last = (struct nlmsghdr *)(batch->buffer + batch->messages[batch->messages_count - 1].offset);
	last->nlmsg_flags |= NLM_F_ACK;
	struct nlmsghdr *end = nftnl_batch_end(batch->buffer + batch->length, batch->socket->sequence++);
	batch->length += MNL_ALIGN(end->nlmsg_len);

	int fd = mnl_socket_get_fd(batch->socket->netlink);
	if (batch->length > 128 * 1024) {
		/* The kernel doubles the value for its own bookkeeping; FORCE passes net.core.wmem_max with CAP_NET_ADMIN. */
		int size = (int)batch->length + 4096;
		if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
			setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	}
	ssize_t sent;
	do
		sent = mnl_socket_sendto(batch->socket->netlink, batch->buffer, batch->length);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return error_set(error, errno, "cannot send the nftables transaction (%zu bytes)", batch->length);
	return read_answers(batch, error);
}
