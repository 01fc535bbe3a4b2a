{{/* Names that others rely on: the control plane, istioctl and people's commands look for them (docs/compatibility.md). */}}
{{- define "ambient-cni.name" -}}istio-cni{{- end }}
{{- define "ambient-cni.daemonset" -}}istio-cni-node{{- end }}

{{/* true, "true", 1, "T" ... as Go's ParseBool reads the variables of istio-cni: "true", or nothing. */}}
{{- define "ambient-cni.truth" -}}
{{- if has (toString .) (list "1" "t" "T" "true" "TRUE" "True") }}true{{ end }}
{{- end }}

{{- define "ambient-cni.labels" -}}
app: {{ include "ambient-cni.daemonset" . }}
release: {{ .Release.Name }}
istio.io/rev: {{ .Values.revision | default "default" | quote }}
install.operator.istio.io/owning-resource: {{ .Values.ownerName | default "unknown" | quote }}
operator.istio.io/component: Cni
app.kubernetes.io/name: {{ include "ambient-cni.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "ambient-cni.image" -}}
{{- $v := .Values }}
{{- $image := include "ambient-cni.given-image" $v }}
{{- if contains "/" $image }}
{{- $image }}
{{- else if $image }}
{{- $tag := toString ($v.tag | default $v.global.tag | default .Chart.AppVersion) }}
{{- $variant := $v.variant | default $v.global.variant }}
{{- printf "%s/%s:%s%s" ($v.hub | default $v.global.hub | default "localhost") $image $tag (ternary (printf "-%s" $variant) "" (ne "" $variant)) }}
{{- else if $v.agentImage.digest }}
{{- printf "%s@%s" $v.agentImage.repository $v.agentImage.digest }}
{{- else }}
{{- printf "%s:%s" $v.agentImage.repository (toString ($v.agentImage.tag | default .Chart.AppVersion)) }}
{{- end }}
{{- end }}

{{/* Where the tunnel's socket is, and so which directory is mounted. */}}
{{- define "ambient-cni.tunnel-socket" -}}
{{- .Values.config.tunnelSocket | default .Values.env.ZTUNNEL_UDS_ADDRESS | default "/var/run/ztunnel/ztunnel.sock" }}
{{- end }}

{{- define "ambient-cni.scope" -}}
{{- $wanted := index . 1 }}
{{- if has (lower (index . 0).Values.global.resourceScope) (list "all" $wanted) }}true{{ end }}
{{- end }}

{{/* One of our levels from "debug", "default:info,cni:debug", "all:debug" or Istio's other names for levels. */}}
{{- define "ambient-cni.log-level" -}}
{{- $level := "" }}
{{- $rank := dict "" 0 "default" 1 "all" 2 "cni" 3 "cni-agent" 3 }}
{{- $best := -1 }}
{{- range splitList "," (coalesce .Values.logging.level .Values.global.logging.level "info") }}
  {{- $parts := splitList ":" (trim .) }}
  {{- $scope := ternary "" (first $parts) (eq 1 (len $parts)) }}
  {{- if and (hasKey $rank $scope) (gt (get $rank $scope) $best) }}
    {{- $best = get $rank $scope }}
    {{- $level = last $parts }}
  {{- end }}
{{- end }}
{{- $names := dict "none" "error" "fatal" "error" "error" "error" "warn" "warn" "warning" "warn" "info" "info" "" "info" "debug" "debug" "trace" "debug" }}
{{- if not (hasKey $names $level) }}
  {{- fail (printf "logging.level: %s is no level; the levels are error, warn, info and debug" $level) }}
{{- end }}
{{- get $names $level }}
{{- end }}
