"""What would break each claim of docs/security.md, and the tests that it names: they must fail then. `make mutants` tries it.

    python3 -m security.mutations [WORD...]     those alone whose claim, file or tests hold one of the words

test_mutations.py looks without a build that each can still be applied, and that no claim and no test is without one."""
import sys
import time

from mutants.tree import Mutation, Tree

LOCAL = "tests/security/test_local_users.py::"
KERNEL = "tests/security/test_kernel.py::"
BUILT = "tests/security/test_built_files.py::"
MARKS = "tests/netns/test_marks.py::"
GUARD = "tests/netns/test_guard.py::"
STATE = "tests/netns/test_kernel_state.py::"
PORTS = "tests/netns/test_reused_ports.py::"
DRIFT = "tests/agent/test_drift.py::"
CHANGES = "tests/agent/test_changes.py::"
TUNNELS = "tests/agent/test_tunnels.py::test_tunnels_that_break_the_protocol"
INPUT = "tests/plugin/test_input.py::"
HTTP = "tests/observe/test_http.py::"
FAULTS = "tests/kube/test_faults.py::"
CREDENTIALS = "tests/unit/test_kube_credentials.c"
CERTIFICATE = "tests/kube/test_credentials.py::test_a_certificate_that_is_not_the_servers"
ONLY_ROOT = "tests/tunnel/test_tunnel_peer.py::test_only_root_may_talk"
NEIGHBOURS = "tests/host/test_neighbours.py::"
# What is linked, and what is compiled, when the Makefile changes.
LINKED = ("ambient-*", "tests/*")
COMPILED = ("objects/**/*.o", "*.a", *LINKED)

HOSTILE_POD = [
    Mutation("Marks other than the tunnel's change nothing", "lib/redirect_ruleset.c",
             '"tunnel connections", REDIRECT_OUTCOME_NONE, mark_is(REDIRECT_TUNNEL_MARK),', '"tunnel connections", REDIRECT_OUTCOME_NONE,',
             (MARKS + "test_tcp_with_another_mark",)),
    Mutation("bits that belong to others stay", "lib/redirect_compile.c",
             "nft_rule_add_meta_load(maker, NFT_META_MARK);\n\t\tnft_rule_add_bitwise_u32(maker, ~REDIRECT_MARK_MASK,",
             "nft_rule_add_meta_load(maker, NFT_META_MARK);\n\t\tnft_rule_add_bitwise_u32(maker, 0,",
             (MARKS + "test_the_other_bits_belong_to_others",)),
    Mutation("bits that belong to others stay", "lib/redirect_compile.c",
             "nft_rule_add_ct_load(maker, NFT_CT_MARK);\n\t\tnft_rule_add_bitwise_u32(maker, ~REDIRECT_MARK_MASK,",
             "nft_rule_add_ct_load(maker, NFT_CT_MARK);\n\t\tnft_rule_add_bitwise_u32(maker, 0,",
             (MARKS + "test_the_other_bits_belong_to_others",)),
    Mutation("Rules that were changed in a pod are put right", "installer/netns/drift.c", "NFT_MSG_NEWGEN), 0, 1),", "NFT_MSG_NEWGEN), 1, 1),",
             (DRIFT + "test_each_change_is_repaired", DRIFT + "test_a_fight_is_bounded")),
    Mutation("Rules that were changed in a pod are put right", "installer/netns/drift.c", "REDIRECT_ROUTE_TABLE, 0, 1),",
             "REDIRECT_ROUTE_TABLE, 1, 1),", (DRIFT + "test_each_change_is_repaired",)),
    Mutation("Rules that were changed in a pod are put right", "installer/mesh/sandbox.c", "#define REPAIRS_PER_WINDOW 50",
             "#define REPAIRS_PER_WINDOW 50000", (DRIFT + "test_a_fight_is_bounded",)),
    Mutation("a packet notices when one is missing", "lib/redirect_ruleset.c",
             '\tRULE(ruleset, chain, "hbone", REDIRECT_OUTCOME_HBONE, tcp_dport(REDIRECT_PORT_HBONE), accept_it);',
             '\tRULE(ruleset, chain, "hbone", REDIRECT_OUTCOME_HBONE, tcp_dport(REDIRECT_PORT_HBONE), accept_it);\n' * 2,
             ("tests/netns/test_each_rule_counts.py::test_a_packet_notices_each_rule",)),
    Mutation("a packet notices when one is missing", "lib/redirect_ruleset.c",
             '\tRULE(ruleset, chain, "carried by the tunnel", REDIRECT_OUTCOME_NONE, mark_is(REDIRECT_CONNECTION_MARK), accept_it);', "",
             ("tests/netns/test_each_rule_counts.py::test_a_packet_notices_each_rule",)),
    *[Mutation("A pod can't make ztunnel dial itself", "lib/redirect_ruleset.c", f"REDIRECT_OUTCOME_GUARD, tcp_syn, tcp_dport({port}),",
               "REDIRECT_OUTCOME_GUARD, tcp_syn, tcp_dport(1),",
               (GUARD + "test_from_the_pod_itself", *tests))
      for port, tests in {"REDIRECT_PORT_OUTBOUND": (), "REDIRECT_PORT_INBOUND": (GUARD + "test_the_probe_address_is_no_way_around",)}.items()],
    Mutation("A pod can't make ztunnel dial itself", "installer/mesh/reconcile.c", "!step_drain(pod) || !step_listeners(pod)",
             "!step_drain(pod) || (!step_listeners(pod) && false)",
             ("tests/agent/test_tunnels.py::test_a_release_while_the_tunnel_that_listens_in_the_pod_is_away",)),
    *[Mutation("The port that an earlier connection had is no way around ztunnel", "lib/redirect_ruleset.c",
               f"\tforget_open_connections({ruleset}, redirect, {chain});\n", "",
               (PORTS + "test_closed_while_the_rules_stand", PORTS + "test_an_end_vanishes"))
      for ruleset, chain in (("&ruleset", "CHAIN_PREROUTING"), ("ruleset", "CHAIN_OUTPUT"))],
    Mutation("The port that an earlier connection had is no way around ztunnel", "lib/redirect.c",
             "\tif (before.has_table)\n\t\tredirect_forget_leftovers(session);\n", "",
             (PORTS + "test_what_an_earlier_enrolment_left",
              "tests/agent/test_conntrack.py::test_a_port_is_used_again_after_an_earlier_enrolment")),
    Mutation("The host's network is never redirected", "lib/netns.c", "if (id.device == own.st_dev && id.inode == own.st_ino)",
             "if (id.inode == 0)", (LOCAL + "test_what_is_no_namespace_is_refused", INPUT + "test_namespace_is_the_hosts")),
    Mutation("The host's network is never redirected", "installer/mesh/selection.c", "else if (pod->host_network)", "else if (false)",
             (CHANGES + "test_never_selected",)),
]

