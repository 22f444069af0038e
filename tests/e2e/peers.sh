#!/usr/bin/env bash
# Builds the peers that weir is compared with or sends to, from Go modules, into a folder of your choice:
#   otelcol      an OpenTelemetry Collector with the components that the checks use
#   telemetrygen the Collector project's own load client
#   jaeger       Jaeger v2, the last whose modules can all be had; without its web pages, which are no part of the module
#   prometheus3  Prometheus 3, which takes remote write 2.0; without the service discovery of clouds, and without its web pages
#   usage: peers.sh DIR [otelcol] [telemetrygen] [jaeger] [prometheus3]      (all without names)
# What is there already is left alone. Needs Go, any since 1.16. Cold, on two cores: 2, 1/2, 3 and 3 minutes.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[[ $# -gt 0 ]] || set -- otelcol telemetrygen jaeger prometheus3
V=v0.155.0
contrib=github.com/open-telemetry/opentelemetry-collector-contrib
core=go.opentelemetry.io/collector
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A Go that is too old to fetch its successor itself gets it as what it is, a module.
if [[ $(go env GOVERSION) =~ ^go1\.([0-9]+) && ${BASH_REMATCH[1]} -lt 21 ]]; then
  module=golang.org/toolchain@v0.0.1-go1.26.0.$(go env GOOS)-$(go env GOARCH)
  from=$(cd "$work" && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p')
  cp -r "$from" "$work/go"
  chmod -R u+w "$work/go"
  # Modules carry no permission to execute.
  chmod +x "$work"/go/bin/* "$work"/go/pkg/tool/*/*
  export PATH=$work/go/bin:$PATH GOTOOLCHAIN=local
fi

otelcol() {
  GOBIN=$work go install $core/cmd/builder@$V
  {
    printf 'dist:\n  name: otelcol\n  output_path: %s/src\n' "$work"
    section receivers $core/receiver/otlpreceiver $contrib/receiver/{hostmetrics,zipkin}receiver
    section exporters $core/exporter/{nop,debug,otlp,otlphttp}exporter $contrib/exporter/prometheusexporter
    section processors $core/processor/{batch,memorylimiter}processor \
      $contrib/processor/{attributes,resource,resourcedetection,tailsampling,groupbytrace,transform,filter}processor
    section connectors $contrib/connector/spanmetricsconnector
    section extensions $contrib/extension/storage/filestorage $contrib/extension/healthcheckextension
    # Its own version of this is not to be had from the proxy; it only hands environment variables on.
    printf 'replaces:\n  - %s => %s v0.152.0\n' $contrib/internal/gopsutilenv $contrib/internal/gopsutilenv
  } >"$work/manifest.yaml"
  # The builder's `go mod tidy` wants modules that only tests need; the build itself does not.
  "$work/builder" --config "$work/manifest.yaml" --skip-compilation >"$work/log" 2>&1 || true
  (cd "$work/src" && go build -mod=mod -trimpath -ldflags='-s -w' -o "$dir/otelcol" .)
}
section() { # name modules...
  echo "$1:"
  shift
  printf '  - gomod: %s '"$V"'\n' "$@"
}
telemetrygen() { GOBIN=$dir go install $contrib/cmd/telemetrygen@v0.161.0; }
jaeger() {
  local main=github.com/jaegertracing/jaeger/cmd/jaeger
  mkdir "$work/jaeger"
  cd "$work/jaeger"
  # Its module replaces others, which `go install` refuses; as a part of a module of ours it is built.
  go mod init peers
  go get -tool $main@v1.62.0
  go build -trimpath -ldflags='-s -w' -o "$dir/jaeger" $main
}
prometheus3() {
  local main=github.com/prometheus/prometheus/cmd/prometheus
  mkdir "$work/prometheus3"
  cd "$work/prometheus3"
  go mod init peers
  go get -tool $main@v0.315.0
  go build -tags remove_all_sd -trimpath -ldflags='-s -w' -o "$dir/prometheus3" $main
}
for peer in "$@"; do [[ -x $dir/$peer ]] || ($peer); done
