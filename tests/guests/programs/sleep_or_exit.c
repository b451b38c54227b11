/* "exit" ends at once with code 0, anything else sleeps for ever. */
#include "guest.h"
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "exit"))
        return 0;
    for (;;)
        sleep(3600);
}
