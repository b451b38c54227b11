/* Does to files what its arguments say and tells how each went:
   read PATH, write PATH TEXT, append PATH TEXT, list PATH, unlink PATH, mkdir PATH,
   rename FROM TO, link FROM TO, truncate PATH, stat PATH. */
#include "guest.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void tell(const char *verb, const char *path, int failed) {
    printf("%s %s: %s\n", verb, path, failed ? errno_name(errno) : "ok");
}

static void read_file(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) {
        tell("read", path, 1);
        return;
    }
    char text[4096];
    size_t count = fread(text, 1, sizeof text - 1, file);
    text[count] = 0;
    text[strcspn(text, "\n")] = 0;
    if (ferror(file))
        tell("read", path, 1);
    else
        printf("read %s: ok %s\n", path, text);
    fclose(file);
}

static void write_file(const char *verb, const char *path, const char *text, int flags) {
    int fd = open(path, O_WRONLY | O_CREAT | flags, 0644);
    ssize_t length = strlen(text);
    int failed = fd < 0 || write(fd, text, length) != length;
    tell(verb, path, failed);
    if (fd >= 0)
        close(fd);
}

static void list(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) {
        tell("list", path, 1);
        return;
    }
    printf("list %s: ok", path);
    struct dirent *entry;
    while ((entry = readdir(folder)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            printf(" %s", entry->d_name);
    puts("");
    closedir(folder);
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *verb = argv[i], *path = argv[i + 1];
        const char *more = i + 2 < argc ? argv[i + 2] : "";
        struct stat info;
        if (!strcmp(verb, "read"))
            read_file(path);
        else if (!strcmp(verb, "write"))
            write_file(verb, path, more, O_TRUNC), i++;
        else if (!strcmp(verb, "append"))
            write_file(verb, path, more, O_APPEND), i++;
        else if (!strcmp(verb, "list"))
            list(path);
        else if (!strcmp(verb, "unlink"))
            tell(verb, path, unlink(path));
        else if (!strcmp(verb, "mkdir"))
            tell(verb, path, mkdir(path, 0755));
        else if (!strcmp(verb, "rename"))
            tell(verb, path, rename(path, more)), i++;
        else if (!strcmp(verb, "link"))
            tell(verb, path, link(path, more)), i++;
        else if (!strcmp(verb, "truncate"))
            tell(verb, path, truncate(path, 0));
        else if (!strcmp(verb, "stat"))
            tell(verb, path, stat(path, &info));
        else
            printf("%s: no such verb\n", verb);
    }
    return 0;
}
