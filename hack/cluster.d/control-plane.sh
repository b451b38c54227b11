# shellcheck shell=bash
# The control plane, the DNS server, the metrics server and the registry: processes of the machine, in the
# cluster's cgroup. Sourced by hack/cluster.

control_plane=(etcd kube-apiserver kube-controller-manager kube-scheduler coredns metrics-server registry)

kubectl() { "$programs/kubectl" --kubeconfig "$dir/kubeconfig" "$@"; }

# daemon NAME COMMAND…: a process that outlives this script and has nothing of the caller: not its cgroup, its
# environment, its terminal nor its niceness. One that runs is left alone.
daemon() {
    local daemon=$1
    shift
    ! living "$dir/run/$daemon" >/dev/null || return 0
    rm -f "$dir/run/$daemon"
    (
        trap - ERR INT TERM HUP
        enter_cgroup "$cgroup/control"
        renice -n 0 -p "$BASHPID" >/dev/null
        # shellcheck disable=SC2016 # for the inner shell
        exec setsid env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ sh -c 'echo $$ >"$0.pid" && exec "$@"' "$dir/run/$daemon" "$@"
    ) </dev/null >>"$dir/logs/$daemon.log" 2>&1 9>&- &
    within 10 "start of $daemon" test -s "$dir/run/$daemon.pid"
    remember_process "$dir/run/$daemon" "$(cat "$dir/run/$daemon.pid")" || {
        echo "$daemon ended at once:"
        tail -n 5 "$dir/logs/$daemon.log"
        return 1
    }
    rm -f "$dir/run/$daemon.pid"
}

start_etcd() {
    # What a test cluster has stored is worth no waiting for the disk.
    daemon etcd "$cache/kubernetes/etcd/bin/etcd" --name "$name" --data-dir "$dir/etcd" --unsafe-no-fsync \
        --listen-client-urls "http://$loopback:2379" --advertise-client-urls "http://$loopback:2379" \
        --listen-peer-urls "http://$loopback:2380" --initial-advertise-peer-urls "http://$loopback:2380" \
        --initial-cluster "$name=http://$loopback:2380" --log-level warn
}

start_apiserver() {
    local pki=$dir/pki
    daemon kube-apiserver "$programs/kube-apiserver" \
        --advertise-address "$host" --bind-address "$host" --secure-port 6443 \
        --etcd-servers "http://$loopback:2379" \
        --client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
        --kubelet-certificate-authority "$pki/ca.crt" \
        --kubelet-client-certificate "$pki/apiserver-kubelet.crt" --kubelet-client-key "$pki/apiserver-kubelet.key" \
        --kubelet-preferred-address-types InternalIP \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$pki/service-account.pub" --service-account-signing-key-file "$pki/service-account.key" \
        --service-cluster-ip-range "$services" \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged=true \
        --requestheader-client-ca-file "$pki/front-ca.crt" --requestheader-allowed-names front-proxy-client \
        --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
        --requestheader-extra-headers-prefix X-Remote-Extra- \
        --proxy-client-cert-file "$pki/front-proxy.crt" --proxy-client-key-file "$pki/front-proxy.key" \
        --enable-aggregator-routing=true --profiling=false
}

# As if it had crashed: nobody is told, and nothing starts it again.
stop_program() {
    local pid
    if pid=$(living "$dir/run/$1"); then
        kill -KILL "$pid" 2>/dev/null || true
        within 20 "end of $1" program_is_off "$1"
    fi
    rm -f "$dir/run/$1"
}

program_is_off() { ! living "$dir/run/$1" >/dev/null; }

start_program() {
    case $1 in
        etcd) start_etcd ;;
        kube-apiserver) start_apiserver ;;
        kube-controller-manager | kube-scheduler) start_controllers ;;
        coredns) start_coredns ;;
        metrics-server) start_metrics ;;
        registry) start_registry ;;
    esac
    case $1 in etcd | kube-apiserver) wait_for_api ;; esac
}

# Whether it answers; says so quickly when it has ended instead.
api_answers() {
    curl --silent --fail --max-time 5 --cacert "$dir/pki/ca.crt" --cert "$dir/pki/admin.crt" --key "$dir/pki/admin.key" \
        "https://$host:6443/readyz" >/dev/null
}

