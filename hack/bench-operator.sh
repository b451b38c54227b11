# shellcheck shell=bash
# The benchmark of the operator: a real control plane without nodes, and nodes that are simulated. Sourced by hack/bench.

operator_cluster=bench-operator

cluster_of_bench() { "$root/hack/cluster" "$@" --name "$operator_cluster"; }

build_measuring() { (cd "$root" && cargo build --locked --profile "$1" --package wasmlet-operator-bench); }

# bench_operator PROFILE NODES…: each number of nodes on a control plane of its own. The operator is the program that is shipped.
bench_operator() {
    local profile=$1 count
    shift
    "$root/hack/setup" kubernetes | { grep -v 'nothing to do' || true; }
    [ -n "$no_build" ] || "$root/hack/build" "${build_options[@]}" wasmlet-operator
    step "building the operator's measuring program" "$logs/bench-operator-build.log" build_measuring "$profile"
    mkdir -p "$target/bench"
    trap 'cluster_of_bench down' EXIT
    for count in "$@"; do
        say "operator with $count simulated nodes …"
        cluster_of_bench down
        measure_operator "$target/${profile/#dev/debug}/wasmlet-operator-bench" "$count" |
            tee "$target/bench/operator-$count.txt"
    done
    trap - EXIT
    cluster_of_bench down
}

# measure_operator PROGRAM NODES
measure_operator() {
    local program=$1 count=$2 pki
    cluster_of_bench up --nodes 0
    # Figures are of the operator and of the API server; whoever else would react to nodes and pods is away.
    cluster_of_bench control stop kube-controller-manager
    cluster_of_bench control stop kube-scheduler
    pki=$cache/clusters/$operator_cluster/pki
    kubelet_certificate "$pki" "$(cluster_of_bench registry | cut -d: -f1)"
    "$root/hack/cluster" --name "$operator_cluster" kubectl apply --server-side \
        --filename "$root/charts/wasmlet/files/crds"
    "$root/hack/cluster" --name "$operator_cluster" kubectl wait --for=condition=Established --timeout=60s \
        crd/wasmruntimes.wasmlet.dev crd/wasmnodes.wasmlet.dev
    "$program" --kubeconfig "$(cluster_of_bench kubeconfig)" \
        --operator "$target/dist/operator/wasmlet-operator" --nodes "$count" \
        --address "$(cluster_of_bench registry | cut -d: -f1)" \
        --certificate "$pki/simulated.crt" --key "$pki/simulated.key" --log "$logs/bench-operator-$count.log"
}

# kubelet_certificate FOLDER ADDRESS: for the port of the simulated kubelets, by the cluster's own authority.
kubelet_certificate() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /O=system:nodes/CN=simulated \
        -keyout "$1/simulated.key" -out "$1/simulated.csr" 2>/dev/null
    openssl x509 -req -in "$1/simulated.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -set_serial "0x$(openssl rand -hex 8)" \
        -days 2 -out "$1/simulated.crt" -extfile <(printf 'extendedKeyUsage=serverAuth\nsubjectAltName=IP:%s\n' "$2") 2>/dev/null
}
