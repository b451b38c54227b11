# shellcheck shell=bash
# Tools of the test suites that no Debian 12 package has. Sourced by hack/setup.

cargo_deny_version=0.20.2
cargo_deny=$cache/tools/cargo-deny-$cargo_deny_version/bin/cargo-deny

install_cargo_deny() {
    # Built elsewhere: the clone's settings (toolchain, lock, target folder) are not its.
    mkdir -p "$cache/tools"
    cd "$cache/tools" || return
    local toolchain=()
    # The workspace's toolchain, where rustup is at work; there may be no default one.
    if rustup toolchain list 2>/dev/null | grep -q "^$(rust_pinned)"; then toolchain=("+$(rust_pinned)"); fi
    cargo "${toolchain[@]}" install --locked "cargo-deny@$cargo_deny_version" \
        --root "$cache/tools/cargo-deny-$cargo_deny_version" --target-dir "$cache/tools/build"
    rm -rf "$cache/tools/build"
}

setup_tools() {
    [ ! -x "$cargo_deny" ] || return 0
    use_cargo
    step "building cargo-deny $cargo_deny_version (2 to 4 minutes)" "$logs/setup-cargo-deny.log" install_cargo_deny
    did "installed cargo-deny $cargo_deny_version into $cache/tools"
}
