# shellcheck shell=bash
# hack/demo --cluster: the inference example as a Deployment on a Kubernetes of hack/cluster. Sourced by
# hack/demo, whose helpers and options it uses.

demo_cluster=demo
# Also what the Deployment's replicas and the waiting below count on.
demo_replicas=3
demo_deadline_seconds=180

cluster() { "$root/hack/cluster" "$1" --name "$demo_cluster" "${@:2}"; }
kubectl() { "$root/hack/cluster" --name "$demo_cluster" kubectl "$@"; }

# The example's own manifest, with the image where the nodes find it and the wanted engine's class.
demo_manifest() {
    sed -e "s#image: localhost/wasmlet/inference:latest#image: $1#" \
        -e "s#runtimeClassName: wasm\$#runtimeClassName: wasm${engine:+-$engine}#" \
        "$root/examples/inference/deployment.yaml"
}

# Pods' own view when something does not come up.
show_pods() {
    kubectl get pods --output wide >&2 || true
    kubectl get events --sort-by=.lastTimestamp 2>/dev/null | tail -n 10 >&2 || true
    kubectl logs --selector app.kubernetes.io/name=inference --tail 5 --prefix >&2 || true
}

# Asks until the model answers; sets $first_ms, from $1 (milliseconds) to the answer.
await_answer() {
    local deadline
    deadline=$(($(now) + demo_deadline_seconds))
    until curl --silent --fail --max-time 5 --output /dev/null --data-binary "@$picture" "$demo_url/v1/classify"; do
        [ "$(now)" -lt "$deadline" ] || {
            show_pods
            die "the Service did not answer within $demo_deadline_seconds s"
        }
        sleep 0.05
    done
    first_ms=$(($(milliseconds) - $1))
}

# What the kubelets account to each pod and its container: lines of "POD NODE WORKING-SET".
pod_memory() {
    local node
    for node in $(kubectl get nodes --output 'jsonpath={.items[*].metadata.name}'); do
        kubectl get --raw "/api/v1/nodes/$node/proxy/stats/summary" |
            jq -r --arg node "$node" '.pods[] | select(.podRef.namespace == "default" and (.podRef.name | startswith("inference-")))
                | "\(.podRef.name) \($node) \(.memory.workingSetBytes // 0)"'
    done
}

# The kubelet looks at a pod every ten seconds or so: until then it has no figure.
await_pod_memory() {
    local deadline
    deadline=$(($(now) + 60))
    until memory=$(pod_memory) && [ "$(awk '$3 > 0' <<<"$memory" | wc -l)" -ge "$demo_replicas" ]; do
        [ "$(now)" -lt "$deadline" ] || die "the kubelets gave no figures of the pods' memory within 60 s: $memory"
        sleep 1
    done
}

# By hand with nc: wget of busybox ends a file at its first NUL byte.
ask_from_inside() {
    local answer
    answer=$({
        printf 'POST /v1/classify HTTP/1.1\r\nHost: inference\r\nConnection: close\r\nContent-Length: %s\r\n\r\n' \
            "$(stat --dereference --format %s "$picture")"
        cat "$picture"
    } | kubectl exec --stdin client -- nc inference 80) || return
    case $answer in
        'HTTP/1.1 200 '*) printf '%s' "${answer#*$'\r\n\r\n'}" ;;
        *)
            printf '%s' "$answer"
            return 1
            ;;
    esac
}

show_answers() {
    local reply label from
    for from in outside inside; do
        if [ $from = outside ]; then
            reply=$(curl --silent --show-error --fail-with-body --max-time 30 --data-binary "@$picture" "$demo_url/v1/classify") ||
                die "the request failed: $reply"
        else
            reply=$(ask_from_inside) ||
                die "the request from inside the cluster failed: $reply"
        fi
        label=$(jq -r '.top[0] | "\(.label) with \(.p * 100 | round) %"' <<<"$reply") || die "the answer is not JSON: $reply"
        say "answer: $label, from $(basename "$picture"), asked from $from the cluster"
        # shellcheck disable=SC2034 # self_test_answer reads it
        answer=$(jq -c . <<<"$reply")
        [ -z "$self_test" ] || self_test_answer
    done
}

# A Linux pod to ask from, and a door from outside: a NodePort beside the example's own Service.
apply_client() {
    kubectl apply --filename - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: client
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: client
      image: $1/busybox:1
      command: [sleep, infinity]
---
apiVersion: v1
kind: Service
metadata:
  name: inference-outside
spec:
  type: NodePort
  selector:
    app.kubernetes.io/name: inference
  ports:
    - port: 80
      targetPort: http
YAML
}

remove_demo_cluster() {
    trap - EXIT ERR
    trap '' INT TERM HUP
    cluster down
}

demo_on_cluster() {
    local registry image node port began memory pod
    "$root/hack/setup" base guests kubernetes | { grep -v 'nothing to do' || true; }
    "$root/hack/build" "${build_options[@]}"
    "$root/examples/inference/build" --image="$target/examples/inference/image.tar"

    trap remove_demo_cluster EXIT
    cluster up
    cluster install-shim
    registry=$(cluster registry)
    image=$registry/inference:latest
    step "pushing the image to the cluster's registry" "$logs/demo-push.log" \
        cluster push "$target/examples/inference/image.tar" inference:latest
    apply_client "$registry"
    node=$(kubectl get nodes --output 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
    port=$(kubectl get service inference-outside --output 'jsonpath={.spec.ports[0].nodePort}')
    demo_url=http://$node:$port

    say "kubectl apply -f examples/inference/deployment.yaml${engine:+ (with runtimeClassName: wasm-$engine)}"
    began=$(milliseconds)
    demo_manifest "$image" | kubectl apply --filename - | sed "s#^#$me:   #"
    await_answer "$began"
    cold_ms=$first_ms
    kubectl rollout status deployment/inference --timeout "${demo_deadline_seconds}s" >/dev/null || {
        show_pods
        die "the Deployment is not ready"
    }
    # Once more, now that the nodes have the image and the compiled module: what every later apply takes.
    kubectl delete deployment inference --wait >/dev/null
    kubectl wait --for=delete pod --selector app.kubernetes.io/name=inference --timeout 60s >/dev/null
    began=$(milliseconds)
    demo_manifest "$image" | kubectl apply --filename - >/dev/null
    await_answer "$began"
    kubectl rollout status deployment/inference --timeout "${demo_deadline_seconds}s" >/dev/null
    kubectl wait --for=condition=Ready pod/client --timeout 60s >/dev/null

    kubectl get pods --selector app.kubernetes.io/name=inference --output wide |
        awk '{ print $1, $2, $3, $4, $(NF - 2) }' | column -t | sed "s#^#$me:   #"
    kubectl get nodes --no-headers --output 'custom-columns=N:.metadata.name,R:.status.nodeInfo.containerRuntimeVersion,K:.status.nodeInfo.kubeletVersion' |
        sed "s#^#$me:   node #"
    show_answers
    say "time:   $first_ms ms from apply to the first answer ($cold_ms ms the very first time, with pulling and compiling)"
    await_pod_memory
    while read -r pod node bytes; do
        say "memory: $pod on $node: $(mib "$bytes") of the pod's 64 MiB"
    done <<<"$memory"

    if [ -n "$keep" ]; then
        trap - EXIT
        say "still running. Talk to it:"
        say "  curl --data-binary @$picture $demo_url/v1/classify"
        say "  export KUBECONFIG=$(cluster kubeconfig); kubectl get pods"
        say "end it: hack/demo --cluster --stop"
        return
    fi
    remove_demo_cluster
    say "removed: the cluster and all that was in it"
}
