# shellcheck shell=bash
# Debian packages of any release, unpacked into a folder: nothing is installed, the system's package
# lists and versions stay as they are. Sourced by hack/setup.

# The mirror this machine already uses for Debian itself.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)' |
        awk -F'|' '$3 == "main" && $4 == "Packages" &&
            $2 ~ /^(bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)$/ { print $1; exit }'
}

# debian_apt RELEASE COMMAND…: runs an apt program with lists, status and cache of its own.
debian_apt() {
    local release=$1
    shift
    APT_CONFIG=$cache/apt/$release/apt.conf "$@"
}

# debian_release RELEASE: makes its package list available, at most a day old.
debian_release() {
    local release=$1 dir=$cache/apt/$1 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -n "$(find "$dir/fresh" -mmin -1440 2>/dev/null)" ]; then
        return
    fi
    command -v apt-get >/dev/null || {
        echo "apt-get not found: hack/setup takes programs from Debian packages and needs Debian 12 or newer"
        return 1
    }
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || {
        echo "no Debian mirror in this machine's apt sources"
        return 1
    }
    mkdir -p "$dir/lists/partial" "$dir/archives/partial"
    # An empty status: every dependency is fetched, whatever this machine has installed.
    : >"$dir/status"
    local signed=
    [ ! -e "$keyring" ] || signed="[signed-by=$keyring] "
    echo "deb $signed$mirror $release main" >"$dir/sources.list"
    cat >"$dir/apt.conf" <<CONF
Dir::Etc::SourceList "$dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$dir";
Dir::State::Lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir";
Dir::Cache::archives "$dir/archives";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
CONF
    debian_apt "$release" apt-get update
    : >"$dir/fresh"
}

# debian_unpack RELEASE FOLDER PACKAGE…: just these packages, without what they depend on.
debian_unpack() {
    local release=$1 folder=$2 package
    shift 2
    mkdir -p "$folder" "$folder.debs"
    (cd "$folder.debs" && debian_apt "$release" apt-get download "$@")
    for package in "$folder.debs"/*.deb; do
        dpkg-deb -x "$package" "$folder"
    done
    rm -rf "$folder.debs"
}

# debian_unpack_closure RELEASE FOLDER SKIP PACKAGE…: with all that they depend on, apart from
# packages whose names match the extended regular expression SKIP. The packages are left in FOLDER.debs.
debian_unpack_closure() {
    local release=$1 folder=$2 skip=$3 package
    shift 3
    mkdir -p "$folder"
    debian_apt "$release" apt-get clean
    debian_apt "$release" apt-get install -y --download-only "$@"
    rm -rf "$folder.debs"
    mkdir "$folder.debs"
    for package in "$cache/apt/$release/archives"/*.deb; do
        if basename "$package" | grep -Eq "$skip"; then continue; fi
        dpkg-deb -x "$package" "$folder"
        cp "$package" "$folder.debs/"
    done
    debian_apt "$release" apt-get clean
}
