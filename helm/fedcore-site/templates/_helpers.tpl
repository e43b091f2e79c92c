{{- define "fedcore-site.namespace" -}}
{{ .Values.namespace.name | default .Release.Namespace }}
{{- end }}

{{- define "fedcore-site.labels" -}}
app.kubernetes.io/part-of: fedcore
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
fedcore.io/site: {{ .Values.site }}
{{- end }}

{{- define "fedcore-site.metadata" -}}
namespace: {{ include "fedcore-site.namespace" . }}
labels:
  {{- include "fedcore-site.labels" . | nindent 2 }}
{{- end }}

{{- /* Names that the Job's manifest refers to: fedcore's defaults, unless job: says otherwise. */}}
{{- define "fedcore-site.serviceAccount" -}}
{{ .Values.job.service_account | default "fedcore-client" }}
{{- end }}

{{- define "fedcore-site.configMap" -}}
{{ .Values.job.config_map | default "fedcore-client" }}
{{- end }}

{{- define "fedcore-site.secret" -}}
{{ .Values.credentials.existingSecret | default .Values.job.secret | default "fedcore-client" }}
{{- end }}

{{- /* The settings of the Job as the server or the agent has to use them. */}}
{{- define "fedcore-site.job" -}}
{{- $job := deepCopy .Values.job }}
{{- if .Values.credentials.existingSecret }}
{{- $_ := set $job "secret" .Values.credentials.existingSecret }}
{{- end }}
{{- toYaml $job }}
{{- end }}

{{- define "fedcore-site.policy" -}}
{{- $policy := .Values.policy }}
{{- if kindIs "string" $policy }}{{ $policy = fromYaml $policy }}{{ end }}
{{- if and $policy.site (ne $policy.site .Values.site) }}
{{- fail (printf "policy.site is %q and site is %q: they are one site; leave policy.site out" $policy.site .Values.site) }}
{{- end }}
{{- toYaml (merge (dict "site" .Values.site) $policy) }}
{{- end }}

{{- /* A Location as JSON, with the authority's certificate where one is given. */}}
{{- define "fedcore-site.location" -}}
{{- $location := deepCopy .location }}
{{- if .root.Values.caBundle }}
{{- $_ := set $location "ca_bundle" "/etc/fedcore/ca.pem" }}
{{- end }}
{{- toJson $location }}
{{- end }}

{{- /* "" where the site trains on CPUs. No gpu at all means fedcore's default. */}}
{{- define "fedcore-site.gpuResource" -}}
{{- if not (hasKey .Values.job "gpu") -}}
nvidia.com/gpu
{{- else if .Values.job.gpu -}}
{{ .Values.job.gpu.resource | default "nvidia.com/gpu" }}
{{- end }}
{{- end }}

{{- define "fedcore-site.images" -}}
{{- toJson (.Values.images.allowed | default (list .Values.job.image)) }}
{{- end }}

{{- define "fedcore-site.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fedcore-site.securityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What a client is told, and by which keys; the same as fedcore/launch/manifest.py gives it. */}}
{{- define "fedcore-site.env" -}}
{{- $configMap := include "fedcore-site.configMap" . }}
{{- $secret := include "fedcore-site.secret" . -}}
- {name: FEDCORE_POLICY, value: /etc/fedcore/policy.yaml}
- {name: HOME, value: /scratch}
- {name: TMPDIR, value: /scratch}
{{- range $name, $key := dict "FEDCORE_EXCHANGE" "exchange.json" "FEDCORE_DATA" "data.json" }}
- name: {{ $name }}
  valueFrom: {configMapKeyRef: {name: {{ $configMap }}, key: {{ $key }}}}
{{- end }}
{{- range $place := list "exchange" "data" }}
{{- range $part := list "access" "secret" }}
- name: {{ printf "FEDCORE_%s_KEYS__%s_KEY" (upper $place) (upper $part) }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ printf "%s-%s-key" $place $part }}}}
{{- end }}
{{- end }}
{{- end }}

{{- /* Each {cidr, port} or {namespace, podLabels, port} as one egress rule over .protocols. */}}
{{- define "fedcore-site.egress" -}}
{{- range $destination := .to }}
- to:
    {{- if .cidr }}
    - ipBlock: {cidr: {{ .cidr | quote }}}
    {{- else }}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
      {{- with .podLabels }}
      podSelector: {matchLabels: {{ toJson . }}}
      {{- end }}
    {{- end }}
  ports:
    {{- range $protocol := $.protocols }}
    - {protocol: {{ $protocol }}, port: {{ int $destination.port }}}
    {{- end }}
{{- end }}
{{- end }}

{{- /* Who the admission policy judges, as user names and as groups. */}}
{{- define "fedcore-site.users" -}}
{{- $users := list }}
{{- range .Values.server.subjects }}
{{- if eq .kind "ServiceAccount" }}
{{- $users = append $users (printf "system:serviceaccount:%s:%s" .namespace .name) }}
{{- else if eq .kind "User" }}
{{- $users = append $users .name }}
{{- end }}
{{- end }}
{{- $own := list }}
{{- if .Values.server.serviceAccount.create }}{{ $own = append $own .Values.server.serviceAccount.name }}{{ end }}
{{- if .Values.agent.enabled }}{{ $own = append $own "fedcore-agent" }}{{ end }}
{{- range $own }}
{{- $users = append $users (printf "system:serviceaccount:%s:%s" (include "fedcore-site.namespace" $) .) }}
{{- end }}
{{- toJson $users }}
{{- end }}

{{- define "fedcore-site.groups" -}}
{{- $groups := list }}
{{- range .Values.server.subjects }}
{{- if eq .kind "Group" }}{{ $groups = append $groups .name }}{{ end }}
{{- end }}
{{- toJson $groups }}
{{- end }}