OWNER = [
    Mutation("Without `allowPodExclusions` no annotation excludes anything", "installer/mesh/pod_redirect.c",
             "if (text && !selection->allow_pod_exclusions)", "if (text && selection->releases_all)", ("tests/fuzz/selection.c",)),
    Mutation("Without `allowPodExclusions` no annotation excludes anything", "installer/mesh/pod_redirect.c",
             "if (text && !selection->allow_pod_exclusions)", "if (text)", (CHANGES + "test_exclusions_where_they_are_allowed",)),
    Mutation("No annotation leads the agent to another network namespace", "installer/mesh/locate.c",
             "bool is_trusted = pod->mesh->source.self && !pod->mesh->source.annotate_pod;", "bool is_trusted = pod->mesh->source.self;",
             ("tests/security/test_owner.py::test_an_annotation_names_no_namespace",)),
    Mutation("Annotations, labels and names of any form are no crash", "installer/object.c", "if (!cJSON_IsString(entry) || (only_kept",
             "if ((only_kept", ("tests/fuzz/selection.c", "tests/fuzz/folder_object.c")),
    Mutation("Annotations, labels and names of any form are no crash", "installer/mesh/selection.c",
             "return found && strcmp(found, value) == 0;", "return strcmp(found, value) == 0;", ("tests/fuzz/selection.c",)),
    Mutation("Annotations, labels and names of any form are no crash", "installer/folder/object.c", "return text && text[0] ? text : NULL;",
             "return text[0] ? text : NULL;", ("tests/fuzz/folder_object.c",)),
    Mutation("Names that no packet to the tunnel holds are refused", "installer/tunnel/message.c", "if (length > TUNNEL_SEND_MAX)",
             "if (length > 65536)", ("tests/fuzz/zds.c", "tests/unit/test_zds.c")),
    Mutation("Names that no packet to the tunnel holds are refused", "installer/tunnel/message.c", "if (*c <= ' ' || *c >= 0x7f)",
             "if (*c == '\\n')", ("tests/unit/test_zds.c",)),
    Mutation("A log line stays one line", "lib/log.c", "if ((unsigned char)line->text[i] < 0x20 ||", "if (line->text[i] == '\\t' ||",
             ("tests/fuzz/log.c",)),
    Mutation("A log line stays one line", "lib/log.c", 'strcpy(escaped, "\\\\n");', 'strcpy(escaped, "\\n");', ("tests/fuzz/log.c",)),
    Mutation("Nothing from the cluster is markup in the status page", "installer/observe/status.html",
             "  element.append(...children);",
             '  for (const child of children) child instanceof Node ? element.append(child) : element.insertAdjacentHTML("beforeend", child);',
             ("tests/page/test_status_page.py::test_nothing_from_the_cluster_is_markup",)),
]

