/* Says what it was given: arguments, environment, working folder. */
#include "guest.h"
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        printf("arg %s\n", argv[i]);
    for (char **variable = environ; *variable; variable++)
        printf("env %s\n", *variable);
    char folder[4096];
    if (getcwd(folder, sizeof folder))
        printf("cwd %s\n", folder);
    /* The working folder must also work, not only be known. */
    FILE *here = fopen("here.txt", "r");
    if (here) {
        char text[64] = "";
        if (fgets(text, sizeof text, here))
            printf("here %s\n", text);
        fclose(here);
    }
    return 0;
}
