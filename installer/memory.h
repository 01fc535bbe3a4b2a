/* Memory: what only a burst of work needed goes back to the system; and what happens when libevent gets none. */
#ifndef AMBIENT_INSTALLER_MEMORY_H
#define AMBIENT_INSTALLER_MEMORY_H

/* To be called at rest: what the allocator holds free, and the mapping of our own code, which the page cache keeps: what is
 * needed again is mapped again without reading the disk. */
void memory_give_back(void);

/* libevent does not survive each allocation that fails: evhttp frees a connection that it has made half, and reads a null
 * pointer on the way (evhttp_connection_free, 2.1.12). From here on the process ends there, with a sentence: what stands in
 * pods stands on, and the next one goes on from it. Before libevent is used. */
void memory_end_without_any_in_libevent(void);

#endif
