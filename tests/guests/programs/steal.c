/* Looks for a way out through everything it was given. Says "found PATH" for each that opens and
   ends with 100 when there was one. A path is tried as it is, from every preopened folder and with
   ".." in front. */
#include "guest.h"
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

static const char *const wanted[] = {
    "proc/self/mem",   "proc/self/maps", "proc/self/exe", "proc/self/environ", "proc/self/fd",
    "proc/self/root",  "proc/1/mem",     "proc/1/environ", "proc/1/root/etc/hostname",
    "proc/mounts",     "proc/kcore",     "proc/sysrq-trigger", "sys/kernel", "sys/fs/cgroup",
    "dev/mem",         "dev/kmsg",       "dev/vda",        "dev/sda",
    "run/containerd/containerd.sock",    "run/wasmlet",
};
static const char *const before[] = {"/", "", "./", "../", "../../../../", "/data/../../", "/tmp/../../../"};

static int found;

static void look(const char *path) {
    static const int modes[] = {O_RDONLY, O_RDWR};
    for (unsigned i = 0; i < 2; i++) {
        int fd = open(path, modes[i]);
        if (fd < 0)
            continue;
        /* An empty folder of that name in the image is nobody's secret. */
        char byte;
        int readable = read(fd, &byte, 1) == 1;
        DIR *folder = readable ? NULL : opendir(path);
        int entries = 0;
        struct dirent *entry;
        while (folder && (entry = readdir(folder)))
            entries += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
        if (folder)
            closedir(folder);
        close(fd);
        if (readable || entries) {
            printf("found %s\n", path);
            found = 1;
        }
    }
}

int main(void) {
    char path[512];
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++)
        for (unsigned j = 0; j < sizeof before / sizeof *before; j++) {
            snprintf(path, sizeof path, "%s%s", before[j], wanted[i]);
            look(path);
        }
    /* Descriptors that nobody meant to hand over. */
    for (int fd = 3; fd < 64; fd++) {
        int proc = openat(fd, "proc/self/mem", O_RDONLY);
        if (proc < 0)
            proc = openat(fd, "self/mem", O_RDONLY);
        if (proc >= 0) {
            printf("found memory through descriptor %d\n", fd);
            found = 1;
        }
    }
    puts(found ? "a way out" : "no way out");
    return found ? 100 : 0;
}
