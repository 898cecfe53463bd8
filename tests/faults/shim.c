/* Loaded into the store by LD_PRELOAD, for what a test cannot do to a machine.

   SHIM_SYNCED: a file in which each fsync or fdatasync adds a line, "size inode": what a disk is
   sure to hold after a loss of power.
   SHIM_OFFSET: a file whose text is a number of seconds by which the wall clock is wrong. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void synced(int fd) {
    const char *journal = getenv("SHIM_SYNCED");
    char line[64];
    struct stat held;
    if (journal == NULL || fstat(fd, &held) != 0 || !S_ISREG(held.st_mode)) return;
    int size = snprintf(line, sizeof line, "%lld %llu\n", (long long)held.st_size,
                        (unsigned long long)held.st_ino);
    int out = open(journal, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (out < 0) return;
    if (write(out, line, size) != size) abort();
    close(out);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int result = real(fd);
    if (result == 0) synced(fd);
    return result;
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int result = real(fd);
    if (result == 0) synced(fd);
    return result;
}

static long offset(void) {
    const char *name = getenv("SHIM_OFFSET");
    char text[32];
    if (name == NULL) return 0;
    int in = open(name, O_RDONLY | O_CLOEXEC);
    if (in < 0) return 0;
    ssize_t length = read(in, text, sizeof text - 1);
    close(in);
    if (length <= 0) return 0;
    text[length] = '\0';
    return atol(text);
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);
    now->tv_sec += offset();
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += offset();
    return result;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now != NULL) *now = precise.tv_sec;
    return precise.tv_sec;
}
