#!/usr/bin/env bash
# Usage: hack/chart.d/offline.sh
#
# What can be said of the chart without a cluster: suite `chart` of hack/test.

# shellcheck disable=SC2016 # the variables in quotes are jq's

# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
me=hack/chart.d/offline.sh

chart=$root/charts/wasmlet
helm=$cache/helm/$helm_version/bin/helm
checks=0
ok() {
    checks=$((checks + 1))
    echo "ok: $*"
}

digest=sha256:$(printf '1%.0s' {1..64})
own=(--set "image.registry=registry.example,runtime.bundleDigest=$digest")

lint() {
    local values
    for values in "$chart"/tests/*.values.yaml; do
        "$helm" lint --strict --quiet "$chart" "${own[@]}" --values "$values"
        ok "lint, $(basename "$values")"
    done
}

# A key that is misspelt must not be taken for one that is left out.
check_schema() {
    local open
    open=$(jq -r 'paths(objects) as $path | getpath($path)
        | select(.type? == "object" and (.properties? or .additionalProperties? == null) and .additionalProperties? != false)
        | ($path | join("/"))' "$chart/values.schema.json" | grep -Ev '^properties/global$|/(nodeAffinity|podAffinity|podAntiAffinity|namespaceSelector|podSelector|ipBlock)$' || true)
    [ -z "$open" ] || die "values.schema.json lets unknown keys through at: $open; add \"additionalProperties\": false"
    ok "the schema refuses unknown keys everywhere"
}

check_refusals() {
    local line value words said
    while IFS= read -r line; do
        case $line in '#'* | '') continue ;; esac
        value=${line%% | *} words=${line#* | }
        said=$("$helm" template wasmlet "$chart" "${own[@]}" --set "$value" 2>&1 >/dev/null) &&
            die "charts/wasmlet/tests/refused.txt: $value was accepted"
        grep -qF -- "$words" <<<"$said" || die "$value is refused, but without the words \"$words\":"$'\n'"$said"
        ok "refused: $value"
    done <"$chart/tests/refused.txt"
}

# as_json FILE
as_json() { "$target/debug/release-tool" json "$1"; }

# must_be_none WHAT FILE JQ-FILTER: the filter finds nothing.
must_be_none() {
    local found
    found=$(as_json "$2" | jq -r "[.[] | select(. != null)] | $3")
    [ -z "$found" ] || die "$(basename "$2"): $1: $found"
}

# jq: what the specs of all pods are, each with the name of its object.
pods='.[] | select(.kind == "Deployment" or .kind == "DaemonSet" or .kind == "Job" or .kind == "Pod")
    | {name: "\(.kind)/\(.metadata.name)", spec: (.spec.template.spec // .spec)}'

check_pods() {
    local file=$1
    must_be_none "not kept from its node" "$file" "$pods"' | select(.spec.hostPID or .spec.hostIPC or .spec.hostNetwork) | .name'
    must_be_none "a container may do more than it needs" "$file" "$pods"' | .name as $name | .spec.containers[] | .securityContext
        | select(.privileged != false or .allowPrivilegeEscalation != false or .readOnlyRootFilesystem != true
            or .capabilities != {"drop": ["ALL"]} or .seccompProfile.type != "RuntimeDefault") | $name'
    must_be_none "runs as root, and is no agent" "$file" "$pods"' | select(.spec.securityContext.runAsNonRoot != true
        and (.name | startswith("DaemonSet/") | not)) | .name'
    must_be_none "an image without a tag or digest" "$file" "$pods"' | .name as $name | .spec.containers[]
        | select(.image | test("(:[^/]+|@sha256:[0-9a-f]{64})$") | not) | $name'
    must_be_none "a container without requests" "$file" "$pods"' | .name as $name | .spec.containers[]
        | select(.resources == {}) | $name'
}

# Every folder of a node, and every rule, has its reason in docs/security.md.
check_reasons() {
    local file=$1 path rule
    for path in $(as_json "$file" | jq -r "$pods"' | .spec.volumes[]?.hostPath?.path // empty' | sort -u); do
        # Where an administrator moved it is said by the values.
        case $path in /srv/*) continue ;; esac
        grep -qF "\`$path\`" "$root/docs/security.md" ||
            die "$(basename "$file"): a pod has the node's folder $path, and docs/security.md does not say why"
    done
    as_json "$file" | jq -r '.[] | select(. != null) | select(.kind == "ClusterRole" or .kind == "Role") | .rules[]
        | (.resources[]) as $resource | (.verbs[]) as $verb | "\($resource) \($verb)"' | sort -u >"$scratch/rules"
    while read -r resource verb; do
        rule=$(grep -F "| \`$resource\` |" "$root/docs/security.md" || true)
        [ -n "$rule" ] || die "$(basename "$file"): a role has $resource, and docs/security.md does not say why"
        grep -qw "$verb" <<<"$rule" || die "$(basename "$file"): a role may $verb $resource, and docs/security.md does not say so"
    done <"$scratch/rules"
}

# What a golden would show as well, if somebody looked.
check_modes() {
    must_be_none "in mode standalone" "$chart/tests/standalone-k3s.golden.yaml" \
        '.[] | select(.kind == "Deployment" or .kind == "CustomResourceDefinition") | .metadata.name'
    must_be_none "no runtime was asked for" "$chart/tests/bare.golden.yaml" '.[] | select(.kind == "ConfigMap") | .data | select(. != null) | keys[]'
    must_be_none "without a namespace of its own" "$chart/tests/default.golden.yaml" \
        '.[] | select(.kind | test("^(Deployment|DaemonSet|Job|Pod|Service|ServiceAccount|ConfigMap|Role|RoleBinding|NetworkPolicy|PodDisruptionBudget)$"))
            | select(.metadata.namespace == null) | "\(.kind)/\(.metadata.name)"'
    ok "each mode has what belongs to it"
}

# The same programs make the same images.
check_reproducible() {
    local first second
    build_twice() {
        local folder=$scratch/$1
        mkdir -p "$folder/tree/bin"
        echo program >"$folder/tree/bin/program"
        chmod 755 "$folder/tree/bin/program"
        touch -d "$2" "$folder/tree/bin/program"
        "$target/debug/oci-image" build --name "x.invalid/$1:1" --folder "/=$folder/tree" --entrypoint /bin/program --out "$folder/a.tar" |
            sed 's/^[^@]*@//'
    }
    first=$(build_twice one 2001-01-01) second=$(build_twice two 2020-02-02)
    [ "$first" = "$second" ] || die "the same tree gave two images: $first and $second"
    ok "the same tree gives the same image"
}

main() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    use_cargo
    cd "$root"
    cargo build --quiet --locked --package wasmlet-release-tool --package wasmlet-oci-image
    "$root/hack/manifests" --check
    ok "definitions, manifests, goldens and reference pages are up to date"
    lint
    check_schema
    check_refusals
    local file
    for file in "$chart"/tests/*.golden.yaml "$root"/manifests/install.yaml "$root"/manifests/daemonset-only.yaml; do
        check_pods "$file"
        check_reasons "$file"
        ok "what pods and roles may, $(basename "$file")"
    done
    check_modes
    check_reproducible
    echo "$checks checks"
}

main "$@"
