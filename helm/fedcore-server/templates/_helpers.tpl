{{- define "fedcore-server.labels" -}}
{{ include "fedcore-server.selector" . }}
app.kubernetes.io/part-of: fedcore
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "fedcore-server.selector" -}}
app.kubernetes.io/name: fedcore-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fedcore-server.name" -}}
{{- if contains "fedcore-server" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-fedcore-server{{ end }}
{{- end }}

{{- define "fedcore-server.metadata" -}}
name: {{ include "fedcore-server.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "fedcore-server.labels" . | nindent 2 }}
{{- end }}

{{- define "fedcore-server.prefectUrl" -}}
{{- if .Values.prefect.deploy -}}
http://{{ (index .Values "prefect-server").fullnameOverride | default "prefect-server" }}:4200/api
{{- else -}}
{{ .Values.prefect.url }}
{{- end }}
{{- end }}

{{- /* The federation file, with the paths at which the chart mounts what it refers to. */}}
{{- define "fedcore-server.federation" -}}
{{- $federation := deepCopy .Values.federation }}
{{- $_ := set $federation "signing_key" (print "/var/run/fedcore/signing-key/" .Values.secrets.signingKey.key) }}
{{- $_ := set $federation "credentials_file" (print "/var/run/fedcore/credentials/" .Values.secrets.credentials.key) }}
{{- if .Values.caBundle }}
{{- $_ := set $federation.exchange "ca_bundle" "/etc/fedcore/ca.pem" }}
{{- end }}
{{- range $name, $site := $federation.sites }}
{{- with $site.kubernetes }}
{{- if .kubeconfig }}
{{- if not $.Values.secrets.kubeconfigs }}
{{- fail (printf "federation.sites.%s.kubernetes.kubeconfig is a key of secrets.kubeconfigs, which is not given" $name) }}
{{- end }}
{{- $_ := set . "kubeconfig" (print "/var/run/fedcore/kubeconfigs/" .kubeconfig) }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $federation }}
{{- end }}

{{- /* "true" where a site's Jobs are made in this cluster, with this pod's own account. */}}
{{- define "fedcore-server.usesOwnAccount" -}}
{{- range .Values.federation.sites }}
{{- if and (eq (.launch | default $.Values.federation.launch) "kubernetes") (not (.kubernetes | default dict).kubeconfig) }}true{{ end }}
{{- end }}
{{- end }}
