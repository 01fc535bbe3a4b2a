"""Products that are broken on purpose, one thing at a time: the judge of the chaos run must see each. One that it passes is a
defect of the judge.

Each is run with seeds 1 to 8 for at most SECONDS each, until a violation; the rest that nothing disturbs may last REST seconds."""
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys

from mutants.tree import ALONE, REPOSITORY, Mutation, Tree

SEEDS = range(1, 9)
SECONDS, REST = 25, 25


@dataclasses.dataclass(frozen=True)
class Broken(Mutation):
    """`tests`: what the violation says, a pattern."""


def broken(claim, sees, file, text, replacement):
    return Broken(claim, file, text, replacement, (sees,))


RULES, ORDER = "lib/redirect_ruleset.c", "installer/mesh/reconcile.c"
PRODUCTS = [
    # Packets.
    broken("what a pod sends to one port goes around the tunnel", "goes around the tunnel", RULES,
           "	/* Row 6. meta l4proto tcp counter redirect to :15001 */",
           '	RULE(ruleset, chain, "left out", REDIRECT_OUTCOME_NONE, tcp_dport(7000), accept_it);'),
    broken("what comes to one port of a pod goes around the tunnel", "goes around the tunnel", RULES,
           "	/* Row 6. meta l4proto tcp counter redirect to :15006 */",
           '	RULE(ruleset, chain, "left out", REDIRECT_OUTCOME_NONE, tcp_dport(7000), accept_it);'),
    broken("a rule of somebody else's before ours is passed over", "goes around the tunnel", "lib/redirect_verify.c",
           "		return DIFFERENT(difference, \"chain %s: a foreign rule stands before rule %zu \\\"%s\\\"\", chain, position + 1,\n"
           "				 rule->name);\n",
           "		return true;\n"),
    broken("a pod that says none is captured all the same", "a pod outside is|traces in a pod outside",
           "installer/mesh/selection.c",
           "		if (!selector_matches(&item->pod, &pod->labels) || !selector_matches(&item->namespace_object, namespace_labels))",
           "		if (!selector_matches(&item->namespace_object, namespace_labels) && !selector_matches(&item->pod, &pod->labels))"),
    broken("the host's probes are not translated", "the host's rules are not there|a probe goes through", "installer/probes/probe_rules.c",
           "	nft_rule_add_snat(&maker, protocol, is_ipv6 ? (const void *)&addresses->ipv6 : &addresses->ipv4);\n", ""),
    broken("a query for a name is not redirected", "names|a name was answered", RULES,
           "	return redirect->dns_capture;\n", "	return false;\n"),
    broken("a pod's annotation of DNS capture is passed over", "names|a name was answered", "installer/mesh/pod_redirect.c",
           "	apply_bool(pod, ANNOTATION_DNS_CAPTURE, &redirect.dns_capture, warning);\n", ""),
    # Connections.
    broken("enrolment cuts connections that are open", "without a cause|in its middle", RULES,
           "	if (redirect->existing_connections == EXISTING_CONNECTIONS_KEEP) {", "	if (false) {"),
    broken("release resets connections that the tunnel carries", "broke without a cause", RULES,
           "		ruleset.chains[CHAIN_OUTPUT_NAT] = true;", "		ruleset.chains[CHAIN_OUTPUT_NAT] = false;"),
    broken("release does not let connections come to their end", "broke without a cause", ORDER,
           "	if (pod->is_drained || most <= 0 ||", "	if (true || pod->is_drained || most <= 0 ||"),
    broken("redirects come before the tunnel has accepted the pod", "could not be opened without a cause|a name was answered by None", ORDER,
           "	bool is_full = pod->is_enrolled || (is_accepted && may_redirect(pod));",
           "	bool is_full = true || (is_accepted && may_redirect(pod));"),
    broken("a snapshot does not name the pods", "could not be opened without a cause|the tunnel does not have it", "installer/mesh/tunnel.c",
           "		if (is_held ? pod->sandbox.standing == REDIRECT_STANDING_NOTHING : !may_be_in)",
           "		if (is_held || !is_held || may_be_in)"),
    broken("a connection to the tunnel's own ports is not reset", "the tunnel's own port", RULES,
           "is_not(mark_is(REDIRECT_TUNNEL_MARK)), is_not(plain(MATCH_CT_STATUS_DNAT)), plain(RESET_TCP));\n\n	/* the same",
           "is_not(mark_is(REDIRECT_TUNNEL_MARK)), is_not(plain(MATCH_CT_STATUS_DNAT)), accept_it);\n\n	/* the same"),
    # The tunnel.
    broken("a release sends no Del", "the tunnel has|own port", ORDER,
           "	if (tunnel_delete(pod->mesh->tunnel, pod->uid, &error) < 0)\n		return failed(pod, METRICS_STEP_TUNNEL, &error);\n"
           "	pod->tunnel = POD_TUNNEL_DELETING;\n	return false;",
           "	pod->tunnel = POD_TUNNEL_DELETED;\n	return true;"),
    broken("a DEL sends no Del", "the tunnel has", "installer/mesh/detach.c",
           "\t\tmesh_tunnel_delete(pod);\n", "\t\tpod->tunnel = POD_TUNNEL_DELETED;\n"),
    broken("an ADD does not wait for the tunnel", "when its ADD had succeeded|its ADD failed|could not be opened without a cause", "installer/mesh/arrival.c",
           "	/* The report is checked while the tunnel opens its listeners. */\n	if (!ask_tunnel(arrival))\n		return;",
           "	ask_tunnel(arrival);\n	mesh_arrival_tunnel(arrival, TUNNEL_ACCEPTED, NULL);\n	return;"),
    # What is left over.
    broken("an attachment stays after its DEL", "attachments", "plugin/sandbox.c",
           "	if (attachment_remove(run_dir, container_id, interface, error) < 0)\n", "	if (false)\n"),
    broken("a pod's address stays in the host's set", "the host's sets have|probed, though outside", "installer/mesh/probes.c",
           "	probe_set_remove(mesh->probes, pod->uid);", ""),
    broken("addresses of a pod that change in place are not followed", "not probed|the host's sets have|a probe goes through|it has lost",
           "installer/mesh/addresses.c", "			pod->sandbox.is_doubted = names_a_change(pod, put);", "			pod->sandbox.is_doubted = false;"),
    broken("each change of a pod's rules leaks a descriptor", "descriptors", "installer/mesh/sandbox.c",
           "	sandbox->standing = stage == REDIRECT_STAGE_FULL ? REDIRECT_STANDING_FULL : REDIRECT_STANDING_GUARD;",
           "	fcntl(2, F_DUPFD_CLOEXEC, 3);\n"
           "	sandbox->standing = stage == REDIRECT_STAGE_FULL ? REDIRECT_STANDING_FULL : REDIRECT_STANDING_GUARD;"),
    broken("a network namespace is not let go", "network namespaces that nobody needs|descriptors", "installer/mesh/sandbox.c",
           "		close(sandbox->netns);\n	sandbox->netns = -1;", "		(void)0;\n	sandbox->netns = -1;"),
    broken("rules and routes stay in a pod that left", "traces in a pod outside", ORDER,
           "		if (sandbox_remove(pod, &error) < 0) {", "		if (false) {"),
    broken("a pod that has ended stays in the mesh", "must have|must be", "installer/mesh/selection.c",
           "	else if (pod->has_ended)", "	else if (false)"),
    # The annotation.
    broken("a patch that was refused is not made again", "annotation None|annotation enabled", "installer/mesh/annotate.c",
           "		metrics->annotation_patches[METRICS_PATCH_FAILED]++;",
           "		metrics->annotation_patches[METRICS_PATCH_FAILED]++;\n		set_text(&pod->annotation, pod->patch_value);"),
    broken("the annotation stays after a release", "annotation enabled", ORDER,
           "		if (pod->object && !mesh_annotate(pod, NULL))\n			return;", ""),
    # What others do.
    broken("a pod's rules are not watched", "does not come to rest|goes around the tunnel", "installer/mesh/sandbox.c",
           "	sandbox->is_suspect = true;\n	sandbox->suspicion = drift->kind;", "	return;"),
    broken("the host's rules are not watched", "not probed|the host's sets have|the host's rules are not there|a probe goes through", "installer/probes/probe_set.c",
           "	if (drift->kind != DRIFT_NFTABLES || drift->port == nft_socket_port(set->socket))", "	if (drift)"),
    broken("a late DEL of the sandbox before releases the pod", "no redirects|goes around the tunnel|could not be opened|answered by None|wanted in: not probed", "installer/mesh/detach.c",
           "					? strcmp(sandbox->container_id, attachment->container_id) == 0",
           "					? attachment->pod_uid && strcmp(pod->uid, attachment->pod_uid) == 0"),
    broken("the conflist is not put right when the primary CNI has rewritten it", "the conflist", "installer/host/host.c",
           "	if (is_interesting)\n		look_again_in(host, BURST);", ""),
]


