# shellcheck shell=bash
# Nodes: a Debian root file system, started with systemd as process 1 in namespaces of its own. Sourced by
# hack/cluster.

node_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# node_exec NODE COMMAND…: as root, inside.
node_exec() {
    local pid
    pid=$(living "$dir/nodes/$1/run") || die "the node $1 is off; start it with: hack/cluster node start $1 --name $name"
    shift
    # 9: the lock is not for what may outlive this script.
    nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
        env -i PATH="$node_path" HOME=/root LANG=C.UTF-8 TERM="$TERM" "$@" 9>&-
}

# layer NAME PROGRAM…: a folder with programs at /usr/bin, to lie below the roots of nodes. Links, so that
# the pages of a program are in memory once for all nodes.
layer() {
    local layer=$dir/layers/$1
    shift
    [ ! -d "$layer" ] || return 0
    rm -rf "$layer.new"
    mkdir -p "$layer.new/usr/bin"
    cp --link --dereference "$@" "$layer.new/usr/bin/" 2>/dev/null || cp --dereference "$@" "$layer.new/usr/bin/"
    mv "$layer.new" "$layer"
}

# The configuration that this version gives itself, with what an administrator of such a machine changes.
containerd_config() {
    local version=$1 config systemd=false
    config=$("$(containerd_bin "$version")/containerd" config default)
    [ "$driver" != systemd ] || systemd=true
    # restrict_oom_score_adj: machines without CAP_SYS_RESOURCE refuse the kubelet's wishes.
    config=$(sed -E \
        -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
        -e "s/SystemdCgroup = false/SystemdCgroup = $systemd/" \
        -e "s#(sandbox|sandbox_image) = ['\"].*/pause:.*#\1 = \"wasmlet.test/pause:1\"#" \
        -e "/\.registry\]/,/config_path/ s#config_path = .*#config_path = \"/etc/containerd/certs.d\"#" <<<"$config")
    local expected
    for expected in 'restrict_oom_score_adj = true' "SystemdCgroup = $systemd" wasmlet.test/pause:1 /etc/containerd/certs.d; do
        grep -qF "$expected" <<<"$config" || {
            echo "containerd $version has a default configuration in which \"$expected\" could not be set; see containerd_config in hack/cluster.d/nodes.sh"
            return 1
        }
    done
    printf '%s\n' "$config"
}

