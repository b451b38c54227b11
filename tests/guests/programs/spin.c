/* Computes for ever and never calls the host again. */
#include "guest.h"

int main(void) {
    ready();
    volatile unsigned count = 0;
    for (;;)
        count++;
}