def run(build, seed):
    """(number of the event, violations), or None. Event 0: it did not come to judge."""
    command = [*ALONE, "nice", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "tests/chaos/test_chaos.py::test_chaos"]
    environment = {"AMBIENT_BUILD": str(build), "CHAOS_SEED": str(seed), "CHAOS_TIME": str(SECONDS), "CHAOS_REST": str(REST), "COLUMNS": "400"}
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                          env={**os.environ, **environment}) as process:
        try:
            told = process.communicate(timeout=8 * SECONDS)[0]
        except subprocess.TimeoutExpired:
            return 0, "it does not end"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        return None
    found = re.search(r"Failure: seed \d+ .*?, event (\d+):\n(.*?)\nE? *history:", told, re.S)
    return (int(found.group(1)), re.sub("^E +", "", found.group(2), flags=re.M).strip()) if found else (0, told[-3000:])


def prove(tree, product):
    """Whether the judge sees it."""
    with tree.with_mutation(product, targets=("all",)) as build:
        for seed in SEEDS:
            found = run(build, seed)
            if found:
                break
    if not found:
        print(f"NOT SEEN: {product.claim}", flush=True)
        return False
    event, text = found
    is_meant = re.search(product.tests[0], text)
    told = text[:300 if is_meant else 2000]
    print(f"{'seen' if is_meant else 'SEEN AS SOMETHING ELSE'}: {product.claim}; seed {seed}, event {event}: {told}", flush=True)
    return bool(is_meant)


def main():
    chosen = [product for product in PRODUCTS if re.search(os.environ.get("BROKEN") or "", product.claim)]
    tree = Tree("chaos")
    problems = [f"{product.claim}: {problem}" for product in chosen if (problem := product.problem())]
    if problems:
        sys.exit("\n".join(problems))
    seen = sum([prove(tree, product) for product in chosen])
    print(f"{seen} of {len(chosen)} broken products were seen")
    sys.exit(seen != len(chosen))


if __name__ == "__main__":
    main()
