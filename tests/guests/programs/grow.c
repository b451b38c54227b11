/* Takes and touches memory a MiB at a time until it gets no more, then says how much it had. */
#include "guest.h"

/* A little less than a MiB: some allocators round up to a power of two with their own header in it. */
#define BLOCK ((1 << 20) - 4096)

int main(int argc, char **argv) {
    long most = argc > 1 ? atol(argv[1]) : 4096;
    long had = 0;
    ready();
    for (; had < most; had++) {
        char *block = malloc(BLOCK);
        if (!block) {
            printf("refused after %ld MiB\n", had);
            return 0;
        }
        /* Volatile, or the compiler sees that nobody reads it and takes nothing at all. */
        for (volatile char *byte = block; byte < block + BLOCK; byte += 512)
            *byte = 1;
    }
    printf("took %ld MiB\n", had);
    return 0;
}
