/* One line on stdout, one on stderr. */
#include "guest.h"

int main(void) {
    puts("hello from the guest");
    fputs("hello on stderr\n", stderr);
    return 0;
}
