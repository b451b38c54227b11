# shellcheck shell=bash
# What the engines' own makers run guests with, for the conformance suite to compare with. Sourced by
# hack/setup.
#
#   $cache/engine-tools/wasmedge   WasmEdge's command-line program, run with the libraries of hack/setup wasmedge
#   $cache/engine-tools/wasmtime   Wasmtime's Python package, which has the same WASI as `wasmtime run`

# The newest of the series that Cargo.toml pins.
wasmtime_python_version=48.0.0

unpack_wasmedge_tool() {
    local new=$1
    debian_release forky
    debian_unpack forky "$new/root" wasmedge
    mv "$new/root/usr/bin/wasmedge" "$new/wasmedge"
    rm -rf "$new/root"
}

unpack_wasmtime_tool() {
    local new=$1
    mkdir -p "$new"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$new/wheel" "wasmtime==$wasmtime_python_version"
    python3 -m zipfile -e "$new"/wheel/*.whl "$new"
    rm -rf "$new/wheel"
    PYTHONPATH=$new python3 -c "import wasmtime; wasmtime.Engine()"
}

unpack_engine_tools() {
    local new=$cache/engine-tools.new
    rm -rf "$new"
    mkdir -p "$new"
    unpack_wasmedge_tool "$new"
    unpack_wasmtime_tool "$new/wasmtime"
    publish "$new" "$cache/engine-tools"
}

setup_engine_tools() {
    setup_wasmedge
    [ ! -x "$cache/engine-tools/wasmedge" ] || return 0
    python3 -m pip --version >/dev/null 2>&1 || setup_packages python3-pip
    step "fetching WasmEdge's and Wasmtime's own tools, to compare with" "$logs/setup-engine-tools.log" \
        unpack_engine_tools
    did "unpacked WasmEdge's and Wasmtime's own tools into $cache/engine-tools"
}
