/* Copies stdin to stdout, then says that the end was seen. */
#include "guest.h"
#include <unistd.h>

int main(void) {
    ready();
    char buffer[4096];
    ssize_t count;
    while ((count = read(0, buffer, sizeof buffer)) > 0) {
        ssize_t done = 0;
        while (done < count) {
            ssize_t written = write(1, buffer + done, count - done);
            if (written < 0)
                return 1;
            done += written;
        }
    }
    if (count < 0)
        return 2;
    fputs("end of input\n", stderr);
    return 0;
}
