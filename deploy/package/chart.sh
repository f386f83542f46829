#!/usr/bin/env bash
# Makes the Helm chart out of the objects that kustomize takes: chart.sh DIR VERSION
# leaves it in DIR/isolate. What a value chooses is put into their text, so that the
# chart with its default values is what kustomize applies.
set -euo pipefail
dir=$1/isolate version=$2
cd "$(dirname "$0")"
mkdir -p "$dir/templates"
cp values.yaml "$dir"
cat >"$dir/Chart.yaml" <<END
apiVersion: v2
name: isolate
description: Pods with ids, limits and clocks of their own, by runtimeClassName isolate
type: application
version: "$version"
appVersion: "$version"
home: https://github.com/isolate-shim/isolate
kubeVersion: ">=1.33.0-0"
END
for name in namespace runtimeclass rbac; do
	cp "../install/$name.yaml" "$dir/templates"
done
{
	echo '{{ if .Values.policy }}'
	cat ../install/policy.yaml
	echo '{{ end }}'
} >"$dir/templates/policy.yaml"
{
	echo '{{ if .Values.lxcfs }}'
	sed 's/image: isolate-lxcfs$/image: {{ .Values.lxcfsImage }}/' ../lxcfs/daemonset.yaml
	echo '{{ end }}'
} >"$dir/templates/lxcfs.yaml"
sed -e 's/image: isolate$/image: {{ .Values.image }}/' \
	-e 's/name: install$/name: {{ .Values.action }}/' -e 's/name: installed$/name: {{ .Values.action }}ed/' \
	-e 's/args: \["install"/args: ["{{ .Values.action }}"/' -e 's/=systemd/={{ .Values.restart }}/' \
	-e 's/(NODE_NAME)"/&{{ with .Values.address }}, "--address={{ . }}"{{ end }}{{ if and .Values.binDir (eq .Values.action "install") }}, "--bin-dir={{ .Values.binDir }}"{{ end }}/' \
	-e 's/maxUnavailable: 10%/maxUnavailable: {{ if eq .Values.action "install" }}10%{{ else }}100%{{ end }}/' \
	../install/installer.yaml >"$dir/templates/installer.yaml"