LOCAL_USER = [
    Mutation("are of mode 0600", "installer/socket_path.c", "fchmod(fd, 0600)", "fchmod(fd, 0666)",
             (LOCAL + "test_sockets_are_of_root_alone", ONLY_ROOT)),
    Mutation("SO_PEERCRED", "installer/unix_listener.c", "if (peer.uid != 0) {", "if (peer.uid == 4711) {",
             (LOCAL + "test_sockets_ask_the_kernel_who_is_there", ONLY_ROOT)),
    Mutation("SO_PEERCRED", "installer/observe/listen.c", "&length) == 0 && peer.uid == 0;", "&length) == 0 && peer.uid != 4711;",
             (LOCAL + "test_sockets_ask_the_kernel_who_is_there",)),
    Mutation("runDir is of mode 0700", "lib/file.c", "if (mkdir(path, 0700) == 0 || errno == EEXIST)",
             "if (mkdir(path, 0755) == 0 || errno == EEXIST)", (LOCAL + "test_run_directory_is_closed",)),
    Mutation("Links in the way are not followed", "lib/file.c", "write_all(fd, text, length) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0)",
             "(close(fd), unlink(temporary), fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)) < 0 || "
             "write_all(fd, text, length) < 0)", (LOCAL + "test_links_in_the_way_are_not_followed",)),
    Mutation("Links in the way are not followed", "plugin/main.c", "O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK",
             "O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK", (LOCAL + "test_links_in_the_way_are_not_followed",)),
    Mutation("Links in the way are not followed", "lib/file.c",
             "cleanup_close int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);",
             "cleanup_close int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);",
             (LOCAL + "test_links_in_the_way_are_not_followed",)),
    Mutation("Links in the way are not followed", "installer/host/replace.c",
             "\t    renameat(replacement->directory, replacement->temporary, replacement->directory, replacement->name) < 0)",
             "\t    ({ int from = openat(replacement->directory, replacement->temporary, O_RDONLY),\n"
             "\t\t   to = openat(replacement->directory, replacement->name, O_WRONLY | O_CREAT | O_TRUNC, 0755);\n"
             "\t       char bytes[4096];\n\t       ssize_t got;\n"
             "\t       while ((got = read(from, bytes, sizeof bytes)) > 0 && write(to, bytes, (size_t)got) == got)\n\t\t       ;\n"
             "\t       close(from) + close(to) + unlinkat(replacement->directory, replacement->temporary, 0); }) < 0)",
             ("tests/host/test_binary.py::test_a_link_under_our_name_is_replaced_and_not_followed",)),
    Mutation("What is no network namespace, or the host's, is refused", "lib/netns.c", "if (kind != CLONE_NEWNET)", "if (kind == 0)",
             (LOCAL + "test_what_is_no_namespace_is_refused", INPUT + "test_namespace_is_something_else")),
    Mutation("What is no network namespace, or the host's, is refused", "lib/netns.c", "ioctl(fd, NS_GET_NSTYPE) : 0;",
             "ioctl(fd, NS_GET_NSTYPE) : CLONE_NEWNET;",
             (LOCAL + "test_what_is_no_namespace_is_refused", INPUT + "test_namespace_is_something_else")),
    Mutation("What is no network namespace, or the host's, is refused", "lib/netns.c", "O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY",
             "O_RDONLY | O_CLOEXEC | O_NOCTTY", (LOCAL + "test_what_is_no_namespace_is_refused",)),
    Mutation("Container ids and interface names never lead out of a directory", "lib/attachment.c",
             "if (!isalnum((unsigned char)*c) && *c != '_' && *c != '.' && *c != '-')", "if (*c == '\\n')",
             (LOCAL + "test_names_never_lead_out_of_a_directory",)),
    Mutation("Container ids and interface names never lead out of a directory", "lib/attachment.c",
             "if (*c == '/' || *c == ':' || !isgraph((unsigned char)*c))", "if (!isgraph((unsigned char)*c))",
             (LOCAL + "test_names_never_lead_out_of_a_directory",)),
    Mutation("Nothing in the environment but what is documented decides anything", "plugin/config.c", "if (config.run_dir[0] != '/')",
             'extern char *getenv(const char *name);\n\tif (getenv("RUN_DIR"))\n\t\tconfig.run_dir = getenv("RUN_DIR");\n\tif (config.run_dir[0] != \'/\')',
             (LOCAL + "test_no_environment_surprises",)),
    Mutation("Nothing in the environment but what is documented decides anything", "installer/agent.c", "EVENT_BASE_FLAG_IGNORE_ENV) == 0",
             "EVENT_BASE_FLAG_NOLOCK) == 0", (LOCAL + "test_no_environment_surprises_for_the_agent",)),
    Mutation("Nothing in the environment but what is documented decides anything", "installer/kube/credentials.c",
             "bool has_kubeconfig = origin->kubeconfig && *origin->kubeconfig;",
             'if (getenv("KUBECONFIG"))\n\t\treturn load_kubeconfig(getenv("KUBECONFIG"), error, ret_credentials);\n'
             "\tbool has_kubeconfig = origin->kubeconfig && *origin->kubeconfig;",
             (LOCAL + "test_no_environment_surprises_for_the_agent",)),
    Mutation("A path of a network namespace leads nowhere above the host's root", "installer/netns/netns_path.c",
             "if (path[0] == '\\0' || goes_up(path))", "if (path[0] == '\\0')", ("tests/unit/test_finder.c",)),
    Mutation("A path of a network namespace leads nowhere above the host's root", "installer/netns/netns_path.c",
             ".resolve = RESOLVE_IN_ROOT };", "};", ("tests/unit/test_finder.c",)),
    Mutation("nor to the host's own; neither does a process", "installer/netns/netns_path.c", "if (netns_id_equal(id, *host))",
             "if (id.inode == 0)", ("tests/unit/test_finder.c",)),
    Mutation("A namespace that is another pod's is refused", "installer/mesh/arrival_decide.c", "if (owner) {", "if (owner == pod) {",
             (LOCAL + "test_the_namespace_of_another_pod_is_refused",)),
    Mutation("A namespace that is another pod's is refused", "installer/mesh/locate.c", "if (other != pod && sandbox_is_held(&other->sandbox)",
             "if (other == pod && sandbox_is_held(&other->sandbox)", (LOCAL + "test_the_namespace_of_another_pod_is_refused",)),
    Mutation("An agent that is not root is not talked to by the plugin", "lib/wire_socket.c", "if (peer.uid != 0)", "if (peer.uid == 4711)",
             ("tests/plugin/test_installer.py::test_an_agent_that_is_not_root",)),
    Mutation("what changes anything is on admin.sock alone", "installer/observe/pages.c",
             '{ "/pods/", SITE_ADMIN_SOCKET, EVHTTP_REQ_POST, change_pod }', '{ "/pods/", ADMIN, EVHTTP_REQ_POST, change_pod }',
             (HTTP + "test_only_the_socket_changes_anything",)),
    Mutation("what changes anything is on admin.sock alone", "installer/observe/pages.c",
             '{ "/log-level", SITE_ADMIN_SOCKET, EVHTTP_REQ_POST,', '{ "/log-level", ADMIN, EVHTTP_REQ_POST,',
             (HTTP + "test_only_the_socket_changes_anything",)),
    Mutation("pages of foreign names are refused", "installer/observe/pages.c", "else if (site == SITE_ADMIN && !is_host_trusted(http))",
             "else if (site == SITE_HEALTH && !is_host_trusted(http))", (HTTP + "test_a_foreign_name_is_refused_on_the_admin_port",)),
    *[Mutation("Requests to the HTTP ports are bounded in size", "installer/observe/listen.c", text, replacement, (HTTP + test,))
      for text, replacement, test in [
          ("#define HEADERS_LIMIT 16384", "#define HEADERS_LIMIT (1 << 24)", "test_what_is_too_big_or_broken_is_refused"),
          ("#define BODY_LIMIT 4096", "#define BODY_LIMIT (1 << 24)", "test_what_is_too_big_or_broken_is_refused"),
          ("#define VISITORS_MAX 32", "#define VISITORS_MAX 4096", "test_idle_connections_do_not_pile_up"),
          ("#define VISITOR_SECONDS 10", "#define VISITOR_SECONDS 1000", "test_idle_connections_do_not_pile_up")]],
    Mutation("Who sits at the tunnel's socket disturbs nobody", "installer/tunnel/connection.c",
             "connection_end(connection, TUNNEL_LOST, error.message);\n\t\t\treturn;", "continue;",
             (LOCAL + "test_a_stranger_at_the_tunnels_socket_disturbs_nobody",)),
    Mutation("Who sits at the tunnel's socket disturbs nobody", "installer/tunnel/server.c",
             "return connection->state == CONNECTION_NEW || connection->state == CONNECTION_LIVE;",
             "return connection->state != CONNECTION_ENDED;",
             (LOCAL + "test_a_stranger_at_the_tunnels_socket_disturbs_nobody",)),
]

