#!/usr/bin/env bash
# Usage: hack/chart.d/server.sh
#
# The chart on a real API server: suite `chart-server` of hack/test. Everything is validated strictly, and what the policies refuse
# is tried with the tokens of operator and agents. It makes a cluster "chartcheck" of its own; no image is needed.

# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
me=hack/chart.d/server.sh

name=chartcheck
chart=$root/charts/wasmlet
helm=$cache/helm/$helm_version/bin/helm
digest=sha256:$(printf '1%.0s' {1..64})
cluster() {
    "$root/hack/cluster" --name "$name" "$@"
}
kubectl() { cluster kubectl "$@"; }

checks=0
ok() {
    checks=$((checks + 1))
    echo "ok $SECONDS s: $*"
}

finish() {
    local code=$?
    trap - EXIT ERR
    [ "$code" = 0 ] || cluster collect "$logs/chart-server-failed" || true
    cluster down || true
    rm -rf "$scratch"
    exit "$code"
}

within() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || die "not within $seconds s: $what"
        sleep 0.2
    done
}

validate() {
    local file said
    for file in "$@"; do
        said=$(kubectl apply --dry-run=server --validate=strict --filename "$file" 2>&1) || die "$(basename "$file"): $said"
        ok "valid: $(basename "$file"), $(grep -c 'dry run' <<<"$said") objects"
    done
}

# ask TOKEN PATH JSON [TYPE]: a PATCH; prints what the API server says.
ask() {
    curl --silent --show-error --cacert "$scratch/ca.crt" --header "Authorization: Bearer $1" --request PATCH \
        --header "Content-Type: ${4:-application/merge-patch+json}" --data "$3" "$server$2"
}

# may WHO WHAT ARGUMENTS-OF-ask…
may() {
    local who=$1 what=$2 said
    shift 2
    said=$(ask "$@")
    [ "$(jq -r .kind <<<"$said")" != Status ] || die "$who may not $what: $(jq -r .message <<<"$said")"
    ok "$who may $what"
}

