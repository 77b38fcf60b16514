/* Sets the clock of a program wrong, for stories: LD_PRELOAD this, and put the seconds by which it is
 * off into PALMGATE_STORY_CLOCK. SPDX-License-Identifier: Apache-2.0 */

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
    int done = (int)syscall(SYS_clock_gettime, clock, at);
    const char *off = getenv("PALMGATE_STORY_CLOCK");
    if (done == 0 && clock == CLOCK_REALTIME && off != NULL)
        at->tv_sec += atoll(off);
    return done;
}
