{{/* The agent's configuration file (docs/configuration.md), from the values. */}}
{{- define "ambient-cni.config" -}}
{{- $v := .Values }}
{{- $redirect := dict "ipv6" $v.ambient.ipv6 "dnsCapture" $v.ambient.dnsCapture }}
{{- $probe := dict }}
{{- with $v.env.HOST_PROBE_SNAT_IP }}{{ $_ := set $probe "ipv4" (toString .) }}{{ end }}
{{- with $v.env.HOST_PROBE_SNAT_IPV6 }}{{ $_ := set $probe "ipv6" (toString .) }}{{ end }}
{{- with $probe }}{{ $_ := set $redirect "hostProbe" . }}{{ end }}
{{- $host := dict
      "binDir" "/host/opt/cni/bin"
      "confDir" "/host/etc/cni/net.d"
      "procDir" "/host/proc"
      "netnsDir" "/host/var/run/netns"
      "confFile" (default "" $v.cniConfFileName)
      "chained" $v.chained
      "ownConfig" $v.istioOwnedCNIConfig
      "networkNamespace" (ternary "" "/host/proc/1/ns/net" $v.ambient.shareHostNetworkNamespace) }}
{{- with $v.istioOwnedCNIConfigFileName }}{{ $_ := set $host "ownConfigFile" . }}{{ end }}
{{- if include "ambient-cni.truth" $v.env.CNI_CONF_GROUP_READ }}{{ $_ := set $host "confMode" "0640" }}{{ end }}
{{- $config := dict
      "source" "kubernetes"
      "daemonSetName" (include "ambient-cni.daemonset" .)
      "excludeNamespaces" (default list $v.excludeNamespaces)
      "enablementSelectors" $v.ambient.enablementSelectors
      "redirect" $redirect
      "tunnelSocket" (include "ambient-cni.tunnel-socket" .)
      "host" $host
      "log" (dict "level" (include "ambient-cni.log-level" .) "format" (ternary "json" "text" $v.global.logAsJson)) }}
{{- with $v.env.SYSTEM_NAMESPACE }}{{ $_ := set $config "systemNamespace" (toString .) }}{{ end }}
{{- if hasKey $v.env "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE" }}
  {{- $_ := set $config "awsBranchEni" (ternary "auto" "off" (eq "true" (include "ambient-cni.truth" $v.env.AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE))) }}
{{- end }}
{{- if include "ambient-cni.truth" $v.env.AMBIENT_DISABLE_SAFE_UPGRADE }}{{ $_ := set $config "safeUpgrade" false }}{{ end }}
{{- include "ambient-cni.overlay" (list $config $v.config) }}
{{- toYaml $config }}
{{- end }}
