# shellcheck shell=bash
# What building needs: Debian packages, and Rust. Sourced by hack/setup.

# Package and who needs it.
base_packages=(
    ca-certificates    # cargo, Go and pip
    curl               # the demo talks to the container with it
    gcc libc6-dev      # the linker; libc.a for static programs
    iproute2           # the demo's network namespace and bridge
    jq                 # scripts read JSON with it
    libclang1          # reads WasmEdge's headers while its crate is built
    libseccomp-dev     # libseccomp.a, linked into the runner
    pkg-config         # finds it
    procps             # ps, for the leak checks
    protobuf-compiler  # the client API of containerd
    runc               # Linux containers beside wasm ones
    shellcheck         # hack/test fmt
    util-linux         # flock, nsenter, unshare
    xz-utils zstd      # unpacking
)

# Which of these packages are not installed.
missing_packages() {
    local package
    # One call: dpkg-query is slow enough to notice when called for each. It fails for names it does
    # not know, which are missing ones too.
    { dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } |
        sed -n 's/^installed //p' | sort >"$scratch/installed"
    for package in "$@"; do
        grep -qx "$package" "$scratch/installed" || echo "$package"
    done
}

install_packages() {
    # Services of a package must not start: this machine's containerd is none of our business.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=yes
    fi
    local status=0
    apt-get update || status=$?
    [ "$status" != 0 ] ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" || status=$?
    [ -z "$made" ] || rm -f "$policy"
    return "$status"
}

# setup_packages PACKAGE…: installs those that are missing.
setup_packages() {
    local missing
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || die "these Debian packages are missing: $missing— install them with: sudo apt-get install ${missing% }"
    # shellcheck disable=SC2086 # a list of names
    step "installing Debian packages: ${missing% }" "$logs/setup-packages.log" install_packages $missing
    did "installed Debian packages: ${missing% }"
}

setup_base() {
    setup_packages "${base_packages[@]}"
    setup_rust
}

setup_rust() {
    cargo_works && return
    local pinned
    pinned=$(rust_pinned)
    if command -v rustup >/dev/null; then
        if (step "installing Rust $pinned with rustup" "$logs/setup-rust.log" \
            rustup toolchain install "$pinned" --profile minimal -c rustfmt -c clippy); then
            did "installed Rust $pinned with rustup"
            return
        fi
        warn "rustup could not install Rust $pinned; taking Debian testing's rustc instead"
    fi
    local first=
    [ -x "$debian_rust/bin/cargo" ] || first=yes
    setup_debian_rust
    PATH=$debian_rust/bin:$PATH
    cargo_works || die "Debian testing's rustc does not work here: $("$debian_rust/bin/rustc" --version 2>&1 | head -n 1)"
    [ -z "$first" ] ||
        warn "building with Debian testing's $(rustc --version); the pinned $pinned needs rustup, and so do the suites fmt and clippy"
}

# Compilers and standard libraries, without what only a system compiler needs.
debian_rust_skip='^(gcc|cpp|binutils|lib(asan|tsan|lsan|ubsan|hwasan|cc1|itm|gomp|quadmath|isl|mpc|mpfr|gprofng|ctf|binutils|c-dev|c6-dev|gcc-[0-9]+-dev)|linux-libc-dev)'

unpack_debian_rust() {
    local new=$debian_rust.new
    rm -rf "$new"
    debian_release forky
    debian_unpack_closure forky "$new/root" "$debian_rust_skip" \
        rustc cargo libstd-rust-dev libstd-rust-dev-wasm32 lld
    rm -rf "$new/root.debs"
    mkdir -p "$new/bin"
    local lld
    lld=$(cd "$new/root" && echo usr/lib/llvm-*/bin/lld)
    # shellcheck disable=SC2016 # expanded by the wrapper
    debian_rust_wrapper rustc usr/bin/rustc '--sysroot "$root/usr"'
    debian_rust_wrapper cargo usr/bin/cargo ''
    debian_rust_wrapper wasm-ld "$lld" ''
    "$new/bin/rustc" --version
    "$new/bin/wasm-ld" --version
    publish "$new" "$debian_rust"
}

# debian_rust_wrapper NAME PROGRAM OPTIONS: these programs need a newer libc than Debian 12 has;
# they are started with the one unpacked beside them, and the system's own is left alone.
debian_rust_wrapper() {
    cat >"$new/bin/$1" <<WRAPPER
#!/bin/sh
bin=\$(cd "\$(dirname "\$0")" && pwd -P)
root=\$bin/../root
libs=\$root/usr/lib/$(uname -m)-linux-gnu
# cargo looks for its compiler by name.
PATH=\$bin:\$PATH
exec "\$root"/usr/lib64/ld-linux-*.so.* --argv0 $1 --library-path "\$libs" "\$root/$2" $3 "\$@"
WRAPPER
    chmod 755 "$new/bin/$1"
}

setup_debian_rust() {
    [ ! -x "$debian_rust/bin/rustc" ] || return 0
    step "unpacking Debian testing's Rust with wasm targets (about 220 MB, into the cache folder)" \
        "$logs/setup-debian-rust.log" unpack_debian_rust
    did "unpacked $("$debian_rust/bin/rustc" --version) from Debian testing into $debian_rust"
}
