/* The kernel's refusal in words. See nft_parts.h. */
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>

#include "lib/nft_parts.h"

/* The kernel's configuration option that an expression ("redir"), or a chain type ("nat") needs; NULL where unknown. */
static const char *kernel_option(const char *expression)
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
				const char *option = kernel_option(mnl_attr_get_str(field));
				if (option && strcmp(option, "CONFIG_NF_TABLES") != 0 && !strstr(list, option) && used < size)
					used += (size_t)snprintf(list + used, size - used, "%s%s", used ? " or " : "", option);
			}
		}
	}
}

int nft_batch_report(const struct nft_batch *batch, const struct nlmsghdr *header, int number, struct error *error)
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
			option = kernel_option(expression);
		} else if (strcmp(message->kind, "rule") == 0) {
			/* An offset of something else: no expression is missing. */
			if (offset == 0)
				list_options(batch, message, options, sizeof options);
			option = options[0] ? options : NULL;
		} else if (strcmp(message->kind, "table") == 0)
			option = "CONFIG_NF_TABLES_INET";
		else if (strcmp(message->kind, "chain") == 0)
			option = "CONFIG_NFT_NAT";
		else if (strcmp(message->kind, "object") == 0)
			option = "CONFIG_NF_CONNTRACK_TIMEOUT";
	}
	return error_set(error, number, "the kernel refused the %s \"%s\"%s%s%s%s%s%s", message->kind, message->name,
			 expression ? " at its expression \"" : "", expression ? expression : "", expression ? "\"" : "",
			 option ? " (the kernel lacks " : "", option ? option : "", option ? ")" : "");
}
