#!/usr/bin/env bash
# Usage: hack/cluster.d/smoke.sh
#
# Whether hack/cluster makes clusters that work and leaves nothing behind: suite `cluster` of hack/test. It makes a
# cluster "smoke" of its own.

# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

name=smoke
evidence=$logs/cluster-failed
cluster() {
    local command=$1
    shift
    "$root/hack/cluster" "$command" --name "$name" "$@"
}

checks=0
ok() {
    checks=$((checks + 1))
    echo "ok $SECONDS s: $*"
}

# within SECONDS WHAT COMMAND…: waits until the command succeeds.
within() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || die "not within $seconds s: $what"
        sleep 0.2
    done
}

finish() {
    local code=$?
    trap - EXIT ERR
    if [ "$code" != 0 ]; then
        rm -rf "$evidence"
        cluster collect "$evidence" || true
    fi
    cluster down || true
    exit "$code"
}

# What of the cluster is on this machine: read from the system, not from hack/cluster's own books. Others may come
# and go meanwhile.
remember_link() { link=wlc$(sed -n 's/^index=//p' "$cache/clusters/$name/settings"); }
traces() {
    find /run/netns /sys/class/net \( -name "$link" -o -name "$link-*" \) 2>/dev/null || true
    ip -4 route | { grep " dev $link " || true; }
    find /sys/fs/cgroup -type d -name "wasmlet-cluster-$name*"
    awk -v below="$cache/clusters/$name" 'index($5, below) { print "mount " $5 }' /proc/self/mountinfo
    for process in /proc/[0-9]*; do
        # One that has ended meanwhile has no command line.
        ! { tr '\0' ' ' <"$process/cmdline"; } 2>/dev/null | grep -qF "$cache/clusters/$name/" || echo "process ${process#/proc/}"
    done
}

tunables() { sysctl fs.inotify kernel.panic kernel.panic_on_oops vm.overcommit_memory kernel.keys.root_maxkeys; }

# Two web servers, one on each node.
objects() {
    local node
    for node in "${nodes[@]}"; do
        cat <<POD
apiVersion: v1
kind: Pod
metadata: {name: "on-$node", labels: {app: web}}
spec:
  nodeName: $node
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: $image
    command: [sh, -c, 'echo $node >/tmp/index.html; exec httpd -f -p 8080 -h /tmp']
    readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
---
POD
    done
    cat <<SERVICE
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
SERVICE
}

# Both servers answer behind the service's name, asked from a pod.
service_reaches_all() {
    local answers
    answers=$(kubectl exec "on-$1" -- sh -c \
        'for try in 1 2 3 4 5 6 7 8 9 10 11 12; do timeout 5 wget -qO- http://web.default/ || exit 1; done' | sort -u)
    [ "$answers" = "$(printf '%s\n' "${nodes[@]}" | sort)" ]
}

main() {
    case ${1:-} in -h | --help) usage && exit 0 ;; esac
    need_root "the suite cluster"
    cluster down
    local before others node address ready first=${WASMLET_CONTAINERD_VERSIONS:-}
    others=$("$root/hack/cluster" list)
    before=$(tunables)
    trap finish EXIT

    # Interrupted, it is something that can be removed.
    timeout --signal INT 2 "$root/hack/cluster" up --name "$name" || true
    remember_link
    cluster down
    [ -z "$(traces)" ] || die "an interrupted up and a down left: $(traces)"
    ok "an interrupted up can be taken down"

    local begin=$SECONDS
    cluster up --containerd "${first:-1.6.20,2.3.7}"
    remember_link
    ready=$((SECONDS - begin))
    ok "a cluster is up"
    KUBECONFIG=$(cluster kubeconfig)
    export KUBECONFIG
    PATH=$cache/kubernetes/$kubernetes_version/bin:$PATH
    mapfile -t nodes < <(kubectl get nodes --output jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}')
    [ "${#nodes[@]}" = 2 ] || die "not two nodes: ${nodes[*]}"
    local processes
    processes=$(cat "$cache/clusters/$name"/run/*)
    cluster up | grep -q 'nothing to do' || die "up on a running cluster does something"
    [ "$processes" = "$(cat "$cache/clusters/$name"/run/*)" ] || die "up on a running cluster has started something anew"
    ok "up again changes nothing"

    image=$(cluster push "$(echo "$cache"/kubernetes/images/*/busybox.tar)" smoke/web:7)
    objects | kubectl apply -f -
    kubectl wait pod --all --for=condition=Ready --timeout=60s
    ok "pods on both nodes are Ready, with an image that was pushed"
    for node in "${nodes[@]}"; do
        within 10 "the service's name from $node" kubectl exec "on-$node" -- nslookup web.default.svc.cluster.local
        within 20 "both servers behind the service from $node" service_reaches_all "$node"
        address=$(kubectl get node "$node" --output jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}')
        within 10 "the node port on $node" curl --silent --fail --max-time 2 "http://$address:30080/"
    done
    ok "DNS, the service and its node port work on both nodes"

    node=${nodes[1]}
    cluster exec "$node" touch /root/kept
    cluster node restart "$node"
    cluster exec "$node" test -e /root/kept || die "the node's disk has not survived its restart"
    within 40 "the pod on $node to be started again" sh -c \
        "kubectl get pod on-$node --output 'jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}' | grep -qx '1 true'"
    within 20 "both servers behind the service from $node" service_reaches_all "$node"
    ok "a node was restarted"
    within 40 "figures of kubectl top" kubectl top pod "on-$node"
    ok "kubectl top has figures"

    cluster control stop kube-apiserver
    ! kubectl get nodes >/dev/null 2>&1 || die "kube-apiserver answers after it was stopped"
    # It answers when this returns.
    cluster control start kube-apiserver
    kubectl get nodes >/dev/null
    ok "kube-apiserver was away and is back"

    trap - EXIT
    cluster down
    [ -z "$(traces)" ] || die "down left: $(traces)"
    # inotify's limit is put back when the last cluster goes.
    [ "$others" != "$("$root/hack/cluster" list)" ] || [ "$(tunables)" = "$before" ] || die "the machine's settings were $before"$'\n'"and are $(tunables)"
    ok "down leaves nothing"
    say "$checks checks; Ready after $ready s"
}

main "$@"
