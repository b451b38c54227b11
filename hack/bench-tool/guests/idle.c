/* Says that it is there and does nothing from then on. The same source for both runtimes. */
#include <time.h>
#include <unistd.h>

int main(void) {
    static const char text[] = "ready\n";
    if (write(1, text, sizeof text - 1) != sizeof text - 1) {
        return 1;
    }
    for (;;) {
        struct timespec hour = {.tv_sec = 3600};
        nanosleep(&hour, NULL);
    }
}
