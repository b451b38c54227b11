/* What a sidecar's author checks of a Linux container. Linux only.
   "facts" prints identity, capabilities and environment; "serve" waits for a signal and says which;
   "children N" leaves N processes behind it; "exit N" ends with N. */
#include "guest.h"
#include <signal.h>
#include <unistd.h>

extern char **environ;

static void facts(void) {
    printf("uid %d gid %d\n", getuid(), getgid());
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "Cap", 3) || !strncmp(line, "NoNewPrivs", 10) || !strncmp(line, "Seccomp:", 8))
            fputs(line, stdout);
    for (char **variable = environ; *variable; variable++)
        printf("env %s\n", *variable);
}

static int serve(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    ready();
    int number = 0;
    sigwait(&set, &number);
    printf("signal %d\n", number);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "facts";
    int number = argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(what, "serve"))
        return serve();
    if (!strcmp(what, "exit"))
        return number;
    if (!strcmp(what, "children")) {
        for (int i = 0; i < number; i++)
            if (fork() == 0)
                for (;;)
                    pause();
        ready();
        for (;;)
            pause();
    }
    facts();
    return 0;
}
