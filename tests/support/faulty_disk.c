/* Stands before the C library's fsync and fdatasync of one process: while there is a file `hold` in
 * the directory that DISK_FAULTS names, they wait, as for a disk that is slow; with a file `fail`
 * they fail, as a disk does that is broken. Without these files nothing is different. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int has(const char *fault)
{
    const char *dir = getenv("DISK_FAULTS");
    char path[4096];

    if (!dir || snprintf(path, sizeof path, "%s/%s", dir, fault) >= (int)sizeof path)
        return 0;
    return access(path, F_OK) == 0;
}

static int synced(const char *name, int descriptor)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

    while (has("hold"))
        usleep(1000);
    if (has("fail")) {
        errno = EIO;
        return -1;
    }
    return real(descriptor);
}

int fsync(int descriptor) { return synced("fsync", descriptor); }
int fdatasync(int descriptor) { return synced("fdatasync", descriptor); }
