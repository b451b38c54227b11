# shellcheck shell=bash
# What hack/vm needs beyond base: the emulator, and what makes a root image. Sourced by hack/setup.

vm_packages=(e2fsprogs mmdebstrap qemu-system-x86)

setup_vm() {
    local package missing=()
    for package in "${vm_packages[@]}"; do
        # shellcheck disable=SC2016 # dpkg's own placeholder
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "installing ${missing[*]}"
    step "installing Debian packages: ${missing[*]}" "$logs/setup-vm.log" install_packages "${missing[@]}"
    did "installed Debian packages: ${missing[*]}"
}
