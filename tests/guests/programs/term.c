/* Ends by itself when stdin says so; counts the seconds otherwise. */
#include "guest.h"
#include <unistd.h>

int main(void) {
    ready();
    for (int tick = 0;; tick++) {
        printf("tick %d\n", tick);
        fflush(stdout);
        usleep(100000);
    }
}