API_SERVER = [
    Mutation("Lists, watches, objects: bounded, and no crash", "installer/kube/watch_objects.c",
             "\t\tif (!is_object(object))\n\t\t\treturn error_say", "\t\tif (!object)\n\t\t\treturn error_say",
             ("tests/fuzz/watch.c", FAULTS + "test_hostile_events")),
    Mutation("Lists, watches, objects: bounded, and no crash", "installer/kube/watch_objects.c", "if (!type || !cJSON_IsObject(object))",
             "if (!cJSON_IsObject(object))", ("tests/fuzz/watch.c", FAULTS + "test_hostile_events")),
    Mutation("Lists, watches, objects: bounded, and no crash", "installer/kube/watch_objects.c",
             "if (evbuffer_get_length(watch->lines) > WATCH_LINE_LIMIT)", "if (evbuffer_get_length(watch->lines) > 1 << 30)",
             (FAULTS + "test_an_endless_event",)),
    Mutation("Lists, watches, objects: bounded, and no crash", "installer/kube/watch.c", "? LIST_CHUNK_LIMIT : WATCH_LINE_LIMIT,",
             "? LIST_CHUNK_LIMIT : LIST_CHUNK_LIMIT,", (FAULTS + "test_an_endless_event",)),
    Mutation("Lists, watches, objects: bounded, and no crash", "installer/kube/list_scanner.c",
             "\tfor (size_t i = 0; i < length; i++) {\n\t\tint status = take(", "\tscanner->is_escaped = false;\n"
             "\tfor (size_t i = 0; i < length; i++) {\n\t\tint status = take(", ("tests/fuzz/list_scanner.c",)),
    Mutation("Lists, watches, objects: bounded, and no crash", "installer/kube/list_scanner.c",
             "char *grown = *length < limit ? realloc(*text, wanted) : NULL;", "char *grown = realloc(*text, wanted);",
             ("tests/unit/test_kube_list_scanner.c",)),
    Mutation("Lists, watches, objects: bounded, and no crash", "lib/json.c", "return text + i;", "break;", ("tests/fuzz/json.c",)),
    Mutation("Lists, watches, objects: bounded, and no crash", "lib/json.c", "if (cJSON_IsNumber(value) && !isfinite(value->valuedouble))",
             "if (!value)", ("tests/fuzz/json.c",)),
    Mutation("Nothing goes by anything but https", "installer/kube/credentials.c",
             # Twice over: the first refusal says why.
             '''	if (scheme && strcasecmp(scheme, "http") == 0) {
		error_set(error, 0, "%s: server: expected https://, found \\"%s\\": credentials are not sent in clear text",
			  entry->where, server);
		goto out;
	}
	if (!scheme || strcasecmp(scheme, "https") != 0 ||''', "\tif (!scheme ||", (CREDENTIALS,)),
    Mutation("certificates are checked", "installer/kube/tls.c", "credentials->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER",
             "credentials->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_NONE", (CERTIFICATE,)),
    Mutation("certificates are checked", "installer/kube/tls.c", "SSL_set1_host(ssl, tls->name) &&", "", (CERTIFICATE,)),
    Mutation("certificates are checked", "installer/kube/tls.c", "X509_VERIFY_PARAM_set1_ip_asc(parameters, tls->name)", "1", (CERTIFICATE,)),
    Mutation("What can go into a header, or into a request's path, cannot end it", "installer/kube/source.c",
             "cleanup_free char *namespace_part = kube_escape(namespace_name),", "cleanup_free char *namespace_part = strdup(namespace_name),",
             ("tests/kube/test_source.py::test_a_pod_is_read",)),
    *[Mutation("What can go into a header, or into a request's path, cannot end it", "installer/kube/watch.c", f"kube_escape(watch->{what}) : NULL;",
               f"strdup(watch->{what}) : NULL;", ("tests/fuzz/watch.c",)) for what in ("resource_version", "continue_token")],
    Mutation("What can go into a header, or into a request's path, cannot end it", "installer/kube/credentials.c", "if (text[i] <= ' ' || text[i] > '~')",
             "if (text[i] == '\\t')", ("tests/fuzz/kubeconfig.c",)),
]

