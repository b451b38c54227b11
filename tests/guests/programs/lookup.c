/* Looks the names in its arguments up and prints the first IPv4 address of each, or the number of
   the error. As a component only: preview 1 has no name lookup. The declarations are the canonical
   ABI of lookup.wit. */
#include "guest.h"
#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module "@0.2.12"), import_name(name)))

IMPORT("wasi:sockets/instance-network", "instance-network")
int32_t instance_network(void);

struct stream_result {
    uint8_t failed;
    union {
        int32_t stream;
        uint8_t error;
    };
};
IMPORT("wasi:sockets/ip-name-lookup", "resolve-addresses")
void resolve_addresses(int32_t network, const char *name, size_t length, struct stream_result *out);

IMPORT("wasi:sockets/ip-name-lookup", "[method]resolve-address-stream.subscribe")
int32_t subscribe(int32_t stream);

/* result<option<ip-address>, error-code>: addresses are aligned to two bytes. */
struct address_result {
    uint8_t failed, unused0;
    uint8_t some_or_error, unused1;
    uint8_t is_ipv6, unused2;
    uint8_t bytes[16];
};
_Static_assert(sizeof(struct address_result) == 22, "the canonical layout");
IMPORT("wasi:sockets/ip-name-lookup", "[method]resolve-address-stream.resolve-next-address")
void resolve_next_address(int32_t stream, struct address_result *out);

IMPORT("wasi:io/poll", "[method]pollable.block")
void block(int32_t pollable);

IMPORT("wasi:io/poll", "[resource-drop]pollable")
void drop_pollable(int32_t pollable);

static void look_up(const char *name) {
    struct stream_result opened;
    resolve_addresses(instance_network(), name, strlen(name), &opened);
    if (opened.failed) {
        printf("%s: error %d\n", name, opened.error);
        return;
    }
    int32_t pollable = subscribe(opened.stream);
    block(pollable);
    drop_pollable(pollable);
    _Alignas(2) struct address_result next;
    do {
        resolve_next_address(opened.stream, &next);
        if (next.failed) {
            printf("%s: error %d\n", name, next.some_or_error);
            return;
        }
    } while (next.some_or_error && next.is_ipv6);
    if (!next.some_or_error)
        printf("%s: no address\n", name);
    else
        printf("%s: %d.%d.%d.%d\n", name, next.bytes[0], next.bytes[1], next.bytes[2], next.bytes[3]);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        look_up(argv[i]);
    return 0;
}
