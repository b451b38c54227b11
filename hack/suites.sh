# shellcheck shell=bash
# The suites of hack/test: their order, one line about each, and what they do. Sourced by hack/test.
# Each runs in a process of its own with `set -e`; what it prints is its log. A line written to
# $logs/SUITE.note appears beside its result.

# shellcheck disable=SC2034 # all three are used by hack/test
# Cheapest first.
suites=(fmt ledger deny chart clippy doc unit build guests model conformance cgroup-v2 demo bench-smoke cluster chart-server e2e operator)

# shellcheck disable=SC2034
declare -A suite_text=(
    [fmt]="formatting of Rust, and shellcheck on every script"
    [ledger]="our advisory ledger, the changelog and the decisions; what each program must not link"
    [deny]="licences, bans and sources of dependencies; public advisories where the database is reachable"
    [chart]="the chart: lint, schema, golden renders, what its pods may; manifests and reference pages are up to date"
    [clippy]="clippy on everything, warnings are errors"
    [doc]="documentation builds without a warning"
    [unit]="tests of all crates, their documentation's examples included, that need no containerd"
    [build]="the static programs of the node and of the operator; images of them, twice the same"
    [guests]="the examples build, and their own lints and tests pass"
    [model]="the example's model is as accurate as promised"
    [conformance]="the shim through real containerd and raw ttrpc, and the same tests on runc"
    [cgroup-v2]="the shim on pure cgroup v2 with systemd as process 1, in an emulated machine"
    [demo]="hack/demo answers, and leaves nothing behind"
    [e2e]="pods on a Kubernetes of two nodes, one on the oldest and one on the newest containerd"
    [operator]="wasmlet is installed, upgraded, broken, repaired and removed on a Kubernetes of three nodes"
    [bench-smoke]="every benchmark runs (a few rounds; no figure is judged)"
    [chart-server]="the chart on a real API server: strictly validated; what agents and operator may change"
    [cluster]="hack/cluster makes a Kubernetes cluster that works, and leaves nothing behind"
)
# shellcheck disable=SC2034
declare -A suite_root=([conformance]=yes [cgroup-v2]=yes [demo]=yes [bench-smoke]=yes [cluster]=yes [chart-server]=yes [e2e]=yes
    [operator]=yes)

note() { echo "$*" >"$logs/$(suite_name).note"; }
# suite_bench_smoke → bench-smoke, for whichever suite is calling.
suite_name() {
    local caller
    for caller in "${FUNCNAME[@]}"; do
        case $caller in
            suite_name) ;;
            suite_*) echo "${caller#suite_}" | tr _ - ;;
        esac
    done
}

need_rustup_component() {
    cargo "$1" --version >/dev/null 2>&1 ||
        die "cargo $1 is missing: install rustup and run: rustup component add $2 (Debian's compiler in the cache folder has none)"
}

# Every script of the repository, by what its first line says.
scripts() {
    git -C "$root" ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            [ -f "$root/$file" ] || continue
            case $file in
                *.sh) echo "$root/$file" ;;
                *.*) ;;
                *) head -n 1 "$root/$file" | tr -d '\0' | grep -Eq '^#!.*\b(ba)?sh$' && echo "$root/$file" ;;
            esac || true
        done
}

