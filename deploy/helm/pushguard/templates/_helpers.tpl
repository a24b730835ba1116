{{- define "pushguard.labels" -}}
app.kubernetes.io/name: pushguard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "pushguard.name" -}}
{{- printf "%s" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
