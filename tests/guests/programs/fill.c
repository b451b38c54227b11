/* Writes into the file in its argument until it is killed or refused: on a tmpfs that is memory
   of its cgroup that no runtime can cap beforehand. */
#include "guest.h"
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) {
        printf("cannot open %s: %s\n", argv[1], errno_name(errno));
        return 3;
    }
    ready();
    static char block[1 << 16];
    memset(block, 1, sizeof block);
    for (long written = 0;; written += sizeof block)
        if (write(fd, block, sizeof block) < 0) {
            printf("refused after %ld bytes: %s\n", written, errno_name(errno));
            return 4;
        }
}
