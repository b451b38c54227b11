/* Sleeps until it is killed; handles no signal. */
#include "guest.h"
#include <unistd.h>

int main(void) {
    ready();
    for (;;)
        sleep(3600);
}
