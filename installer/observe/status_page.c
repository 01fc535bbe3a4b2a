/* The status page as part of the program. The Makefile knows that this object depends on it. */
#include "installer/observe/state.h"

__asm__(".section .rodata.status_page, \"a\"\n"
	".global status_page, status_page_end\n"
	"status_page:\n"
	".incbin \"installer/observe/status.html\"\n"
	"status_page_end:\n"
	".byte 0\n"
	".previous\n");
