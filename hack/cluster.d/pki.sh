# shellcheck shell=bash
# Keys, certificates and kubeconfigs, for as long as a cluster lives. Sourced by hack/cluster.

pki_days=365

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days "$pki_days" -subj "/CN=$2" \
        -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign,digitalSignature' \
        -keyout "$dir/pki/$1.key" -out "$dir/pki/$1.crt"
}

# certificate AUTHORITY NAME SUBJECT [ALTERNATIVE-NAMES]
certificate() {
    local authority=$1 file=$dir/pki/$2 subject=$3 names=${4:-}
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "$subject" \
        -keyout "$file.key" -out "$file.csr"
    printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n%s' \
        "${names:+subjectAltName=$names}" >"$file.ext"
    openssl x509 -req -in "$file.csr" -CA "$dir/pki/$authority.crt" -CAkey "$dir/pki/$authority.key" \
        -set_serial "0x$(openssl rand -hex 8)" -days "$pki_days" -extfile "$file.ext" -out "$file.crt"
    rm -f "$file.csr" "$file.ext"
}

# kubeconfig FILE CERTIFICATE: everything in one file, which works wherever it is copied to.
kubeconfig() {
    local file=$1 certificate=$dir/pki/$2
    (
        umask 077
        cat >"$file" <<CONFIG
apiVersion: v1
kind: Config
clusters:
- name: $name
  cluster:
    server: https://$host:6443
    certificate-authority-data: $(base64 -w0 "$dir/pki/ca.crt")
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 "$certificate.crt")
    client-key-data: $(base64 -w0 "$certificate.key")
contexts:
- name: $name
  context: {cluster: $name, user: $2}
current-context: $name
CONFIG
    )
}

make_pki() {
    mkdir -p "$dir/pki"
    chmod 700 "$dir/pki"
    authority ca "$name"
    authority front-ca "$name front proxy"
    certificate ca apiserver /CN=kube-apiserver \
        "IP:$host,IP:$service_api,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    certificate ca apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate front-ca front-proxy /CN=front-proxy-client
    certificate ca admin /O=system:masters/CN=admin
    certificate ca controller-manager /CN=system:kube-controller-manager
    certificate ca scheduler /CN=system:kube-scheduler
    certificate ca kube-proxy /CN=system:kube-proxy
    certificate ca coredns /CN=system:coredns
    certificate ca metrics-server /CN=system:metrics-server "IP:$host,DNS:metrics-server.kube-system.svc"
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/pki/service-account.key"
    openssl pkey -in "$dir/pki/service-account.key" -pubout -out "$dir/pki/service-account.pub"
    local user
    for user in controller-manager scheduler kube-proxy coredns metrics-server; do
        kubeconfig "$dir/pki/$user.conf" "$user"
    done
    kubeconfig "$dir/kubeconfig" admin
}

make_node_certificate() {
    local node=$1
    certificate ca "node-$node" "/O=system:nodes/CN=system:node:$node" "IP:$(node_address "$node"),DNS:$node"
    kubeconfig "$dir/pki/node-$node.conf" "node-$node"
}
