# shellcheck shell=bash
# Compilers for guests: Rust and C to wasm32-wasip1. Sourced by hack/setup.

zig_version=0.17.1

# Whether the Rust that builds the workspace has the standard library of a target.
rust_has_target() {
    local sysroot
    sysroot=$(cd "$root" && rustc --print sysroot 2>/dev/null) || return 1
    [ -d "$sysroot/lib/rustlib/$1/lib" ]
}

setup_guests() {
    if ! rust_has_target wasm32-wasip1 && [ ! -x "$debian_rust/bin/rustc" ]; then
        # rustup's is preferred where its server can be reached: the same compiler for everything.
        if command -v rustup >/dev/null &&
            (cd "$root" && step "adding the wasm32-wasip1 target with rustup" "$logs/setup-wasip1.log" \
                timeout 120 rustup target add wasm32-wasip1 2>/dev/null); then
            did "added the wasm32-wasip1 target with rustup"
        else
            say "rustup has no wasm32-wasip1 here (no network to its server?); taking Debian testing's"
            setup_debian_rust
        fi
    fi
    setup_zig
}

unpack_zig() {
    local new=$cache/zig.new
    rm -rf "$new"
    mkdir -p "$new"
    "${pip[@]}" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$new/wheel" "ziglang==$zig_version"
    python3 -m zipfile -e "$new"/wheel/*.whl "$new"
    rm -rf "$new/wheel"
    chmod 755 "$new/ziglang/zig"
    "$new/ziglang/zig" version
    publish "$new" "$cache/zig"
}

setup_zig() {
    [ ! -x "$cache/zig/ziglang/zig" ] || return 0
    pip=(python3 -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        setup_packages python3-pip
    fi
    step "fetching the C compiler for guests (zig $zig_version)" "$logs/setup-zig.log" unpack_zig
    did "unpacked zig $zig_version into $cache/zig"
}
