/* As tcp.c, with the socket functions that WasmEdge adds to preview 1 (their second version, which has
   the address as bytes with a length). */
#include "guest.h"
#include <stdint.h>

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

enum { INET4 = 1, STREAM = 2 };

struct bytes {
    const void *bytes;
    uint32_t length;
};

IMPORT("sock_open") uint32_t sock_open(uint32_t family, uint32_t kind, uint32_t *fd);
IMPORT("sock_connect") uint32_t sock_connect(uint32_t fd, const struct bytes *address, uint32_t port);
IMPORT("sock_send")
uint32_t sock_send(uint32_t fd, const struct bytes *pieces, uint32_t count, uint32_t flags, uint32_t *sent);
IMPORT("sock_recv")
uint32_t sock_recv(uint32_t fd, const struct bytes *pieces, uint32_t count, uint32_t flags, uint32_t *got,
                   uint32_t *flags_out);

static int failed(const char *what, uint32_t error) {
    printf("%s: error %u\n", what, error);
    return 1;
}

int main(int argc, char **argv) {
    uint32_t port = argc > 1 ? (uint32_t)atoi(argv[1]) : 0;
    uint32_t fd, count, flags, error;
    if ((error = sock_open(INET4, STREAM, &fd)))
        return failed("open", error);
    static const unsigned char localhost[4] = {127, 0, 0, 1};
    struct bytes address = {localhost, sizeof localhost};
    if ((error = sock_connect(fd, &address, port)))
        return failed("connect", error);
    struct bytes ping = {"ping\n", 5};
    if ((error = sock_send(fd, &ping, 1, 0, &count)))
        return failed("send", error);
    static char answer[100];
    struct bytes room = {answer, sizeof answer};
    if ((error = sock_recv(fd, &room, 1, 0, &count, &flags)))
        return failed("receive", error);
    printf("%.*s", (int)count, answer);
    return 0;
}
