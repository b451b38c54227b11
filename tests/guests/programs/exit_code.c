/* Ends with the code in its argument. */
#include "guest.h"

int main(int argc, char **argv) {
    return argc > 1 ? atoi(argv[1]) : 0;
}
