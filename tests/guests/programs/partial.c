/* Output whose last line has no end, on both streams. */
#include "guest.h"

int main(void) {
    fputs("whole line\nno end of line", stdout);
    fputs("an error without one", stderr);
    return 0;
}