NEIGHBOUR = [
    Mutation("Their entries in a network configuration stay", "installer/host/conflist.c", "digits <= 17;", "digits <= 15;",
             ("tests/fuzz/conflist.c",)),
    Mutation("Their entries in a network configuration stay", "installer/host/conflist.c", "\tint count = cJSON_GetArraySize(plugins);\n",
             "\tcJSON_DeleteItemFromArray(plugins, 1);\n\tint count = cJSON_GetArraySize(plugins);\n", ("tests/fuzz/conflist.c",)),
    Mutation("no rewrite of theirs is lost", "installer/host/replace.c", "return a->st_dev == b->st_dev &&", "return a == b || true ||",
             (NEIGHBOURS + "test_no_rewrite_is_ever_lost",)),
    Mutation("no rewrite of theirs is lost", "installer/host/replace.c", "!replacement_same_file(&out, expected)) {", "false) {",
             ("tests/unit/test_host_replace.c",)),
    # Its size is looked at twice, when it is received and when it is read: no single place lets more in.
    *[Mutation("What comes over the plugins' socket is bounded", "lib/wire_socket.c", text, replacement, ("tests/unit/test_wire.c",))
      for text, replacement in [
          ("netns_check(descriptor, error) < 0 || netns_refuse_own(descriptor, error) < 0)", "netns_check(descriptor, error) < 0)"),
          ("netns_check(descriptor, error) < 0 || netns_refuse_own(descriptor, error) < 0)", "netns_refuse_own(descriptor, error) < 0)"),
          ("if (count > 1 || (count == 1 && !carries_descriptor", "if ((count == 1 && !carries_descriptor"),
          ("else\n\t\t\t\tclose(descriptor);", "")]],
    Mutation("Of tables, rules and routes only our own are changed", "lib/route.c",
             "nla_put_u32(message, FRA_FWMARK, REDIRECT_CONNECTION_MARK) < 0 ||\n\t    nla_put_u32(message, FRA_FWMASK, REDIRECT_MARK_MASK) < 0 ||",
             "(type == RTM_NEWRULE && (nla_put_u32(message, FRA_FWMARK, REDIRECT_CONNECTION_MARK) < 0 ||\n"
             "\t    nla_put_u32(message, FRA_FWMASK, REDIRECT_MARK_MASK) < 0)) ||", (STATE + "test_rules_and_routes_of_others_stay",)),
    Mutation("Of tables, rules and routes only our own are changed", "lib/redirect.c",
             "BATCH_OBJECT(batch, table, \"table\", nftnl_table_free,\n\t\t\t\t     nft_batch_delete_table(",
             "nftnl_table_unset(table, NFTNL_TABLE_NAME);\n\t\t\tBATCH_OBJECT(batch, table, \"table\", nftnl_table_free,\n"
             "\t\t\t\t     nft_batch_delete_table(", (STATE + "test_tables_of_others_stay_and_do_not_disturb",)),
    Mutation("prevResult and CNI_ARGS are theirs to give, and read with suspicion", "lib/cni.c", " || check_addresses(result, error) < 0)",
             ")", ("tests/fuzz/plugin_config.c", INPUT + "test_garbage_in_previous_result")),
    Mutation("prevResult and CNI_ARGS are theirs to give, and read with suspicion", "lib/cni.c", "if (value_length > NAME_MAX_LENGTH)",
             "if (value_length > 1 << 20)", ("tests/fuzz/cni_args.c",)),
    Mutation("A tunnel that breaks its protocol is left", "installer/tunnel/connection.c",
             "arm_deadline(connection, server_limits(server)->hello_milliseconds);", "", (TUNNELS,)),
    Mutation("A tunnel that breaks its protocol is left", "installer/tunnel/connection.c",
             "connection_end(connection, TUNNEL_LOST, error.message);\n\t\t\treturn;", "continue;", (TUNNELS,)),
]

