/* Prints the time of day in seconds, whether the monotonic clock goes on, and sixteen random bytes. */
#include "guest.h"
#include <time.h>
#include <unistd.h>

int main(void) {
    struct timespec now, first, then;
    if (clock_gettime(CLOCK_REALTIME, &now) || clock_gettime(CLOCK_MONOTONIC, &first))
        return 2;
    printf("realtime %lld\n", (long long)now.tv_sec);
    usleep(20000);
    if (clock_gettime(CLOCK_MONOTONIC, &then))
        return 3;
    long long passed = (then.tv_sec - first.tv_sec) * 1000000000LL + then.tv_nsec - first.tv_nsec;
    printf("monotonic %lld\n", passed);
    unsigned char bytes[16];
    if (getentropy(bytes, sizeof bytes))
        return 4;
    fputs("random ", stdout);
    for (unsigned i = 0; i < sizeof bytes; i++)
        printf("%02x", bytes[i]);
    puts("");
    return 0;
}
