# shellcheck shell=bash
# The WasmEdge library, unpacked from Debian testing. Sourced by hack/setup.
#
#   $cache/wasmedge/include   headers of the C API
#   $cache/wasmedge/lib       libwasmedge, the C and C++ libraries it wants with their loader, and in place of
#                             libLLVM a library of the same name in which every function traps: what the
#                             runner gets (docs/decisions/0009)
#   $cache/wasmedge/lib/llvm  the real libLLVM and what it wants: what the compile helper gets
#   $cache/wasmedge/link      only libwasmedge, for the linker (see use_wasmedge in hack/lib.sh)
#   $cache/wasmedge/package   name and version of the package
#   $cache/wasmedge/libraries for each library its package and that one's version, for bills of materials

# As in shim/engines/wasmedge/src/settings.rs.
wasmedge_version=0.17.1

# Everything that libwasmedge is linked to, but for libLLVM, the C library's loader, and what libLLVM is
# linked to.
wasmedge_libs=(libwasmedge.so.0 libspdlog.so.1.15 libfmt.so.11 libstdc++.so.6 libgcc_s.so.1 libm.so.6 libc.so.6
    libz.so.1 libzstd.so.1)
wasmedge_llvm_libs=(libLLVM.so.21.1 libffi.so.8 libedit.so.2 libtinfo.so.6 libxml2.so.16 libz3.so.4 libbsd.so.0
    libmd.so.0)

# The names of a library's undefined symbols of one version, sorted.
undefined_symbols() { nm -D --undefined-only "$1" | sed -n "s/.* U \(.*\)@$2\$/\1/p" | sort -u; }

# A shared object in the place of libLLVM: the runner never compiles, so nothing of it is ever called.
make_trapping_llvm() {
    local wasmedge=$1 output=$2 work=$3 version=LLVM_21.1 symbol
    {
        echo 'static void trap(void) { __builtin_trap(); }'
        # The linker checks no types: vtables get the same address.
        for symbol in $(undefined_symbols "$wasmedge" "$version"); do
            echo "void $symbol(void) __attribute__((alias(\"trap\")));"
        done
    } >"$work/trap.c"
    echo "$version { global: *; };" >"$work/trap.map"
    gcc -shared -nostdlib -Os -fPIC -w "$work/trap.c" -o "$output" \
        -Wl,-soname,libLLVM.so.21.1 -Wl,--version-script="$work/trap.map" -s
}

# library_packages FOLDER LIBRARY…: a line for each library, with name and version of the package among FOLDER's
# that has it.
library_packages() {
    local folder=$1 package contents library
    shift
    for package in "$folder"/*.deb; do
        contents=$(dpkg-deb --contents "$package" | sed -n 's|^[-l].* \./.*/\([^/ ]*\.so[^/ ]*\)\( -> .*\)\?$|\1|p')
        for library in "$@"; do
            if grep -qxF "$library" <<<"$contents"; then
                echo "$library $(dpkg-deb --field "$package" Package) $(dpkg-deb --field "$package" Version)"
            fi
        done
    done | sort -u
}

link_wasmedge() {
    mkdir -p "$1/link"
    ln -sfn ../lib/libwasmedge.so.0 "$1/link/libwasmedge.so"
}

unpack_wasmedge() {
    local new=$cache/wasmedge.new from library
    rm -rf "$new"
    mkdir -p "$new/lib/llvm"
    debian_release forky
    debian_unpack_closure forky "$new/root" '^libc-gconv' libwasmedge-dev
    library_packages "$new/root.debs" "${wasmedge_libs[@]}" "${wasmedge_llvm_libs[@]}" 'ld-linux-x86-64.so.2' 'ld-linux-aarch64.so.1' \
        >"$new/libraries"
    rm -rf "$new/root.debs"
    from=$new/root/usr/lib/$(uname -m)-linux-gnu
    grep -q "WASMEDGE_VERSION \"$wasmedge_version\"" "$new/root/usr/include/wasmedge/version.h" || {
        echo "Debian testing has another WasmEdge than $wasmedge_version by now; point WASMEDGE_DIR at an installation of it"
        return 1
    }
    # Links are followed: each library under the name by which it is looked for.
    for library in "${wasmedge_libs[@]}"; do cp -L "$from/$library" "$new/lib/"; done
    cp -L "$new"/root/usr/lib*/ld-linux-*.so.* "$new/lib/"
    ln -s libwasmedge.so.0 "$new/lib/libwasmedge.so"
    link_wasmedge "$new"
    for library in "${wasmedge_llvm_libs[@]}"; do cp -L "$from/$library" "$new/lib/llvm/"; done
    make_trapping_llvm "$new/lib/libwasmedge.so.0" "$new/lib/libLLVM.so.21.1" "$new"
    mv "$new/root/usr/include" "$new/include"
    debian_apt forky apt-cache show libwasmedge0 | sed -n 's/^Version: /libwasmedge0 /p' | head -n 1 >"$new/package"
    rm -rf "$new/root" "$new/trap.c" "$new/trap.map"
    # It loads, by its own loader and with nothing of this machine's.
    library=$(echo "$new"/lib/ld-linux-*.so.*)
    "$library" --inhibit-cache --library-path "$new/lib" --list "$new/lib/libwasmedge.so.0"
    publish "$new" "$cache/wasmedge"
}

setup_wasmedge() {
    if [ -e "$cache/wasmedge/package" ]; then
        link_wasmedge "$cache/wasmedge"
        return
    fi
    # A library of the user's own.
    [ -z "${WASMEDGE_DIR:-}" ] || return 0
    step "unpacking WasmEdge $wasmedge_version from Debian testing (about 60 MB, into the cache folder)" \
        "$logs/setup-wasmedge.log" unpack_wasmedge
    did "unpacked WasmEdge $wasmedge_version from Debian testing into $cache/wasmedge"
}
