/* Answers one client of the listening socket that is its descriptor 0 with a line; when descriptor 0
   is no socket, says so and gives back what it reads from it. Wasm only: nobody hands a Linux program
   a listening socket. */
#include "guest.h"
#include <sys/socket.h>
#include <unistd.h>

static int copy(void) {
    char block[256];
    ssize_t count;
    while ((count = read(0, block, sizeof block)) > 0)
        if (write(1, block, count) != count)
            return 1;
    return 0;
}

int main(int argc, char **argv) {
    printf("%s has %d arguments\n", argv[0], argc - 1);
    ready();
    struct sockaddr peer;
    socklen_t size = sizeof peer;
    int client = accept(0, &peer, &size);
    if (client < 0) {
        puts("no listening socket");
        fflush(stdout);
        return copy();
    }
    static const char line[] = "served\n";
    return write(client, line, sizeof line - 1) == sizeof line - 1 ? 0 : 1;
}
