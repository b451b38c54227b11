/* Connects to the port in its argument on 127.0.0.1, says "ping" and prints what it is answered, or the
   number of the error. As a component only: preview 1 makes no sockets. The declarations are the
   canonical ABI of tcp.wit. */
#include "guest.h"
#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module "@0.2.12"), import_name(name)))

IMPORT("wasi:sockets/instance-network", "instance-network")
int32_t instance_network(void);

struct handle_result {
    uint8_t failed;
    union {
        int32_t handle;
        uint8_t error;
    };
};
enum { IPV4 };
IMPORT("wasi:sockets/tcp-create-socket", "create-tcp-socket")
void create_tcp_socket(int32_t family, struct handle_result *out);

struct plain_result {
    uint8_t failed, error;
};
/* The address is flattened to the longer of its two cases. */
IMPORT("wasi:sockets/tcp", "[method]tcp-socket.start-connect")
void start_connect(int32_t socket, int32_t network, int32_t family, int32_t port, int32_t a, int32_t b,
                   int32_t c, int32_t d, int32_t unused0, int32_t unused1, int32_t unused2,
                   int32_t unused3, int32_t unused4, int32_t unused5, struct plain_result *out);

struct streams_result {
    uint8_t failed;
    union {
        struct {
            int32_t input, output;
        };
        uint8_t error;
    };
};
IMPORT("wasi:sockets/tcp", "[method]tcp-socket.finish-connect")
void finish_connect(int32_t socket, struct streams_result *out);

IMPORT("wasi:sockets/tcp", "[method]tcp-socket.subscribe")
int32_t subscribe(int32_t socket);

IMPORT("wasi:io/poll", "[method]pollable.block")
void block(int32_t pollable);

IMPORT("wasi:io/poll", "[resource-drop]pollable")
void drop_pollable(int32_t pollable);

struct write_result {
    uint8_t failed;
    struct {
        uint8_t reason;
        int32_t error;
    } stream_error;
};
IMPORT("wasi:io/streams", "[method]output-stream.blocking-write-and-flush")
void write_and_flush(int32_t stream, const char *bytes, size_t length, struct write_result *out);

struct read_result {
    uint8_t failed;
    union {
        struct {
            char *bytes;
            size_t length;
        };
        uint8_t reason;
    };
};
IMPORT("wasi:io/streams", "[method]input-stream.blocking-read")
void blocking_read(int32_t stream, uint64_t length, struct read_result *out);

/* Where the host puts lists that it gives back. */
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align,
                                                                size_t new_size) {
    (void)old_size, (void)align;
    return realloc(old, new_size);
}

static int failed(const char *what, int error) {
    printf("%s: error %d\n", what, error);
    return 1;
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 0;
    struct handle_result made;
    create_tcp_socket(IPV4, &made);
    if (made.failed)
        return failed("create", made.error);
    int32_t socket = made.handle;
    struct plain_result begun;
    start_connect(socket, instance_network(), IPV4, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, &begun);
    if (begun.failed)
        return failed("connect", begun.error);
    int32_t ready = subscribe(socket);
    block(ready);
    drop_pollable(ready);
    struct streams_result connected;
    finish_connect(socket, &connected);
    if (connected.failed)
        return failed("connect", connected.error);
    struct write_result written;
    write_and_flush(connected.output, "ping\n", 5, &written);
    if (written.failed)
        return failed("write", written.stream_error.reason);
    struct read_result got;
    blocking_read(connected.input, 100, &got);
    if (got.failed)
        return failed("read", got.reason);
    printf("%.*s", (int)got.length, got.bytes);
    return 0;
}
