# shellcheck shell=bash
# Images on their way to a cluster: into its registry, or into the nodes' own stores. Sourced by hack/cluster, and
# by hack/images for pushing to any registry without TLS.

# as_layout LAYOUT-OR-ARCHIVE: the folder of an OCI layout.
as_layout() {
    local from=$1
    if [ -d "$from" ]; then
        [ -e "$from/index.json" ] || die "$from is no OCI layout: it has no index.json"
        echo "$from"
        return
    fi
    [ -r "$from" ] || die "cannot read $from"
    mkdir "$scratch/layout"
    tar --extract --file "$from" --directory "$scratch/layout" || die "$from is neither a folder nor a tar archive"
    [ -e "$scratch/layout/index.json" ] || die "$from is no OCI archive: it has no index.json"
    echo "$scratch/layout"
}

# upload CURL-OPTION… URL: a request to the registry that must succeed.
upload() {
    local code
    code=$(curl --silent --show-error --output "$scratch/answer" --write-out '%{http_code}' "$@") ||
        die "the registry $registry does not answer${name:+; see hack/cluster logs registry --name $name}"
    case $code in
        2*) ;;
        *) die "the registry $registry refuses (HTTP $code) ${*: -1}: $(head -c 500 "$scratch/answer")" ;;
    esac
}

# push_blob DIGEST REPOSITORY
push_blob() {
    local digest=$1 url=http://$registry/v2/$2/blobs location file=$layout/blobs/${1/://}
    [ -e "$file" ] || die "the layout lacks the blob $digest"
    if curl --silent --fail --head --output /dev/null "$url/$digest"; then return 0; fi
    upload --dump-header "$scratch/headers" --request POST "$url/uploads/"
    location=$(tr -d '\r' <"$scratch/headers" | sed -n 's/^[Ll]ocation: //p')
    case $location in *\?*) location="$location&" ;; *) location="$location?" ;; esac
    upload --request PUT --header 'Content-Type: application/octet-stream' --upload-file "$file" "${location}digest=$digest"
}

# push_manifest DIGEST REPOSITORY TAG: with all that it names, from the leaves up. What is in it is sent as it is,
# so that digests, and media types that nobody has heard of, arrive unchanged.
push_manifest() {
    local digest=$1 repository=$2 tag=$3 file=$layout/blobs/${1/://} child type
    [ -e "$file" ] || die "the layout lacks the manifest $digest"
    for child in $(jq -r '.manifests[]?.digest' "$file"); do push_manifest "$child" "$repository" "$child"; done
    for child in $(jq -r '(.config, .layers[]?, .blobs[]?) | .digest? // empty' "$file"); do push_blob "$child" "$repository"; done
    type=$(jq -r 'if .mediaType then .mediaType
        elif .manifests then "application/vnd.oci.image.index.v1+json" else "application/vnd.oci.image.manifest.v1+json" end' "$file")
    upload --request PUT --header "Content-Type: $type" --data-binary "@$file" "http://$registry/v2/$repository/manifests/$tag"
}

# push LAYOUT-OR-ARCHIVE NAME:TAG: prints the reference that nodes pull by.
push() {
    local repository=${2%:*} tag=${2##*:} layout count
    repository=${repository#"$registry/"}
    [[ $2 == *:* && $tag != */* ]] || tag=latest repository=${2#"$registry/"}
    [[ $repository =~ ^[a-z0-9]+([._/-]+[a-z0-9]+)*$ ]] || die "\"$repository\" is no name for a repository: lower-case letters, digits and . _ - /"
    # It has said why.
    layout=$(as_layout "$1") || exit 1
    count=$(jq '.manifests | length' "$layout/index.json")
    [ "$count" -gt 0 ] || die "$1 has no image in it"
    if [ "$count" = 1 ]; then
        push_manifest "$(jq -r '.manifests[0].digest' "$layout/index.json")" "$repository" "$tag"
    else
        # Several images: the layout's own index, for platforms.
        local digest child
        for child in $(jq -r '.manifests[].digest' "$layout/index.json"); do push_manifest "$child" "$repository" "$child"; done
        digest=$(sha256sum "$layout/index.json" | cut -d' ' -f1)
        [ -e "$layout/blobs/sha256/$digest" ] || cp "$layout/index.json" "$scratch/index.json"
        upload --request PUT --header 'Content-Type: application/vnd.oci.image.index.v1+json' \
            --data-binary "@$layout/index.json" "http://$registry/v2/$repository/manifests/$tag"
    fi
    rm -rf "$scratch/layout"
    echo "$registry/$repository:$tag"
}

# Whether an OCI archive names its images. One of Docker's does, in its manifest.json.
has_names() {
    local index
    index=$(tar --extract --to-stdout --file "$1" ./index.json 2>/dev/null || tar --extract --to-stdout --file "$1" index.json 2>/dev/null) ||
        return 0
    jq --exit-status 'any(.manifests[]; .annotations // {} |
        has("io.containerd.image.name") or has("org.opencontainers.image.ref.name"))' <<<"$index" >/dev/null
}

# load ARCHIVE…: into every node.
load() {
    local archive node
    for archive in "$@"; do
        if [ -d "$archive" ]; then
            [ -e "$archive/index.json" ] || die "$archive is no OCI layout: it has no index.json"
            tar --create --file "$scratch/archive.tar" --directory "$archive" .
            archive=$scratch/archive.tar
        fi
        [ -r "$archive" ] || die "cannot read $archive"
        has_names "$archive" ||
            die "no image in $archive has a name (annotation io.containerd.image.name), so no pod could ask for it; \"hack/cluster push\" gives it one"
        for node in $(nodes); do
            if node_is_off "$node"; then
                warn "$node is off and gets no image"
                continue
            fi
            load_archive "$node" "$archive" >"$dir/logs/load.log" 2>&1 || {
                tail -n 5 "$dir/logs/load.log" >&2
                die "containerd on $node refuses $archive"
            }
        done
    done
}
