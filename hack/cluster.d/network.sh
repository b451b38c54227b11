# shellcheck shell=bash
# A cluster's network. The bridge is in a namespace of its own, so that no firewall rule of the machine (Docker's,
# for example) sees what nodes say to each other; the machine has one link to it. Nothing is forwarded by the
# machine and nothing is translated: a cluster cannot talk to the world. Sourced by hack/cluster.
#
#   10.I.0.1        the machine: control plane, DNS server, registry
#   10.I.0.10+N     node N
#   10.I.128+N.0/24 its pods
#   10.I.64.0/20    services

node_number() { setting "$dir/nodes/$1" number; }
node_address() { echo "$net.0.$((10 + $(node_number "$1")))"; }
node_pods() { echo "$net.$((128 + $(node_number "$1"))).0/24"; }
node_namespace() { echo "$link-$(node_number "$1")"; }

ensure_network() {
    if [ ! -e "/run/netns/$link" ]; then
        ip netns add "$link"
        ip -n "$link" link set lo up
    fi
    ip -n "$link" link show br0 >/dev/null 2>&1 || ip -n "$link" link add br0 type bridge
    ip -n "$link" link set br0 up
    if [ ! -e "/sys/class/net/$link" ]; then
        ip link add "$link" type veth peer name host netns "$link"
    fi
    ip -n "$link" link set host master br0 up
    ip address replace "$host/24" dev "$link"
    ip link set "$link" up
}

# A node's own namespace, made anew at each start: a machine that was off has no firewall rules either.
make_node_network() {
    local node=$1 namespace number
    namespace=$(node_namespace "$node")
    number=$(node_number "$node")
    remove_node_network "$node"
    ip netns add "$namespace"
    ip -n "$link" link add "node$number" type veth peer name eth0 netns "$namespace"
    ip -n "$link" link set "node$number" master br0 up
    ip -n "$namespace" link set lo up
    ip -n "$namespace" address add "$(node_address "$node")/24" dev eth0
    ip -n "$namespace" link set eth0 up
    ip -n "$namespace" route add default via "$host"
    # /proc/sys/net is that of the reading process's namespace.
    nsenter --net="/run/netns/$namespace" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    sync_routes
}

remove_node_network() {
    ip -n "$link" link delete "node$(node_number "$1")" 2>/dev/null || true
    ip netns delete "$(node_namespace "$1")" 2>/dev/null || true
}

# The way to each node's pods, from the machine and from every other node.
sync_routes() {
    local node other
    for other in $(nodes); do
        ip route replace "$(node_pods "$other")" via "$(node_address "$other")" dev "$link"
        for node in $(nodes); do
            if [ "$node" = "$other" ] || [ ! -e "/run/netns/$(node_namespace "$node")" ]; then continue; fi
            ip -n "$(node_namespace "$node")" route replace "$(node_pods "$other")" via "$(node_address "$other")"
        done
    done
}

remove_network() {
    local namespace
    for namespace in /run/netns/"$link" /run/netns/"$link"-*; do
        [ ! -e "$namespace" ] || ip netns delete "$(basename "$namespace")"
    done
    # Routes go with it.
    ip link delete "$link" 2>/dev/null || true
}

network_leftovers() {
    local namespace
    [ ! -e "/sys/class/net/$link" ] || echo "interface $link"
    for namespace in /run/netns/"$link" /run/netns/"$link"-*; do
        [ ! -e "$namespace" ] || echo "network namespace $(basename "$namespace")"
    done
    ip -4 route show root "$net.0.0/16" | sed 's/^/route /'
}