# What an administrator would have written to the node's disk.
prepare_node() {
    local node=$1 folder=$dir/nodes/$1 version disk address unit
    version=$(setting "$folder" containerd)
    address=$(node_address "$node")
    [ ! -e "$folder/prepared" ] || return 0
    rm -rf --one-file-system "$folder/disk" "$folder/work"
    mkdir -p "$folder"/{disk,work,root,containerd,kubelet}
    disk=$folder/disk
    mkdir -p "$disk"/etc/{containerd/certs.d/"$registry",cni/net.d,kubernetes,systemd/system/multi-user.target.wants,systemd/system.conf.d} \
        "$disk"/opt/cni "$disk"/root
    chmod 700 "$disk/root"
    echo "$node" >"$disk/etc/hostname"
    tr -d - </proc/sys/kernel/random/uuid >"$disk/etc/machine-id"
    printf '127.0.0.1 localhost\n%s %s\n' "$address" "$node" >"$disk/etc/hosts"
    cat /etc/resolv.conf >"$disk/etc/resolv.conf"
    # A pod that ignores SIGTERM holds up a shutdown for so long.
    printf '[Manager]\nDefaultTimeoutStopSec=5s\n' >"$disk/etc/systemd/system.conf.d/node.conf"

    containerd_config "$version" >"$disk/etc/containerd/config.toml"
    cat >"$disk/etc/containerd/certs.d/$registry/hosts.toml" <<CONFIG
server = "http://$registry"

[host."http://$registry"]
  capabilities = ["pull", "resolve", "push"]
CONFIG
    # Debian's plugins, where containerd looks for them by default.
    ln -s /usr/lib/cni "$disk/opt/cni/bin"
    # ptp and not bridge: what a pod says to a service with an endpoint on the same node must come back through
    # the node, which a bridge does only with br_netfilter. Addresses are forgotten at a reboot.
    cat >"$disk/etc/cni/net.d/10-pods.conflist" <<CONFIG
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": "$(node_pods "$node")"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
CONFIG
    make_node_certificate "$node"
    cp "$dir/pki/ca.crt" "$disk/etc/kubernetes/"
    cp "$dir/pki/node-$node.crt" "$disk/etc/kubernetes/kubelet.crt"
    cp "$dir/pki/node-$node.key" "$disk/etc/kubernetes/kubelet.key"
    cp "$dir/pki/node-$node.conf" "$disk/etc/kubernetes/kubelet.conf"
    cp "$dir/pki/kube-proxy.conf" "$disk/etc/kubernetes/"
    # Swap and cgroup v1 are the machine's, which nobody changes for a test; a full disk is, too.
    cat >"$disk/etc/kubernetes/kubelet.yaml" <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /etc/kubernetes/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: /etc/kubernetes/kubelet.crt
tlsPrivateKeyFile: /etc/kubernetes/kubelet.key
cgroupDriver: $driver
clusterDNS: [$service_dns]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failCgroupV1: false
failSwapOn: false
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
maxPods: 250
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 20
oomScoreAdj: 0
CONFIG
    # Its conntrack settings are the whole machine's.
    cat >"$disk/etc/kubernetes/kube-proxy.yaml" <<CONFIG
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: /etc/kubernetes/kube-proxy.conf}
clusterCIDR: $pods
mode: iptables
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
oomScoreAdj: 0
CONFIG
    # As containerd's own unit, without OOMScoreAdjust, which needs CAP_SYS_RESOURCE.
    cat >"$disk/etc/systemd/system/containerd.service" <<'UNIT'
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target local-fs.target

[Service]
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
UNIT
    cat >"$disk/etc/systemd/system/kubelet.service" <<UNIT
[Unit]
Description=kubelet
After=containerd.service
Wants=containerd.service

[Service]
ExecStart=/usr/bin/kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.conf --node-ip=$address
Restart=always
RestartSec=1
KillMode=process

[Install]
WantedBy=multi-user.target
UNIT
    cat >"$disk/etc/systemd/system/kube-proxy.service" <<'UNIT'
[Unit]
Description=kube-proxy
After=network.target

[Service]
ExecStart=/usr/bin/kube-proxy --config=/etc/kubernetes/kube-proxy.yaml
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
UNIT
    for unit in containerd kubelet kube-proxy; do
        ln -s "../$unit.service" "$disk/etc/systemd/system/multi-user.target.wants/$unit.service"
    done
    : >"$folder/prepared"
}

