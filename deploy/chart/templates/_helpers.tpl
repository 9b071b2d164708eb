{{- define "vxlane.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "vxlane.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "vxlane.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "vxlane.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "vxlane.selectorLabels" -}}
app.kubernetes.io/name: {{ include "vxlane.name" . | toYaml }}
app.kubernetes.io/instance: {{ .Release.Name | toYaml }}
{{- end -}}

{{- define "vxlane.labels" -}}
{{ include "vxlane.selectorLabels" . }}
app.kubernetes.io/part-of: vxlane
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "vxlane.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Of every container: not privileged, and no capability beyond those of the list. */}}
{{- define "vxlane.securityContext" -}}
{{- range .Values.capabilities }}
{{- if hasPrefix "CAP_" . }}
{{- fail (printf "capabilities has %s; write it without CAP_, which runtimes put before it" .) }}
{{- end }}
{{- end -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .Values.readOnlyRootFilesystem }}
runAsUser: 0
runAsGroup: 0
seccompProfile:
  type: RuntimeDefault
capabilities:
  drop: [ALL]
  add:
    {{- toYaml .Values.capabilities | nindent 4 }}
{{- end -}}

{{/* The node's own files that agent and clean-up work on. */}}
{{- define "vxlane.nodeMounts" -}}
- name: run
  mountPath: /run/vxlane
- name: bpffs
  mountPath: /run/vxlane/bpf
  # What the node mounts there later is seen; the pod mounts nothing itself.
  mountPropagation: HostToContainer
- name: sysctls
  mountPath: /host/proc/sys/net
{{- if eq .Values.mode "own" }}
- name: flannel
  mountPath: /run/flannel
- name: xtables-lock
  mountPath: /run/xtables.lock
- name: net-conf
  mountPath: /etc/kube-flannel
  readOnly: true
{{- end }}
- name: cni-cache
  mountPath: /var/lib/cni
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "vxlane.cniDirectories" -}}
- name: cni-plugin
  mountPath: /host/opt/cni/bin
- name: cni
  mountPath: /host/etc/cni/net.d
{{- end -}}

{{- define "vxlane.cniMounts" -}}
{{ include "vxlane.cniDirectories" . }}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "vxlane.cniArgs" -}}
- --cni-bin-dir=/host/opt/cni/bin
- --cni-conf-dir=/host/etc/cni/net.d
- --network-name={{ .Values.cniNetworkName }}
{{- end -}}

{{/* Not empty: a container works on the plugin's files. */}}
{{- define "vxlane.usesCni" -}}
{{- if or (eq .Values.mode "remove") (not .Values.skipCNIConfigInstallation) -}}
yes
{{- end -}}
{{- end -}}
