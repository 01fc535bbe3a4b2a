/* Timers of the loop in milliseconds, and the pauses between two tries. */
#ifndef AMBIENT_INSTALLER_KUBE_PAUSE_H
#define AMBIENT_INSTALLER_KUBE_PAUSE_H

#include <event2/event.h>
#include <stdint.h>

void kube_arm(struct event *timer, int64_t milliseconds);
/* `when` by clock_milliseconds(); at once where that is over. Never fires before it. */
void kube_arm_until(struct event *timer, int64_t when);

/* The pause after so many failed tries: `first` milliseconds, doubled with each try, at most `growth_max` times as long. A half
 * of it is by chance, so that the nodes of a cluster do not ask together. */
int64_t kube_pause(unsigned first, unsigned growth_max, unsigned failures);
/* The pause that a server has asked for, and up to a quarter more by chance. */
int64_t kube_pause_as_asked(unsigned milliseconds);

#endif
