/* Both away again, in the order in which no runtime misses anything. See host_uninstall. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "installer/host/binary.h"
#include "installer/host/configuration.h"
#include "installer/host/host.h"

static void remark(struct host_uninstalled *uninstalled, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void remark(struct host_uninstalled *uninstalled, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(uninstalled->remark, sizeof uninstalled->remark, format, arguments);
	va_end(arguments);
}

/* The plugin answers every DEL without the installer, so that one which stays strands nobody. */
static void uninstall_binary(const struct host_options *options, struct host_uninstalled *uninstalled)
{
	struct error problem = { 0 };
	bool is_needed = true, was_there = false;
	if (!options->results_dir)
		remark(uninstalled,
		       "%s/" HOST_PLUGIN_NAME
		       " stays, since the runtime's cached results are not known: remove it once no pod of now is left",
		       options->bin_dir);
	else if (binary_is_needed(options->results_dir, HOST_PLUGIN_NAME, &problem, &is_needed) < 0)
		remark(uninstalled, "%s/" HOST_PLUGIN_NAME " stays (%s): remove it once no pod of now is left",
		       options->bin_dir, problem.message);
	else if (is_needed)
		remark(uninstalled,
		       "%s/" HOST_PLUGIN_NAME
		       " stays, since results that a runtime caches in %s name it: remove it once those pods are gone",
		       options->bin_dir, options->results_dir);
	else if (binary_remove(options->bin_dir, &problem, &was_there) < 0)
		remark(uninstalled, "%s", problem.message);
	else
		uninstalled->binary_gone = true;
}

int host_uninstall(const struct host_options *options, struct error *error, struct host_uninstalled *ret_uninstalled)
{
	struct host_uninstalled uninstalled = { 0 };
	struct error problem = { 0 };
	if (configuration_remove(options, &problem) < 0) {
		remark(&uninstalled, "%s (so %s/" HOST_PLUGIN_NAME " stays too)", problem.message, options->bin_dir);
		*ret_uninstalled = uninstalled;
		return error_say(error, problem.number, "%s", uninstalled.remark);
	}
	uninstalled.configuration_gone = true;
	uninstall_binary(options, &uninstalled);
	*ret_uninstalled = uninstalled;
	return 0;
}