# may_not WORDS WHO WHAT ARGUMENTS-OF-ask…
may_not() {
    local words=$1 who=$2 what=$3 said
    shift 3
    # A policy counts some moments after it was made: the API server has caches of them.
    local tries=30
    while said=$(ask "$@") && [ "$(jq -r .code <<<"$said")" != 403 ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "$who may $what"
        sleep 1
    done
    grep -qF -- "$words" <<<"$(jq -r .message <<<"$said")" ||
        die "$who may not $what, but it is not said by \"$words\": $(jq -r .message <<<"$said")"
    ok "$who may not $what"
}

# token ACCOUNT [OPTION…]
token() { kubectl create token --namespace wasmlet "wasmlet-$1" "${@:2}"; }

agent_pod() {
    agent_pod=$(kubectl get pods --namespace wasmlet --selector app.kubernetes.io/component=agent \
        --field-selector "spec.nodeName=$name-1" --output name | sed -n '1s|^pod/||p')
    [ -n "$agent_pod" ]
}

condition() {
    jq -cn --arg type "$1" --arg status "$2" \
        '{type: $type, status: $status, reason: $type, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}'
}

try_wasmnodes() {
    local nodes=/apis/wasmlet.dev/v1alpha1/wasmnodes agent operator unbound whole
    agent=$(token agent --bound-object-kind Pod --bound-object-name "$agent_pod")
    unbound=$(token agent)
    operator=$(token operator)
    local self="/$name-1" other="/$name-2"
    may operator "say how far a node is" "$operator" "$nodes$self/status" \
        "{\"status\":{\"phase\":\"Applying\",\"conditions\":[$(condition Staged True)]}}"
    may agent "say how its node is" "$agent" "$nodes$self/status" '{"status":{"agent":{"version":"1","state":"Idle"}}}'
    whole="{\"apiVersion\":\"wasmlet.dev/v1alpha1\",\"kind\":\"WasmNode\",\"metadata\":{\"name\":\"$name-1\"},
        \"status\":{\"agent\":{\"version\":\"2\",\"state\":\"Applied\"},\"conditions\":[$(condition Applied True)]}}"
    may agent "do so by server-side apply" "$agent" "$nodes$self/status?fieldManager=wasmlet-node&force=true" "$whole" \
        application/apply-patch+yaml
    local only='status.agent and the conditions Applied and Drifted only'
    may_not "$only" agent "change the phase of its node" "$agent" "$nodes$self/status" '{"status":{"phase":"Ready"}}'
    may_not "$only" agent "change a condition of the operator's" "$agent" "$nodes$self/status" \
        "{\"status\":{\"conditions\":[$(condition Staged False)]}}"
    may_not "its own node only" agent "say how another node is" "$agent" "$nodes$other/status" \
        '{"status":{"agent":{"version":"1","state":"Idle"}}}'
    may_not "its own node only" "a token of no node" "say how a node is" "$unbound" "$nodes$self/status" \
        '{"status":{"agent":{"version":"1","state":"Idle"}}}'
    may_not "cannot patch" agent "change what its node shall have" "$agent" "$nodes$self" '{"spec":{"revision":"x"}}'
    may_not "cannot patch" agent "label its node" "$agent" "/api/v1/nodes/$name-1" '{"metadata":{"labels":{"wasmlet.dev/ready":"true"}}}'
    may_not "cannot patch" agent "change a runtime" "$agent" /apis/wasmlet.dev/v1alpha1/wasmruntimes/wasm '{"spec":{}}'
}

try_node_labels() {
    local node=/api/v1/nodes/$name-1 operator
    operator=$(token operator)
    may operator "label a node ready" "$operator" "$node" '{"metadata":{"labels":{"wasmlet.dev/ready":"true"}}}'
    may operator "take that label away" "$operator" "$node" '{"metadata":{"labels":{"wasmlet.dev/ready":null}}}'
    local only='labels wasmlet.dev/* only'
    may_not "$only" operator "set another label" "$operator" "$node" '{"metadata":{"labels":{"other":"x"}}}'
    may_not "$only" operator "take another label away" "$operator" "$node" '{"metadata":{"labels":{"kubernetes.io/os":null}}}'
    may_not "$only" operator "annotate a node" "$operator" "$node" '{"metadata":{"annotations":{"other":"x"}}}'
    may_not "$only" operator "cordon a node" "$operator" "$node" '{"spec":{"unschedulable":true}}'
    may_not "$only" operator "taint a node" "$operator" "$node" '{"spec":{"taints":[{"key":"x","effect":"NoExecute"}]}}'
}

# An agent that labels its node itself.
try_standalone() {
    local agent
    agent=$(token agent --bound-object-kind Pod --bound-object-name "$agent_pod")
    may "a standalone agent" "label its node" "$agent" "/api/v1/nodes/$name-1" '{"metadata":{"labels":{"wasmlet.dev/ready":"true"}}}'
    may_not "its own node only" "a standalone agent" "label another node" "$agent" "/api/v1/nodes/$name-2" \
        '{"metadata":{"labels":{"wasmlet.dev/ready":"true"}}}'
    may_not "labels wasmlet.dev/* only" "a standalone agent" "set another label" "$agent" "/api/v1/nodes/$name-1" \
        '{"metadata":{"labels":{"other":"x"}}}'
}

main() {
    need_root "$me"
    scratch=$(mktemp -d)
    trap finish EXIT
    cluster down
    cluster up --nodes 2 --containerd "${containerd_default_versions[-1]}"
    KUBECONFIG=$(cluster kubeconfig)
    export KUBECONFIG
    server=$(kubectl config view --raw --output 'jsonpath={.clusters[0].cluster.server}')
    kubectl config view --raw --output 'jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 --decode >"$scratch/ca.crt"

    kubectl create namespace wasmlet
    # The API server looks a pod's RuntimeClass up even then: the test pods' must be there.
    sed 's/: wasm/: fast/' "$root/manifests/runtimeclasses.yaml" >"$scratch/classes.yaml"
    kubectl apply --filename "$scratch/classes.yaml" --filename "$root/manifests/runtimeclasses.yaml"
    validate "$root"/manifests/*.yaml "$chart"/tests/{default,bare,standalone-k3s,standalone-off}.golden.yaml
    # Without what only the Prometheus operator knows.
    awk 'BEGIN { RS = "---\n" } !/kind: ServiceMonitor/ && NF { printf "---\n%s", $0 }' "$chart/tests/everything.golden.yaml" >"$scratch/everything.yaml"
    validate "$scratch/everything.yaml"

    kubectl delete --filename "$scratch/classes.yaml" --filename "$root/manifests/runtimeclasses.yaml"

    local install=(--namespace wasmlet --set "image.registry=registry.invalid,runtime.bundleDigest=$digest")
    "$helm" install wasmlet "$chart" "${install[@]}" >"$scratch/notes"
    ok "helm install"
    for node in 1 2; do
        printf 'apiVersion: wasmlet.dev/v1alpha1\nkind: WasmNode\nmetadata: {name: %s-%s}\nspec: {nodeUID: x}\n' "$name" "$node"
        echo ---
    done | kubectl apply --filename -
    kubectl get configmap --namespace wasmlet wasmlet-runtimes --output jsonpath='{.data.wasm\.yaml}' >"$scratch/runtime.yaml"
    validate "$scratch/runtime.yaml"
    within 30 "a pod of the agent on $name-1" agent_pod
    try_wasmnodes
    try_node_labels
    # A policy that the API server cannot make sense of is only told in its status.
    local said
    said=$(kubectl get validatingadmissionpolicies --output json | jq -r '.items[] | .status.typeChecking.expressionWarnings[]?.warning')
    [ -z "$said" ] || die "a policy: $said"
    ok "the API server understands the policies"

    "$helm" upgrade wasmlet "$chart" "${install[@]}" --set operator.replicas=1 >/dev/null
    ok "helm upgrade"
    "$helm" uninstall wasmlet --namespace wasmlet --no-hooks >/dev/null
    kubectl get crd wasmruntimes.wasmlet.dev wasmnodes.wasmlet.dev >/dev/null
    ok "helm uninstall leaves the definitions"
    "$helm" install wasmlet "$chart" "${install[@]}" --set mode=standalone >/dev/null
    within 30 "a pod of the standalone agent on $name-1" agent_pod
    try_standalone
    echo "$me: $checks checks; Kubernetes $kubernetes_version"
}

main "$@"
