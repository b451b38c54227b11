/* A bad neighbour: one argument says what it tries. What it gets away with it says, and exits with 7. */
#include "guest.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static volatile unsigned long sink;

static int deeper(int depth) {
    /* It never is, but no compiler knows. */
    if (sink)
        return depth;
    /* Something after the call, or it would be a loop. */
    return deeper(depth + 1) + (int)sink;
}

static int loop(void) {
    for (;;)
        sink++;
}

static int memory(void) {
    for (;;) {
        char *block = malloc(1 << 20);
        if (!block)
            abort();
        /* Volatile, or the compiler sees that nobody reads it and takes nothing at all. */
        for (volatile char *byte = block; byte < block + (1 << 20); byte += 512)
            *byte = 1;
    }
}

static int files(const char *self) {
    int count = 0;
    while (open(self, O_RDONLY) >= 0)
        count++;
    printf("%d files, then %s\n", count, strerror(errno));
    return 7;
}

static int random_bytes(void) {
    /* getentropy gives 256 bytes at a time. All in one call: random_at_once.wat. */
    static char bytes[256];
    for (long had = 0; had < 1L << 24; had += sizeof bytes) {
        if (getentropy(bytes, sizeof bytes) != 0) {
            printf("%ld random bytes, then %s\n", had, strerror(errno));
            return 7;
        }
    }
    puts("16 MiB of random bytes");
    return 7;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    ready();
    if (!strcmp(what, "loop"))
        return loop();
    if (!strcmp(what, "memory"))
        return memory();
    if (!strcmp(what, "stack"))
        return deeper(0);
    if (!strcmp(what, "files"))
        return files(argc > 2 ? argv[2] : argv[0]);
    if (!strcmp(what, "random"))
        return random_bytes();
    fprintf(stderr, "unknown: %s\n", what);
    return 2;
}