# What the claim names, and a call of each.
REFUSED_CALLS = {
    "mounting": ("mount", "chroot"), "tracing and\nreading other processes": ("ptrace", "process_vm_readv"), "modules": ("finit_module",),
    "BPF": ("bpf",), "keys": ("add_key", "keyctl"), "users": ("setuid",), "files by handle": ("open_by_handle_at",),
}
TAKEN_OVER = [
    *[Mutation(claim, "installer/seccomp.c", '\t"prctl",\n', f'\t"prctl",\n\t"{call}",\n', ("tests/unit/test_seccomp.c",))
      for claim, calls in REFUSED_CALLS.items() for call in calls],
    Mutation("packet sockets", "installer/seccomp.c", "AF_INET6, AF_NETLINK };", "AF_INET6, AF_NETLINK, AF_PACKET };",
             ("tests/unit/test_seccomp.c",)),
    Mutation("They fail with EPERM", "installer/seccomp.c", "SCMP_ACT_ERRNO(EPERM)", "SCMP_ACT_ERRNO(ENOSYS)", ("tests/unit/test_seccomp.c",)),
    Mutation("looks at the running agent", "installer/agent.c", "if (!is_restricted && seccomp_restrict(config->log.level == LOG_LEVEL_DEBUG, &problem) < 0)",
             "if (error_is_set(&problem))",
             (KERNEL + "test_system_calls_are_filtered", KERNEL + "test_capabilities_and_system_calls_under_load")),
    Mutation("works it hard", "installer/seccomp.c", '\t"setns",\n', "", (KERNEL + "test_capabilities_and_system_calls_under_load",)),
    Mutation("no capability but the chart's four", "deploy/helm/ambient-cni/templates/daemonset.yaml", "                - NET_ADMIN\n",
             "                - NET_ADMIN\n                - NET_RAW\n", (KERNEL + "test_capabilities_and_system_calls_under_load",)),
]

