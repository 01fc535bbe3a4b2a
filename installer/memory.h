/* Memory that only a burst of work needed goes back to the system. */
#ifndef AMBIENT_INSTALLER_MEMORY_H
#define AMBIENT_INSTALLER_MEMORY_H

/* To be called at rest: what the allocator holds free, and the mapping of our own code, which the page cache keeps: what is
 * needed again is mapped again without reading the disk. */
void memory_give_back(void);

#endif
