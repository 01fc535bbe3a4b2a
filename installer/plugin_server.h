/* The node agent's end of the conversation with plugins (ambient/wire.h): runDir/installer.sock. Each connection is one ADD,
 * DEL or GC; a slow or dead plugin holds nothing but its own connection. */
#ifndef AMBIENT_INSTALLER_PLUGIN_SERVER_H
#define AMBIENT_INSTALLER_PLUGIN_SERVER_H

#include <event2/event.h>
#include <stdbool.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "installer/mesh/mesh.h"

struct plugin_server;

/* `superseded` (may be NULL) is called once when a successor has bound its socket over ours: nobody new comes any more;
 * ADDs under way are the mesh's to hand on (mesh_stop). Everything is borrowed but `run_dir`. */
int plugin_server_new(struct event_base *base, const char *run_dir, struct mesh *mesh, const struct log *log,
		      void (*superseded)(void *data), void *data, struct error *error, struct plugin_server **ret_server);

/* Ends every conversation; the socket's path goes if it is still ours. NULL is fine. */
void plugin_server_free(struct plugin_server *server);

/* False: a successor does. */
bool plugin_server_listens(const struct plugin_server *server);

#endif