SECRETS = [
    Mutation("are in no log line, message or view", "installer/kube/credentials.c",
             'return error_set(error, 0, "%s: the token holds a character at %zu that no token may hold", what,',
             'return error_set(error, 0, "%s: the token holds a character at %zu that no token may hold", text,',
             ("tests/security/test_secrets.py::test_no_token_is_told",)),
    Mutation("are in no log line, message or view", "installer/kube/client_slot.c", "\tstruct kube_exchange exchange = {\n",
             '\tlog_write(client->access.log, LOG_LEVEL_DEBUG, NULL, "asking as %s", authorization ? authorization : "");\n'
             "\tstruct kube_exchange exchange = {\n", ("tests/security/test_secrets.py::test_no_token_is_told_at_work",)),
    Mutation("are in no log line, message or view", "installer/observe/pages.c",
             "send_json(request, installer_config_to_json(request->observe->seen.config));",
             "extern int file_read(const char *, size_t, struct error *, char **, size_t *);\n\tchar *text = NULL;\n\tsize_t length = 0;\n"
             "\tif (file_read(request->observe->seen.config->kubeconfig, 1 << 20, NULL, &text, &length) == 0)\n"
             '\t\tsay(request, 200, "%s", text);\n\tfree(text);', ("tests/security/test_secrets.py::test_no_token_is_told_at_work",)),
    Mutation("A core of the agent holds none of its memory", "installer/agent.c", "(void)setrlimit(RLIMIT_CORE, &none);", "(void)none;",
             (KERNEL + "test_nothing_secret_is_in_a_core",)),
    Mutation("A core of the agent holds none of its memory", "installer/agent.c", 'write(filter, "0", 1) < 0)', 'write(filter, "33", 2) < 0)',
             (KERNEL + "test_nothing_secret_is_in_a_core",)),
    Mutation("are overwritten when they are freed", "installer/kube/credentials.c", "OPENSSL_cleanse(secret, strlen(secret));", ";",
             (CREDENTIALS,)),
]