# start_node NODE: returns when its process 1 runs.
start_node() {
    local node=$1 folder=$dir/nodes/$1 version lower parent child deadline
    ! living "$folder/run" >/dev/null || return 0
    rm -f "$folder/run"
    version=$(setting "$folder" containerd)
    layer "containerd-$version" "$(containerd_bin "$version")"/*
    layer "kubernetes" "$programs/kubelet" "$programs/kube-proxy" "$programs/kubectl"
    prepare_node "$node"
    # Of an earlier life of the node.
    end_cgroup "$cgroup/$node"
    make_cgroup "$cgroup/$node"
    make_node_network "$node"
    cat /proc/sys/kernel/random/uuid >"$folder/boot-id"
    lower=$dir/layers/containerd-$version:$dir/layers/kubernetes:$(cat "$dir/node-root")
    (
        trap - ERR INT TERM HUP
        enter_cgroup "$cgroup/control"
        renice -n 0 -p "$BASHPID" >/dev/null
        # It waits for process 1 and ends with it. The other way round too: a node without it is none.
        # shellcheck disable=SC2016 # for the inner shell
        exec setsid nsenter --net="/run/netns/$(node_namespace "$node")" \
            sh -c 'echo $$ >"$0" && exec "$@"' "$folder/parent" \
            unshare --mount --uts --ipc --pid --fork --kill-child \
            "$root/hack/cluster.d/boot.sh" enter "$folder" "$node" "$cgroup/$node" "$lower"
    ) </dev/null >>"$folder/console.log" 2>&1 9>&- &
    within 10 "start of $node" test -s "$folder/parent"
    parent=$(cat "$folder/parent")
    rm -f "$folder/parent"
    deadline=$((SECONDS + 20))
    # systemd, and not what prepares for it.
    until child=$(cat "/proc/$parent/task/$parent/children" 2>/dev/null) && [ -n "${child// /}" ] &&
        [ "$(cat "/proc/${child// /}/comm" 2>/dev/null)" = systemd ]; do
        if [ "$SECONDS" -ge "$deadline" ] || [ -z "$(started_at "$parent")" ]; then
            echo "$node did not start:"
            tail -n 10 "$folder/console.log"
            return 1
        fi
        sleep 0.05
    done
    remember_process "$folder/run" "${child// /}"
}

# As if somebody pulled the plug.
kill_node() {
    local pid
    if pid=$(living "$dir/nodes/$1/run"); then
        # All at once, process 1 last: its end takes a while, and nobody is to see it die and tell others.
        # shellcheck disable=SC2046 # a list
        kill -KILL $(cgroup_processes "$cgroup/$1" one | grep -vx "$pid") 2>/dev/null || true
        kill -KILL "$pid" 2>/dev/null || true
        within 20 "end of $1" node_is_off "$1"
    fi
    rm -f "$dir/nodes/$1/run"
    end_cgroup "$cgroup/$1"
    remove_node_network "$1"
}

node_is_off() { ! living "$dir/nodes/$1/run" >/dev/null; }

# As an administrator does it.
shut_node_down() {
    if ! node_is_off "$1"; then
        node_exec "$1" systemctl poweroff --no-block
        within 60 "shutdown of $1" node_is_off "$1" || echo "pulling the plug of $1"
    fi
    kill_node "$1"
}

containerd_answers() { node_exec "$1" ctr version; }

# load_archive NODE ARCHIVE: into the images that Kubernetes sees.
load_archive() {
    # Some archives are for another platform than the machine (wasm), some have layers that are no file systems.
    node_exec "$1" ctr --namespace k8s.io images import --all-platforms - <"$2" ||
        node_exec "$1" ctr --namespace k8s.io images import --all-platforms --no-unpack - <"$2"
}

# Images that a node has from its start.
load_base_images() {
    local image
    [ ! -e "$dir/nodes/$1/loaded" ] || return 0
    within 60 "an answer of containerd on $1" containerd_answers "$1"
    for image in pause busybox; do
        node_exec "$1" ctr --namespace k8s.io images import - <"$cache/kubernetes/images/$(images_key)/$image.tar"
    done
    : >"$dir/nodes/$1/loaded"
}

# Ready, as the kubelet of the node's present life says.
node_ready() {
    local status
    status=$(kubectl get node "$1" --request-timeout=5s --output \
        'jsonpath={.status.nodeInfo.bootID} {.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) || return 1
    [ "$status" = "$(cat "$dir/nodes/$1/boot-id") True" ]
}

wait_for_node() {
    within 90 "the node $1 to be Ready" node_ready "$1" || {
        node_exec "$1" journalctl --no-pager --boot --lines 15 --unit kubelet
        node_exec "$1" journalctl --no-pager --boot --lines 8 --unit containerd
        return 1
    }
}

# add_node VERSION: only its folder; prints its name.
add_node() {
    local number=1
    while [ -e "$dir/nodes/$name-$number" ]; do number=$((number + 1)); done
    [ "$number" -le 100 ] || die "a cluster has at most 100 nodes"
    mkdir -p "$dir/nodes/$name-$number"
    printf 'number=%s\ncontainerd=%s\n' "$number" "$1" >"$dir/nodes/$name-$number/settings"
    echo "$name-$number"
}
