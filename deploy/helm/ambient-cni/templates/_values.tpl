{{/*
Values. `.Values` comes as our defaults, all below one key, and beside it what the user set, which lets a platform's and a
profile's values be put between the two: later wins, key by key, lists as a whole. "ambient-cni.prepare" does that once, before
anything else is rendered, and puts the result in the place of .Values; the files of a chart share it.

What was set without effect is collected on the way in .Values.remarks, for NOTES.txt.
*/}}
{{- define "ambient-cni.prepare" -}}
{{- if hasKey .Values "_internal_defaults_do_not_set" }}
  {{- $defaults := index .Values "_internal_defaults_do_not_set" }}
  {{- $given := omit .Values "_internal_defaults_do_not_set" "cni" }}
  {{- /* Istio's older charts and its operator have everything below `cni`. */}}
  {{- with .Values.cni }}
    {{- $under := deepCopy . }}
    {{- include "ambient-cni.overlay" (list $under $given) }}
    {{- $given = $under }}
  {{- end }}
  {{- $platform := default "" (coalesce $given.platform ($given.global).platform) }}
  {{- $profile := default "" $given.profile }}
  {{- if hasPrefix "platform-" $profile }}
    {{- $platform = trimPrefix "platform-" $profile }}
    {{- $profile = "" }}
  {{- end }}
  {{- $values := deepCopy $defaults }}
  {{- if contains "-gke" .Capabilities.KubeVersion.Version }}
    {{- $_ := set $values "cniBinDir" "/home/kubernetes/bin" }}
  {{- end }}
  {{- if $profile }}
    {{- $preset := include "ambient-cni.preset" (list . $profile) | fromYaml }}
    {{- $platform = default $preset.platform $platform }}
    {{- include "ambient-cni.overlay" (list $values $preset) }}
  {{- end }}
  {{- if $platform }}
    {{- include "ambient-cni.overlay" (list $values (include "ambient-cni.preset" (list . (printf "platform-%s" $platform)) | fromYaml)) }}
  {{- end }}
  {{- include "ambient-cni.overlay" (list $values $given) }}
  {{- /* null takes a part of the pod away, and is nothing elsewhere. */}}
  {{- range $key, $default := $defaults }}
    {{- if and (kindIs "map" $default) (kindIs "invalid" (get $values $key)) }}
      {{- if not (has $key (list "affinity" "resources" "updateStrategy" "seccompProfile" "seLinuxOptions")) }}
        {{- $_ := set $values $key (deepCopy $default) }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- $_ := set $values "platform" $platform }}
  {{- /* Names of older charts. */}}
  {{- with $given.rollingMaxUnavailable }}
    {{- $_ := set $values "updateStrategy" (dict "type" "RollingUpdate" "rollingUpdate" (dict "maxUnavailable" .)) }}
  {{- end }}
  {{- with ($given.ambient).enablementSelector }}
    {{- $_ := set $values.ambient "enablementSelectors" . }}
  {{- end }}
  {{- $_ := set $values "remarks" (include "ambient-cni.remarks" (list . $given $defaults) | fromYamlArray) }}
  {{- $_ := set . "Values" $values }}
{{- end }}
{{- end }}

{{/* Puts the second map over the first, in place: sprig's merge would pass over false, 0 and empty lists. */}}
{{- define "ambient-cni.overlay" -}}
{{- $below := index . 0 }}
{{- range $key, $value := index . 1 }}
  {{- $old := get $below $key }}
  {{- if and (kindIs "map" $value) (kindIs "map" $old) }}
    {{- include "ambient-cni.overlay" (list $old $value) }}
  {{- else if kindIs "map" $value }}
    {{- $_ := set $below $key (deepCopy $value) }}
  {{- else }}
    {{- $_ := set $below $key $value }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "ambient-cni.preset" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $text := $root.Files.Get (printf "files/profiles/%s.yaml" $name) }}
{{- if not $text }}
  {{- $names := list }}
  {{- range $path, $_ := $root.Files.Glob "files/profiles/*.yaml" }}
    {{- $names = append $names (trimSuffix ".yaml" (base $path)) }}
  {{- end }}
  {{- fail (printf "there is no profile %s; there are: %s (platform=NAME is the same as profile=platform-NAME)" $name (join ", " $names)) }}
{{- end }}
{{- tpl $text $root }}
{{- end }}

{{/* A YAML list of sentences: what was set and does nothing here. */}}
{{- define "ambient-cni.remarks" -}}
{{- $root := index . 0 }}
{{- $given := index . 1 }}
{{- $defaults := index . 2 }}
{{- $remarks := list }}
{{- $idle := $root.Files.Get "files/without-effect.yaml" | fromYaml }}
{{- $ours := ne "" (include "ambient-cni.given-image" $given) }}
{{- range $key, $why := $idle }}
  {{- $path := splitList "." $key }}
  {{- $place := $given }}
  {{- range initial $path }}
    {{- $place = get $place . | default dict }}
  {{- end }}
  {{- if hasKey $place (last $path) }}
    {{- $value := get $place (last $path) }}
    {{- $of_image := or (has (trimPrefix "global." $key) (list "hub" "tag" "variant" "image")) }}
    {{- /* An empty name of an image says nothing, and with an image of ours they all count. */}}
    {{- if not (and $of_image (or $ours (not $value))) }}
      {{- $remarks = append $remarks (printf "%s: %s" $key $why) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- $translated := list "HOST_PROBE_SNAT_IP" "HOST_PROBE_SNAT_IPV6" "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE" "AMBIENT_DISABLE_SAFE_UPGRADE" "SYSTEM_NAMESPACE" "ZTUNNEL_UDS_ADDRESS" "CNI_CONF_GROUP_READ" }}
{{- range $name, $_ := $given.env }}
  {{- if not (has $name $translated) }}
    {{- $remarks = append $remarks (printf "env.%s: the agent is configured by its file, not by environment variables; see `config` for what it can do" $name) }}
  {{- end }}
{{- end }}
{{- /* Keys that nobody knows. Below `global` stand other charts' keys too, so none of them is unknown. */}}
{{- $known := concat (keys $defaults) (list "rollingMaxUnavailable" "global") }}
{{- $known_ambient := concat (keys $defaults.ambient) (list "enablementSelector") }}
{{- range $key, $_ := $idle }}
  {{- $known = append $known (splitList "." $key | first) }}
  {{- if hasPrefix "ambient." $key }}
    {{- $known_ambient = append $known_ambient (trimPrefix "ambient." $key) }}
  {{- end }}
{{- end }}
{{- range $key, $_ := $given }}
  {{- if not (has $key $known) }}
    {{- $remarks = append $remarks (printf "%s: no such key is known" $key) }}
  {{- end }}
{{- end }}
{{- range $key, $_ := $given.ambient }}
  {{- if not (has $key $known_ambient) }}
    {{- $remarks = append $remarks (printf "ambient.%s: no such key is known" $key) }}
  {{- end }}
{{- end }}
{{- sortAlpha $remarks | toYaml }}
{{- end }}

{{/* The name of an image that is not Istio's own, empty where there is none. */}}
{{- define "ambient-cni.given-image" -}}
{{- $image := toString (default "" .image) }}
{{- $name := splitList "@" $image | first | splitList "/" | last | splitList ":" | first }}
{{- if and $image (ne $name "install-cni") }}{{ $image }}{{ end }}
{{- end }}