suite_fmt() {
    use_cargo
    need_rustup_component fmt rustfmt
    cd "$root"
    cargo fmt --all --check
    local list
    mapfile -t list < <(scripts)
    [ ${#list[@]} -gt 5 ] || die "found only ${#list[@]} scripts: is this a git clone?"
    shellcheck "${list[@]}"
    note "${#list[@]} scripts"
}

suite_ledger() {
    use_cargo
    cd "$root"
    cargo test --locked --package wasmlet-repo-checks
    "$root/hack/build" --check-only
}

suite_deny() {
    "$root/hack/setup" tools
    use_cargo
    cd "$root"
    local deny
    deny=$(echo "$cache"/tools/cargo-deny-*/bin/cargo-deny)
    "$deny" --locked check licenses bans sources
    # The database lives on a code-hosting site that not every machine reaches.
    if ! timeout 90 "$deny" --locked fetch db; then
        note "advisory database not reachable: only docs/advisories.toml was checked (suite ledger)"
        return
    fi
    if "$deny" --locked --offline check advisories; then
        note "no public advisory applies"
    else
        # Reported, not blocking: a fresh advisory would turn every change red at once.
        note "WARNING: public advisories apply, see $logs/deny.log"
    fi
}

suite_chart() {
    "$root/hack/setup" helm
    "$root/hack/chart.d/offline.sh"
    note "$(tail -n 1 "$logs/chart.log")"
}

suite_chart_server() {
    "$root/hack/setup" helm kubernetes "containerd:${containerd_default_versions[-1]}"
    "$root/hack/chart.d/server.sh"
    note "$(sed -n 's/.*: \([0-9]* checks; .*\)/\1/p' "$logs/chart-server.log")"
}

suite_clippy() {
    # The crate of WasmEdge reads the library's headers even when it is only checked.
    "$root/hack/setup" wasmedge
    use_cargo
    need_rustup_component clippy clippy
    cd "$root"
    cargo clippy --locked --workspace --all-targets -- -D warnings
}

suite_doc() {
    "$root/hack/setup" wasmedge
    use_cargo
    cd "$root"
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
}

suite_unit() {
    # Tests of the WasmEdge crate are linked to the library.
    "$root/hack/setup" wasmedge
    use_cargo
    cd "$root"
    cargo test --locked --no-fail-fast --workspace --exclude wasmlet-conformance --exclude wasmlet-repo-checks \
        --exclude wasmlet-e2e
    # Its tests are for a cluster; the harness has some of its own.
    cargo test --locked --no-fail-fast --package wasmlet-e2e --lib
}

# With less optimisation than a release, in all suites: it is the same code, and takes half an hour less.
suite_build() {
    "$root/hack/build" --quick
    # Cargo says them again for what is built already. Clippy has seen all features of a crate together;
    # these are the programs' own.
    local warned
    warned=$(grep -l '^warning: .* generated [0-9]* warning' "$logs"/build-*.log || true)
    [ -z "$warned" ] || die "the compiler warns of something:"$'\n'"$warned"
    # The images of the same programs, made twice, by somebody with another umask.
    local first second
    "$root/hack/images" --no-build operator node
    first=$(jq .images "$target/images/images.json")
    (umask 077 && "$root/hack/images" --no-build operator node)
    second=$(jq .images "$target/images/images.json")
    [ "$first" = "$second" ] || die "the same programs gave other images:"$'\n'"$first"$'\n'"$second"
    note "images made twice, the same"
}

suite_guests() {
    "$root/hack/setup" guests
    local built=0 example
    for example in "$root"/examples/*/build; do
        [ -x "$example" ] || continue
        echo "== $example"
        "$example"
        built=$((built + 1))
        [ ! -x "${example%/build}/test" ] || "${example%/build}/test"
    done
    [ "$built" -gt 0 ] || die "no examples/*/build found"
    note "$built examples"
}

suite_model() {
    "$root/hack/setup" model
    "$root/examples/inference/model/check"
}

suite_conformance() {
    local versions version
    IFS=, read -ra versions <<<"$WASMLET_CONTAINERD_VERSIONS"
    "$root/hack/setup" base guests engine-tools
    for version in "${versions[@]}"; do
        "$root/hack/setup" "containerd:$version"
    done
    "$root/hack/build" --quick
    "$root/examples/http-component/build"
    use_cargo
    cd "$root"
    # What a test would skip for lack of something is a failure here: everything was installed above.
    export WASMLET_REQUIRE=1
    for version in "${versions[@]}"; do
        WASMLET_CONTAINERD_BIN=$(containerd_bin "$version") \
            cargo test --locked --package wasmlet-image --features containerd --test containerd
    done
    WASMLET_BIN_DIR=$target/dist/bin cargo test --locked --package wasmlet-conformance
    note "containerd ${WASMLET_CONTAINERD_VERSIONS//,/, }"
}

suite_cgroup_v2() {
    if [ "$(uname -m)" != x86_64 ]; then
        note "not run: hack/vm emulates x86_64 only"
        return
    fi
    "$root/hack/build" --quick
    "$root/hack/vm"
    note "$(grep -ac '^ok ' "$logs/vm.log") checks"
}

suite_demo() {
    local engine
    "$root/hack/demo" --quick --nn --self-test | tee "$logs/demo-run.log"
    # The same picture gets the same answer, which the demo checks.
    for engine in wasmedge wasmer; do
        "$root/hack/demo" --quick --engine "$engine" --self-test
    done
    # The second example: a model of the user's, as large as MobileNetV2, in the same 64 MiB.
    local model=$target/examples/inference-byo/model
    python3 "$root/examples/inference-byo/make-mobilenetv2.py" "$model"
    "$root/hack/demo" --quick --model "$model" --self-test
    # Left running and ended by hand, there must be nothing left either.
    "$root/hack/demo" --quick --keep
    "$root/hack/demo" --stop
    "$root/hack/demo" --check-leftovers
    note "$(sed -n 's/.*\(answer: .*\)/\1/p' "$logs/demo-run.log")"
}

suite_bench_smoke() {
    local all
    # In one run, so that the programs are looked at once.
    mapfile -t all < <("$root/hack/bench" --list | cut -d' ' -f1)
    "$root/hack/bench" --quick --smoke "${all[@]}"
}

suite_cluster() {
    local setup=(kubernetes) version versions
    IFS=, read -ra versions <<<"$WASMLET_CONTAINERD_VERSIONS"
    for version in "${versions[@]}"; do setup+=("containerd:$version"); done
    "$root/hack/setup" "${setup[@]}"
    "$root/hack/cluster.d/smoke.sh" | tee "$logs/cluster-smoke.log"
    note "$(sed -n 's/.*: \([0-9]* checks; .*\)/\1/p' "$logs/cluster-smoke.log")"
}

suite_e2e() {
    "$root/hack/setup" base guests kubernetes
    "$root/hack/build" --quick
    export WASMLET_E2E_INFERENCE_IMAGE=$target/examples/inference/image.tar
    "$root/examples/inference/build" --image="$WASMLET_E2E_INFERENCE_IMAGE"
    use_cargo
    cd "$root"
    [ -n "${WASMLET_E2E_KUBECONFIG:-}" ] || "$root/hack/demo" --cluster --quick --self-test
    # Before there is a cluster: compiling takes both processors.
    cargo test --locked --package wasmlet-e2e --test suite --no-run
    if [ -n "${WASMLET_E2E_KUBECONFIG:-}" ]; then
        run_e2e
        return
    fi
    e2e_cluster_up e2e
    "$root/hack/cluster" install-shim --name "$e2e_cluster"
    run_e2e
}

# e2e_cluster_up NAME OPTION…: a cluster of the suite's own, and what its tests need to know of it.
e2e_cluster_up() {
    local options=() version
    e2e_cluster=$1
    shift
    trap end_e2e_cluster EXIT
    "$root/hack/cluster" down --name "$e2e_cluster"
    read -ra options <<<"${WASMLET_E2E_UP:-}"
    "$root/hack/cluster" up --name "$e2e_cluster" "$@" "${options[@]}"
    version=$("$root/hack/cluster" list | awk -v name="$e2e_cluster" '$1 == name { print $3 }')
    WASMLET_E2E_CLUSTER=$e2e_cluster
    WASMLET_E2E_KUBECONFIG=$("$root/hack/cluster" kubeconfig --name "$e2e_cluster")
    WASMLET_E2E_REGISTRY=$("$root/hack/cluster" registry --name "$e2e_cluster")
    WASMLET_E2E_KUBECTL=$cache/kubernetes/${version%,}/bin/kubectl
    # What a case would leave out for lack of something is a failure: this cluster has all.
    export WASMLET_REQUIRE=1
    export WASMLET_E2E_CLUSTER WASMLET_E2E_KUBECONFIG WASMLET_E2E_REGISTRY WASMLET_E2E_KUBECTL
}

run_e2e() {
    cargo test --locked --package wasmlet-e2e --test suite -- ${WASMLET_E2E_FILTER:+"$WASMLET_E2E_FILTER"}
    note "$(sed -n 's/^test result: ok\. \([1-9][0-9]* passed\).*/\1/p' "$logs/e2e.log" | tail -n 1)"
}

# Three nodes: the oldest containerd, one in the middle, the newest.
suite_operator() {
    local nodes=1.6.20,2.1.9,2.3.7 version
    [ -z "${WASMLET_E2E_KUBECONFIG:-}" ] || {
        note "not run: it changes nodes, and those of --kubeconfig are not its own"
        return
    }
    "$root/hack/setup" base guests kubernetes helm
    # 1.7.24 comes with a node that is added.
    for version in ${nodes//,/ } 1.7.24; do "$root/hack/setup" "containerd:$version"; done
    "$root/hack/build" --quick
    "$root/hack/images" --no-build
    export WASMLET_E2E_INFERENCE_IMAGE=$target/examples/inference/image.tar
    "$root/examples/inference/build" --image="$WASMLET_E2E_INFERENCE_IMAGE"
    use_cargo
    cd "$root"
    cargo test --locked --package wasmlet-e2e --test operator --no-run
    e2e_cluster_up operator --nodes 3 --containerd "$nodes"
    "$root/hack/images" --no-build --push "$WASMLET_E2E_REGISTRY" operator node
    WASMLET_E2E_IMAGES=$target/images
    WASMLET_E2E_HELM=$cache/helm/$helm_version/bin/helm
    export WASMLET_E2E_IMAGES WASMLET_E2E_HELM
    cargo test --locked --package wasmlet-e2e --test operator -- ${WASMLET_E2E_FILTER:+"$WASMLET_E2E_FILTER"}
    note "$(sed -n 's/^test result: ok\. \([1-9][0-9]* passed\).*/\1/p' "$logs/operator.log" | tail -n 1)"
}

end_e2e_cluster() {
    local status=$?
    [ "$status" = 0 ] || "$root/hack/cluster" collect --name "$e2e_cluster" "$logs/$e2e_cluster-cluster" || true
    if [ "${WASMLET_E2E_KEEP:-}" = 1 ]; then
        echo "kept: hack/cluster down --name $e2e_cluster removes it"
        return
    fi
    "$root/hack/cluster" down --name "$e2e_cluster"
}
