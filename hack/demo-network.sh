# shellcheck shell=bash
# The demo's network: a namespace, a bridge, and a pair of interfaces between them. Only this machine
# talks to the container, so nothing is forwarded and no firewall rule is needed. Sourced by hack/demo.

demo_namespace=wasmlet-demo
# At most 15 characters.
demo_bridge=wasmlet-demo0
demo_outside=wasmlet-demo1

# Sets $demo_address to the container's.
make_network() {
    local net
    # The first of these that no route of this machine covers.
    for net in 10.89.77 10.213.77 172.31.177 192.168.177; do
        # Nothing but a default route leads there.
        if ! ip -4 route show match "$net.2" | grep -qv '^default'; then break; fi
        net=
    done
    [ -n "$net" ] || die "no free network for the demo's bridge among those it knows"
    demo_address=$net.2
    ip netns add "$demo_namespace"
    ip link add "$demo_bridge" type bridge
    ip address add "$net.1/24" dev "$demo_bridge"
    ip link set "$demo_bridge" up
    ip link add "$demo_outside" type veth peer name eth0 netns "$demo_namespace"
    ip link set "$demo_outside" master "$demo_bridge" up
    ip -n "$demo_namespace" address add "$demo_address/24" dev eth0
    ip -n "$demo_namespace" link set eth0 up
    ip -n "$demo_namespace" link set lo up
}

remove_network() {
    # The pair goes with either end; the namespace may still be held by a dying process.
    ip link delete "$demo_outside" 2>/dev/null || true
    ip link delete "$demo_bridge" 2>/dev/null || true
    ip netns delete "$demo_namespace" 2>/dev/null || true
}

network_leftovers() {
    local name
    for name in "$demo_bridge" "$demo_outside"; do
        ! ip link show "$name" >/dev/null 2>&1 || echo "interface $name"
    done
    [ ! -e "/run/netns/$demo_namespace" ] || echo "network namespace $demo_namespace"
}
