# shellcheck shell=bash
# containerd in every version that is tested, each in a folder of its own. None is installed and none
# is started. Sourced by hack/setup.

# Where a Debian release carries the version, its package is unpacked; otherwise it is built from
# its Go module.
containerd_release() {
    case $1 in
        1.6.*) echo bookworm ;;
        1.7.*) echo trixie ;;
        2.1.*) echo forky ;;
        *) echo - ;;
    esac
}

# The upstream part of a package's version: 1.6.20~ds1-1+deb12u3 → 1.6.20.
upstream() { sed 's/^[0-9]*://; s/[~+-].*//'; }

fetch_containerd() {
    local version=$1 release new=$cache/containerd/$1.new found
    release=$(containerd_release "$version")
    rm -rf "$new"
    mkdir -p "$new/bin"
    if [ "$release" != - ]; then
        debian_release "$release"
        found=$(debian_apt "$release" apt-cache madison containerd | awk -F'|' 'NR == 1 { gsub(/ /, "", $2); print $2 }')
        if [ "$(echo "$found" | upstream)" = "$version" ]; then
            debian_unpack "$release" "$new/root" containerd
            mv "$new"/root/usr/bin/* "$new/bin/"
            rm -rf "$new/root"
            echo "Debian $release, package containerd $found" >"$new/source"
            publish_containerd "$version"
            return
        fi
        echo "Debian $release has containerd $found, not $version: building it from its Go module"
    fi
    build_containerd "$version"
    echo "Go module, built with $("$go" version)" >"$new/source"
    publish_containerd "$version"
}

publish_containerd() {
    "$new/bin/containerd" --version
    [ "$("$new/bin/containerd" --version | awk '{ print $3 }' | sed 's/^v//' | upstream)" = "$1" ] || {
        echo "this is not containerd $1"
        return 1
    }
    publish "$new" "$cache/containerd/$1"
}

# A Go that can build modules of today: older ones cannot fetch the newer one that the module asks for.
find_go() {
    local candidate
    for candidate in go "$cache/go/bin/go"; do
        if version_at_least "$("$candidate" env GOVERSION 2>/dev/null | sed 's/^go//')" 1.26; then
            command -v "$candidate"
            return
        fi
    done
    debian_release forky >&2
    rm -rf "$cache/go.new"
    debian_unpack forky "$cache/go.new/root" golang-1.26-go golang-1.26-src >&2
    # The package's links point to /usr/share; inside the folder they are relative.
    mkdir -p "$cache/go.new/lib"
    cp -a "$cache/go.new/root/usr/share/go-1.26/." "$cache/go.new/lib/"
    cp -aT --remove-destination "$cache/go.new/root/usr/lib/go-1.26/bin" "$cache/go.new/lib/bin"
    cp -aT --remove-destination "$cache/go.new/root/usr/lib/go-1.26/pkg" "$cache/go.new/lib/pkg"
    cp -a "$cache/go.new/root/usr/lib/go-1.26/VERSION" "$cache/go.new/lib/" 2>/dev/null || true
    publish "$cache/go.new/lib" "$cache/go" >&2
    rm -rf "$cache/go.new"
    echo "$cache/go/bin/go"
}

build_containerd() {
    local version=$1 module=github.com/containerd/containerd/v2 source program
    case $version in 1.*) module=github.com/containerd/containerd ;; esac
    go=$(find_go)
    "$go" version
    export GOFLAGS='-mod=mod -trimpath' CGO_ENABLED=0
    (cd "$cache" && "$go" mod download -x "$module@v$version")
    source=$("$go" env GOMODCACHE)/$module@v$version
    # The module's own go.mod decides the versions of everything else, so it is built in place; the
    # module cache is read-only, so in a copy.
    cp -r "$source" "$new/source-tree"
    chmod -R u+w "$new/source-tree"
    for program in containerd containerd-shim-runc-v2 ctr; do
        echo "building $program"
        (cd "$new/source-tree" && "$go" build -tags no_btrfs,no_devmapper,no_zfs \
            -ldflags "-s -w -X $module/version.Version=$version" -o "$new/bin/" "./cmd/$program")
    done
    rm -rf "$new/source-tree"
}

setup_containerd() {
    local version
    for version in "$@"; do
        [ ! -x "$(containerd_bin "$version")/containerd" ] || continue
        step "fetching containerd $version (a build from its Go module takes some minutes)" \
            "$logs/setup-containerd-$version.log" fetch_containerd "$version"
        did "put containerd $version into $(containerd_bin "$version") ($(cat "$cache/containerd/$version/source"))"
    done
}
