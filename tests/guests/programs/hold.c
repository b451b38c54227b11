/* Takes and touches as many MiB of memory as its argument says, and keeps them. */
#include "guest.h"
#include <unistd.h>

/* A little less than a MiB: some allocators round up to a power of two with their own header in it. */
#define BLOCK ((1 << 20) - 4096)

int main(int argc, char **argv) {
    for (long left = argc > 1 ? atol(argv[1]) : 0; left > 0; left--) {
        char *block = malloc(BLOCK);
        if (!block)
            return 1;
        /* Volatile, or the compiler sees that nobody reads it and takes nothing at all. */
        for (volatile char *byte = block; byte < block + BLOCK; byte += 512)
            *byte = 1;
    }
    ready();
    for (;;)
        sleep(3600);
}
