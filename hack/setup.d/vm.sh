# shellcheck shell=bash
# What hack/vm needs beyond base: the emulator, and what makes a root image. Sourced by hack/setup.

setup_vm() {
    setup_packages e2fsprogs mmdebstrap qemu-system-x86
}
