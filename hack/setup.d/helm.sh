# shellcheck shell=bash
# Helm, from its Go module: for the chart's tests, and for hack/manifests. Sourced by hack/setup.
#
#   $cache/helm/VERSION/bin/helm

helm_bin() { echo "$cache/helm/$helm_version/bin/helm"; }

build_helm() {
    local new=$1 minor=${kubernetes_version#*.} package
    minor=${minor%%.*}
    go_module "$new"
    # The Kubernetes that it renders for without a cluster; 1.20 if nobody says.
    local flags="-s -w -X helm.sh/helm/v3/internal/version.version=v$helm_version"
    for package in chartutil lint/rules; do
        flags+=" -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=$minor"
    done
    echo "require helm.sh/helm/v3 v$helm_version" >>"$new/go.mod"
    (cd "$new" && "$go" build -trimpath -o bin/ -ldflags "$flags" helm.sh/helm/v3/cmd/helm)
    [ "$("$new/bin/helm" version --template '{{ .Version }}')" = "v$helm_version" ] || {
        echo "this is not helm $helm_version: $("$new/bin/helm" version)"
        return 1
    }
    publish "$new" "$cache/helm/$helm_version"
}

setup_helm() {
    [ ! -x "$(helm_bin)" ] || return 0
    go=$(find_go)
    # Other components need not wait for what takes minutes.
    exclusively setup-helm
    [ -x "$(helm_bin)" ] ||
        step "building Helm $helm_version from its Go module (2 to 5 minutes)" "$logs/setup-helm.log" \
            build_helm "$cache/helm/$helm_version.new"
    exclusively setup
    did "built Helm $helm_version into $cache/helm/$helm_version"
}