wait_for_api() {
    local deadline=$((SECONDS + 90))
    until api_answers; do
        living "$dir/run/kube-apiserver" >/dev/null || {
            echo "kube-apiserver has ended:"
            tail -n 20 "$dir/logs/kube-apiserver.log"
            return 1
        }
        [ "$SECONDS" -lt "$deadline" ] || {
            echo "kube-apiserver does not answer within 90 s; log: $dir/logs/kube-apiserver.log"
            return 1
        }
        sleep 0.1
    done
}

start_controllers() {
    local pki=$dir/pki
    # A node that went off is known to be off after 20 s instead of 50: nobody watches a test for a minute.
    daemon kube-controller-manager "$programs/kube-controller-manager" --bind-address "$loopback" \
        --kubeconfig "$pki/controller-manager.conf" --authentication-kubeconfig "$pki/controller-manager.conf" \
        --authorization-kubeconfig "$pki/controller-manager.conf" --leader-elect=false \
        --use-service-account-credentials --service-account-private-key-file "$pki/service-account.key" \
        --root-ca-file "$pki/ca.crt" --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
        --node-monitor-period 2s --node-monitor-grace-period 20s --profiling=false
    daemon kube-scheduler "$programs/kube-scheduler" --bind-address "$loopback" \
        --kubeconfig "$pki/scheduler.conf" --authentication-kubeconfig "$pki/scheduler.conf" \
        --authorization-kubeconfig "$pki/scheduler.conf" --leader-elect=false --profiling=false
}

start_coredns() {
    cat >"$dir/Corefile" <<CONFIG
.:53 {
    bind $host
    errors
    health $host:8080
    ready $host:8181
    cache 5
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $dir/pki/coredns.conf
        pods insecure
        ttl 5
    }
    forward . /etc/resolv.conf
}
CONFIG
    daemon coredns "$cache/kubernetes/coredns/bin/coredns" -conf "$dir/Corefile"
}

start_metrics() {
    local pki=$dir/pki
    daemon metrics-server "$cache/kubernetes/metrics/bin/metrics-server" --bind-address "$host" --secure-port 4443 \
        --kubeconfig "$pki/metrics-server.conf" --authentication-kubeconfig "$pki/metrics-server.conf" \
        --authorization-kubeconfig "$pki/metrics-server.conf" \
        --tls-cert-file "$pki/metrics-server.crt" --tls-private-key-file "$pki/metrics-server.key" \
        --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
        --kubelet-use-node-status-port --metric-resolution 10s --kubelet-request-timeout 5s
}

start_registry() {
    mkdir -p "$dir/registry"
    cat >"$dir/registry.yaml" <<CONFIG
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: $dir/registry}
  delete: {enabled: true}
http: {addr: "$registry"}
CONFIG
    daemon registry "$cache/kubernetes/registry/bin/docker-registry" serve "$dir/registry.yaml"
}

# What a cluster has from its start: what the servers outside may see, and how pods find them.
base_objects() {
    cat <<OBJECTS
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "hack:coredns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "hack:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "hack:coredns"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:coredns"}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: $service_dns
  ports:
  - {name: dns, protocol: UDP, port: 53}
  - {name: dns-tcp, protocol: TCP, port: 53}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: ["$host"], conditions: {ready: true}}]
ports:
- {name: dns, protocol: UDP, port: 53}
- {name: dns-tcp, protocol: TCP, port: 53}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "hack:metrics-server"}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [pods, nodes, namespaces], verbs: [get, list, watch]}
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch], resourceNames: [extension-apiserver-authentication]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "hack:metrics-server"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "hack:metrics-server"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:metrics-server"}]
---
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec:
  clusterIP: $service_metrics
  ports: [{name: https, protocol: TCP, port: 443, targetPort: 4443}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: ["$host"], conditions: {ready: true}}]
ports: [{name: https, protocol: TCP, port: 4443}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  caBundle: $(base64 -w0 "$dir/pki/ca.crt")
  service: {name: metrics-server, namespace: kube-system, port: 443}
OBJECTS
}

# A node is made before its kubelet comes, so that its pods' network is known from the first moment: the
# number decides it, and nobody waits for a controller.
node_object() {
    cat <<OBJECT
---
apiVersion: v1
kind: Node
metadata: {name: $1}
spec: {podCIDR: $(node_pods "$1"), podCIDRs: [$(node_pods "$1")]}
OBJECT
}

apply() { kubectl apply --server-side --force-conflicts --filename - >/dev/null; }

dead_daemons() {
    local daemon
    for daemon in "${control_plane[@]}"; do
        living "$dir/run/$daemon" >/dev/null || echo "$daemon"
    done
}
