/* All that is different between the kernel's rules and those that should be there, as lines of a diff: "-" is missing, "+"
 * should not be there, "!" is another than it should be. A rule of ours is written as nft writes it; one that nobody knows as
 * libnftnl does, its expressions in brackets. The sentence of redirect_verify names the first of them and decides; this is for
 * a person's eyes. */
#include "ambient/redirect.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/rule.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "redirect_dump.h"
#include "redirect_session.h"

struct diff {
	FILE *out;
	const struct ruleset *ruleset;
	const struct redirect_dump *dump;
	const char *chain;
	bool has_chain; /* its name was written */
};

static void close_text(FILE **out)
{
	if (*out)
		fclose(*out);
}

static void begin_line(struct diff *diff, char sign)
{
	if (!diff->has_chain)
		fprintf(diff->out, "  chain %s\n", diff->chain);
	diff->has_chain = true;
	fprintf(diff->out, "%c   ", sign);
}

static void print_expected(struct diff *diff, const struct ruleset_rule *rule)
{
	char text[512];
	ruleset_print_rule(diff->ruleset, rule, text, sizeof text);
	begin_line(diff, '-');
	fprintf(diff->out, "%s comment \"%s\"\n", text, rule->name);
}

/* Whatever it holds, it is one line. */
static void print_found(struct diff *diff, const struct nftnl_rule *rule)
{
	char text[1024] = "";
	nftnl_rule_snprintf(text, sizeof text, rule, NFTNL_OUTPUT_DEFAULT, 0);
	begin_line(diff, '+');
	/* Its first line names table and chain. */
	const char *from = strstr(text, "[");
	for (const char *c = from ? from : ""; *c; c++) {
		if (*c == '\n' || ((*c == ' ' || *c == '\t') && (c[1] == ' ' || c[1] == '\n' || c[1] == '\0')))
			continue;
		fputc((unsigned char)*c < 0x20 ? ' ' : *c, diff->out);
	}
	fprintf(diff->out, "%s\n", from ? "" : "a rule that is not understood");
}

/* The next rule found, from `position` on, that is `rule`; -1: none. */
static long find(const struct diff *diff, const struct ruleset_rule *rule, size_t position)
{
	const struct nftnl_rule *found;
	for (; (found = redirect_dump_rule(diff->dump, diff->chain, position)); position++)
		if (redirect_dump_same_rule(diff->ruleset, rule, found))
			return (long)position;
	return -1;
}

static void diff_rules(struct diff *diff, enum ruleset_chain_id id)
{
	const struct nftnl_rule *found;
	size_t position = 0;
	for (size_t i = 0; i < diff->ruleset->rules_count; i++) {
		const struct ruleset_rule *rule = &diff->ruleset->rules[i];
		if (rule->chain != id)
			continue;
		long place = find(diff, rule, position);
		if (place < 0) {
			print_expected(diff, rule);
			continue;
		}
		while (position < (size_t)place)
			print_found(diff, redirect_dump_rule(diff->dump, diff->chain, position++));
		position++;
	}
	while ((found = redirect_dump_rule(diff->dump, diff->chain, position++)))
		print_found(diff, found);
}

static void diff_chains(struct diff *diff)
{
	for (enum ruleset_chain_id id = 0; id < CHAIN_COUNT; id++) {
		const struct ruleset_chain *expected = &ruleset_chains[id];
		if (!diff->ruleset->chains[id])
			continue;
		diff->chain = expected->name;
		diff->has_chain = false;
		if (!redirect_dump_chain(diff->dump, expected->name)) {
			fprintf(diff->out, "- chain %s { type %s hook %s priority %d; policy accept; }\n", expected->name,
				expected->type, expected->hook_name, expected->priority);
			diff->has_chain = true;
		}
		diff_rules(diff, id);
	}
	for (size_t i = 0; i < diff->dump->chains_count; i++) {
		const char *name = nftnl_chain_get_str(diff->dump->chains[i], NFTNL_CHAIN_NAME);
		if (!ruleset_has_chain(diff->ruleset, name))
			fprintf(diff->out, "+ chain %s\n", name);
	}
}

int redirect_diff(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
		  const struct redirect_difference *difference, struct error *error, char **ret_text)
{
	cleanup_ruleset struct ruleset ruleset = { 0 };
	cleanup_redirect_dump struct redirect_dump dump = { 0 };
	cleanup_free char *text = NULL;
	size_t size = 0;
	if (ruleset_make(redirect, stage, error, &ruleset) < 0 || redirect_dump_read(session, error, &dump) < 0)
		return -1;
	__attribute__((cleanup(close_text))) FILE *out = open_memstream(&text, &size);
	if (!out)
		return error_set(error, errno, "cannot compare the rules");
	errno = 0;
	struct diff diff = { .out = out, .ruleset = &ruleset, .dump = &dump };
	if (!dump.has_table)
		fputs("- table inet " REDIRECT_TABLE "\n", out);
	else
		diff_chains(&diff);
	/* What is no rule (a set, a route, a chain's hook) has its sentence alone. */
	if (ftell(out) == 0)
		fprintf(out, "! %s\n", difference->text);
	if (errno == ENOMEM || fflush(out) != 0)
		return error_set(error, ENOMEM, "cannot compare the rules");
	fclose(out);
	out = NULL;
	*ret_text = steal_pointer(text);
	return 0;
}
