/* What every guest says the same way. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tells the test that the guest's own code runs. */
static inline void ready(void) {
    puts("ready");
    fflush(stdout);
}

/* Short names of the errors that tests compare; both libcs number them differently. */
static inline const char *errno_name(int number) {
    switch (number) {
    case EACCES: return "EACCES";
    case EPERM: return "EPERM";
    case ENOENT: return "ENOENT";
    case EROFS: return "EROFS";
    case ENOTDIR: return "ENOTDIR";
    case EISDIR: return "EISDIR";
    case EBADF: return "EBADF";
    case ENOMEM: return "ENOMEM";
    case ENOSPC: return "ENOSPC";
    case ELOOP: return "ELOOP";
    case EEXIST: return "EEXIST";
    case EXDEV: return "EXDEV";
    case ENXIO: return "ENXIO";
    case EINVAL: return "EINVAL";
    default: return strerror(number);
    }
}
