{{- define "vxlane.agent" -}}
{{- if eq (int .Values.healthz.port) (int .Values.metrics.port) -}}
{{- fail "healthz.port and metrics.port are the same; both are ports of the node" -}}
{{- end -}}
{{- if not .Values.skipCNIConfigInstallation -}}
initContainers:
  - name: install-cni
    image: {{ include "vxlane.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [vxlane, install]
    args:
      {{- include "vxlane.cniArgs" . | nindent 6 }}
      {{- with .Values.cniInterpreter }}
      - --interpreter={{ . }}
      {{- end }}
      {{- if eq .Values.mode "own" }}
      - --role=main
      {{- end }}
    securityContext:
      {{- include "vxlane.installSecurityContext" . | nindent 6 }}
    volumeMounts:
      {{- include "vxlane.cniMounts" . | nindent 6 }}
{{- end }}
containers:
  - name: agent
    image: {{ include "vxlane.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [vxlane, agent]
    args:
      - --mode={{ .Values.mode }}
      - --kube-subnet-mgr
      # Meanwhile the old pod's agent answers the probes, on the port that both have.
      - --stand-by
      - --healthz-ip=127.0.0.1
      - --healthz-port={{ int .Values.healthz.port }}
      - --metrics-port={{ int .Values.metrics.port }}
      - --revalidate={{ .Values.revalidate }}
      - --pods={{ .Values.pods }}
      {{- if not .Values.skipCNIConfigInstallation }}
      # flannel's init container and k3s write their list anew: the agent puts the plugin back.
      - --cni-conf-dir=/host/etc/cni/net.d
      {{- end }}
      {{- if eq .Values.mode "own" }}
      - --ip-masq
      {{- end }}
      {{- range .Values.args }}
      - {{ . | quote }}
      {{- end }}
    env:
      - name: NODE_NAME
        valueFrom:
          fieldRef:
            fieldPath: spec.nodeName
    # The source of nodes may have to be waited for: that is no reason to start again.
    startupProbe:
      httpGet: {host: 127.0.0.1, path: /healthz, port: {{ int .Values.healthz.port }}}
      {{- with .Values.healthz.startupProbe }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    livenessProbe:
      httpGet: {host: 127.0.0.1, path: /healthz, port: {{ int .Values.healthz.port }}}
      {{- with .Values.healthz.livenessProbe }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    readinessProbe:
      httpGet: {host: 127.0.0.1, path: /readyz, port: {{ int .Values.healthz.port }}}
      {{- with .Values.healthz.readinessProbe }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .Values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "vxlane.securityContext" . | nindent 6 }}
    volumeMounts:
      {{- include "vxlane.nodeMounts" . | nindent 6 }}
      {{- if not .Values.skipCNIConfigInstallation }}
      {{- include "vxlane.cniDirectories" . | nindent 6 }}
      {{- end }}
{{- end -}}

{{/* The plugin's two files, whoever has their directories, and nothing of the node's network. */}}
{{- define "vxlane.installSecurityContext" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .Values.readOnlyRootFilesystem }}
runAsUser: 0
runAsGroup: 0
seccompProfile:
  type: RuntimeDefault
capabilities:
  drop: [ALL]
  {{- if has "DAC_OVERRIDE" .Values.capabilities }}
  add: [DAC_OVERRIDE]
  {{- end }}
{{- end -}}

{{/* Mode remove: the pods are ready where nothing of vxlane is left. */}}
{{- define "vxlane.remove" -}}
initContainers:
  - name: uninstall-cni
    image: {{ include "vxlane.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [vxlane, uninstall]
    args:
      {{- include "vxlane.cniArgs" . | nindent 6 }}
    securityContext:
      {{- include "vxlane.installSecurityContext" . | nindent 6 }}
    volumeMounts:
      {{- include "vxlane.cniMounts" . | nindent 6 }}
      - name: cni-cache
        mountPath: /var/lib/cni
        readOnly: true
  - name: detach
    image: {{ include "vxlane.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [vxlane, detach]
    securityContext:
      {{- include "vxlane.securityContext" . | nindent 6 }}
    volumeMounts:
      {{- include "vxlane.nodeMounts" . | nindent 6 }}
containers:
  - name: removed
    image: {{ include "vxlane.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    # Process 1 gets no signal without a handler, and would be killed 10 s later.
    command: [python3, -c, "import signal as s; s.signal(s.SIGTERM, lambda *_: None); s.pause()"]
    {{- with .Values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "vxlane.installSecurityContext" . | nindent 6 }}
{{- end -}}