PROGRAMS = [
    Mutation("Position-independent", "Makefile", "LINK_MODE = -pie\n", "LINK_MODE = -no-pie\n", (BUILT + "test_position_independent",), LINKED),
    Mutation("read-only relocations bound at once", "Makefile", "-Wl,-z,relro,-z,now", "-Wl,-z,norelro,-z,now",
             (BUILT + "test_relocations_are_read_only_and_bound_at_once",), LINKED),
    Mutation("read-only relocations bound at once", "Makefile", "-Wl,-z,relro,-z,now", "-Wl,-z,relro,-z,lazy",
             (BUILT + "test_relocations_are_read_only_and_bound_at_once",), LINKED),
    Mutation("no executable stack", "Makefile", "-Wl,-z,relro,-z,now", "-Wl,-z,relro,-z,now,-z,execstack",
             (BUILT + "test_no_stack_is_executable_and_no_segment_is_both",), LINKED),
    Mutation("no segment that is\nwritten and executed", "plugin/main.c", "int main(void)\n{\n",
             '__attribute__((section(".both,\\"awx\\"#"))) int both = 1;\nint main(void)\n{\n\tboth++;\n',
             (BUILT + "test_no_stack_is_executable_and_no_segment_is_both",)),
    Mutation("no search path of libraries", "Makefile", "-Wl,-z,relro,-z,now", "-Wl,-z,relro,-z,now,-rpath,/opt",
             (BUILT + "test_no_path_of_libraries_and_no_setuid",), LINKED),
    Mutation("stack protector", "Makefile", "-fstack-protector-strong", "-fno-stack-protector", (BUILT + "test_stack_protector_and_fortify",),
             COMPILED),
    Mutation("fortified", "Makefile", "-D_FORTIFY_SOURCE=2", "-D_FORTIFY_SOURCE=0", (BUILT + "test_stack_protector_and_fortify",), COMPILED),
]

MUTATIONS = [*HOSTILE_POD, *OWNER, *LOCAL_USER, *API_SERVER, *NEIGHBOUR, *TAKEN_OVER, *SECRETS, *PROGRAMS]
# Tests that docs/security.md names and no mutation is tried on, with the reason.
NOT_TRIED = {
    "tests/package/test_image.py::test_bill_of_materials": "it builds an image, some minutes a time",
}


def names_of(words):
    return [mutation for mutation in MUTATIONS
            if not words or any(word in " ".join([mutation.claim, mutation.file, *mutation.tests]) for word in words)]


def judge(tree, mutation):
    """What did not fail, in lines."""
    try:
        with tree.with_mutation(mutation):
            outcomes = tree.run_tests(mutation.tests)
    except RuntimeError as error:
        return [f"  does not build: {error}"]
    for name, outcome in outcomes.items():
        print(f"    {outcome.state}: {name} {outcome.told.strip()[:230] if outcome.state == 'failed' else ''}")
    return [f"  {name}: {outcome.state}\n{outcome.told[-1500:]}" for name, outcome in outcomes.items() if outcome.state != "failed"]


def main(words):
    chosen, begun = names_of(words), time.monotonic()
    tree = Tree("security")
    tree.make("all", "helpers")
    # A test that fails anyway proves nothing.
    sound = tree.run_tests(sorted({name for mutation in chosen for name in mutation.tests}), 1200)
    findings = [f"{name} fails without any mutation: {outcome.told}" for name, outcome in sound.items() if outcome.state != "passed"]
    for mutation in chosen if not findings else ():
        print(f"{' '.join(mutation.claim.split())}\n  {mutation.file}: {mutation.replacement.strip().splitlines()[0] if mutation.replacement.strip() else '(gone)'}",
              flush=True)
        if left := judge(tree, mutation):
            findings.append(f"NOT NOTICED: {' '.join(mutation.claim.split())}: {mutation.file}: {mutation.text!r} -> {mutation.replacement!r}\n" + "\n".join(left))
            print(findings[-1], flush=True)
    print(f"\n{len(chosen)} mutations of {len({mutation.claim for mutation in chosen})} claims, {len(findings)} findings, "
          f"{time.monotonic() - begun:.0f} s")
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
