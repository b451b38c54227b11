{{/* Names, labels and images, and the checks that a schema cannot make. */}}

{{- define "wasmlet.fullname" -}}
{{- if contains "wasmlet" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-wasmlet" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (list $ component): what selects pods, never to be changed. */}}
{{- define "wasmlet.selector" -}}
{{- $top := index . 0 -}}
app.kubernetes.io/name: wasmlet
app.kubernetes.io/instance: {{ $top.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "wasmlet.labels" -}}
{{- $top := index . 0 -}}
{{ include "wasmlet.selector" . }}
app.kubernetes.io/part-of: wasmlet
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $top.Chart.Name $top.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (list $ "operator"|"node") */}}
{{- define "wasmlet.image" -}}
{{- $top := index . 0 -}}
{{- $image := index $top.Values.image (index . 1) -}}
{{- if not $top.Values.image.registry -}}
{{- fail "\n\nimage.registry is not set: push the images and say where they are, for example\n  hack/images --push REGISTRY\n  helm install wasmlet charts/wasmlet --namespace wasmlet --create-namespace --values target/images/values.yaml\n" -}}
{{- end -}}
{{- $name := printf "%s/%s" (trimSuffix "/" $top.Values.image.registry) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default $top.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "wasmlet.bundleDigest" -}}
{{- if not .Values.runtime.bundleDigest -}}
{{- fail "\n\nruntime.bundleDigest is not set: it says which programs the nodes shall run, and hack/images writes it, together with the images, into\ntarget/images/values.yaml; pass that file with --values. To install no runtime: --set runtime.create=false\n" -}}
{{- end -}}
{{- .Values.runtime.bundleDigest -}}
{{- end -}}

{{- define "wasmlet.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Where a distribution has containerd's configuration and its socket. As in operator/node-agent. */}}
{{- define "wasmlet.containerdConfig" -}}
{{- $known := dict
  "containerd" "/etc/containerd"
  "k3s" "/var/lib/rancher/k3s/agent/etc/containerd"
  "rke2" "/var/lib/rancher/rke2/agent/etc/containerd"
  "k0s" "/etc/k0s"
  "microk8s" "/var/snap/microk8s/current/args" -}}
{{- default (get $known .Values.distribution) .Values.agent.hostPaths.containerdConfig -}}
{{- end -}}

{{- define "wasmlet.containerdRun" -}}
{{- $known := dict
  "containerd" "/run/containerd"
  "k3s" "/run/k3s/containerd"
  "rke2" "/run/k3s/containerd"
  "k0s" "/run/k0s"
  "microk8s" "/var/snap/microk8s/common/run" -}}
{{- default (get $known .Values.distribution) .Values.agent.hostPaths.containerdRun -}}
{{- end -}}

{{/* The handlers of the runtime, and so the names of its RuntimeClasses. */}}
{{- define "wasmlet.handlers" -}}
{{- $names := list .Values.runtime.handler -}}
{{- range .Values.runtime.engines }}{{ $names = append $names (printf "%s-%s" $.Values.runtime.handler .) }}{{ end -}}
{{- join " " $names -}}
{{- end -}}

{{/* The node label that says that a runtime is there: of the usual handler without its name. As in operator/api. */}}
{{- define "wasmlet.readyLabel" -}}
{{- if eq .Values.runtime.handler "wasm" -}}wasmlet.dev/ready{{- else -}}wasmlet.dev/ready-{{ .Values.runtime.handler }}{{- end -}}
{{- end -}}

{{/* The service account of a component, as the API server names it. (list $ component) */}}
{{- define "wasmlet.user" -}}
{{- $top := index . 0 -}}
system:serviceaccount:{{ $top.Release.Namespace }}:{{ include "wasmlet.fullname" $top }}-{{ index . 1 }}
{{- end -}}

{{/* What every container of ours has in common. */}}
{{- define "wasmlet.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
