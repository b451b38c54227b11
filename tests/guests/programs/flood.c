/* Writes numbered lines of 64 bytes until the MiB in its argument are out, then ends. */
#include "guest.h"
#include <unistd.h>

int main(int argc, char **argv) {
    long lines = (argc > 1 ? atol(argv[1]) : 1) * (1024 * 1024 / 64);
    char line[65];
    for (long i = 0; i < lines; i++) {
        snprintf(line, sizeof line, "%062ld.", i);
        line[63] = '\n';
        long done = 0;
        while (done < 64) {
            long written = write(1, line + done, 64 - done);
            if (written <= 0)
                return 1;
            done += written;
        }
    }
    return 0;
}
