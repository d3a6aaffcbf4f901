{{- define "kinglet.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-kinglet" .Release.Name) (contains "kinglet" .Release.Name) -}}
{{- default $name .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "kinglet.selectorLabels" -}}
app.kubernetes.io/name: kinglet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "kinglet.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "kinglet.selectorLabels" . }}
{{- end }}

{{- define "kinglet.serviceAccount" -}}
{{- default (ternary (include "kinglet.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end }}

{{- define "kinglet.image" -}}
{{- with .Values.image -}}
{{- .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{/* The port of an address. */}}
{{- define "kinglet.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end }}

{{/* The name of the container's port for gRPC: REST's, where both are served there. */}}
{{- define "kinglet.grpcPort" -}}
{{- ternary "http" "grpc" (eq .Values.config.http.listen .Values.config.grpc.listen) -}}
{{- end }}

{{/* A duration of the configuration in seconds, rounded up. */}}
{{- define "kinglet.seconds" -}}
{{- $seconds := dict "ns" "0.000000001" "us" "0.000001" "ms" "0.001" "s" "1" "m" "60" "h" "3600" -}}
{{- mulf (regexFind "^[0-9]+" .) (get $seconds (regexFind "[a-z]+$" .)) | ceil | int64 -}}
{{- end }}

{{/* Delay and grace of the drain, and 5 s for what comes behind it: traces on their way, and the end of the process. */}}
{{- define "kinglet.terminationSeconds" -}}
{{- $drain := .Values.config.drain -}}
{{- add (include "kinglet.seconds" $drain.delay) (include "kinglet.seconds" $drain.grace) 5 -}}
{{- end }}

{{/* The configuration as TOML, a table for each room. */}}
{{- define "kinglet.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- with .Values.tls -}}
{{- if .secretName -}}
{{- $tls := dict "certificate" "/tls/tls.crt" "key" "/tls/tls.key" "listeners" (list "http" "grpc") -}}
{{- if .clientAuthorities }}{{ $tls = set $tls "client_authorities" (printf "/tls/%s" .clientAuthorities) }}{{ end -}}
{{- $config = set $config "tls" (merge (default dict $config.tls) $tls) -}}
{{- end -}}
{{- end -}}
{{- with .Values.access -}}
{{- if .secretName -}}
{{- $access := dict "tenants_file" "/access/tenants.toml" -}}
{{- if .jwks }}{{ $access = set $access "jwks_file" (printf "/access/%s" .jwks) }}{{ end -}}
{{- $config = set $config "access" (merge (default dict $config.access) $access) -}}
{{- end -}}
{{- end -}}
{{- with .Values.signatures -}}
{{- if .configMapName -}}
{{- $signatures := dict "policy" .policy "keys" list "certificates" list -}}
{{- range .keys }}{{ $signatures = set $signatures "keys" (append $signatures.keys (printf "/signatures/%s" .)) }}{{ end -}}
{{- range .certificates }}{{ $signatures = set $signatures "certificates" (append $signatures.certificates (printf "/signatures/%s" .)) }}{{ end -}}
{{- $config = set $config "signatures" (merge (default dict $config.signatures) $signatures) -}}
{{- end -}}
{{- end -}}
{{- range $room, $fields := $config }}
[{{ $room }}]
{{- range $key, $value := $fields }}
{{ $key }} = {{ include "kinglet.toml" $value }}
{{- end }}
{{ end }}
{{- end }}

{{/* A value as TOML has it on one line: as in JSON, but for tables. */}}
{{- define "kinglet.toml" -}}
{{- if kindIs "map" . -}}
{{- $fields := list -}}
{{- range $key, $value := . }}{{ $fields = append $fields (printf "%s = %s" (toRawJson $key) (include "kinglet.toml" $value)) }}{{ end -}}
{ {{ join ", " $fields }} }
{{- else if kindIs "slice" . -}}
{{- $values := list -}}
{{- range . }}{{ $values = append $values (include "kinglet.toml" .) }}{{ end -}}
[{{ join ", " $values }}]
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end }}

{{- define "kinglet.probe" -}}
httpGet:
  path: /v2/health/{{ .path }}
  {{- /* Kubelets show no certificate. */}}
  port: {{ ternary "admin" "http" (not (empty .tls.secretName)) }}
{{ toYaml .settings }}
{{- end }}
