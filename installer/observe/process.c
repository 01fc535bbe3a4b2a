/* The process's own figures, as /proc and the kernel's clocks have them. What can't be read is 0. */
#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/observe/state.h"

static void look_at_memory(struct process_figures *figures)
{
	cleanup_fclose FILE *file = fopen("/proc/self/statm", "re");
	unsigned long long total, resident;
	if (!file || fscanf(file, "%llu %llu", &total, &resident) != 2)
		return;
	double page = (double)sysconf(_SC_PAGESIZE);
	figures->virtual_bytes = (double)total * page;
	figures->resident_bytes = (double)resident * page;
}

static unsigned long count_fds(void)
{
	unsigned long count = 0;
	DIR *directory = opendir("/proc/self/fd");
	if (!directory)
		return 0;
	const struct dirent *entry;
	while ((entry = readdir(directory)))
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count > 0 ? count - 1 : 0; /* the directory's own */
}

void process_look(struct process_figures *ret_figures)
{
	struct process_figures figures = { .open_fds = count_fds() };
	struct timespec cpu = { 0 };
	struct rlimit limit = { 0 };
	look_at_memory(&figures);
	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0)
		figures.cpu_seconds = (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		figures.max_fds = limit.rlim_cur;
	*ret_figures = figures;
}
