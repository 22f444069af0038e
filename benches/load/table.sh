#!/usr/bin/env bash
# Measures the six figures of benches/README.md and prints them as a table.
#   usage: table.sh [COMMAND...]      the command gets a configuration file as its last argument
#                                     (default: target/release/weir run --journal memory --config)
# ROUNDS (5), WORKS ("receive red red+forward") and BATCHES ("512 10") may be set; DURATION, WARMUP and the cores as for ratio.sh.
# Exits 1 if something failed to arrive or was not counted.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
[[ $# -gt 0 ]] || set -- "${CARGO_TARGET_DIR:-$root/target}/release/weir" run --journal memory --config
bin=${OTLPLOAD:-$here/target/release/otlpload}
bad=0
declare -A ratio
for batch in ${BATCHES:-512 10}; do
  for work in ${WORKS:-receive red red+forward}; do
    options=() load=
    case $work in
      receive) file=$here/receive.yaml ;;
      red) file=$here/red.yaml ;;
      *) file=$root/tests/e2e/red-forward.yaml ;;
    esac
    [[ $work == receive ]] || { load=--fresh; options=(--scrape http://127.0.0.1:8889/metrics); }
    out=$(OTLPLOAD=$bin LOAD_ARGS=$load "$here/ratio.sh" --work "$work" --batch "$batch" --rounds "${ROUNDS:-5}" "${options[@]}" --label target -- "$@" "$file" | tail -n 1) || bad=1
    echo "$out"
    ratio[$work,$batch]=$(grep -oE 'ratio=[0-9.]+' <<<"$out" | cut -d= -f2)
  done
done

pid=
trap '[[ -z $pid ]] || kill "$pid" 2>/dev/null || true' EXIT
# Whether RED counts are the spans that were accepted, once, outside the timed runs.
counted() {
  local stats accepted calls
  taskset -c "${TARGET_CPU:-1}" "$@" "$here/red.yaml" >/dev/null 2>&1 &
  pid=$!
  for _ in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/4317) 2>/dev/null && break; sleep 0.1; done
  stats=$(mktemp)
  taskset -c "${LOAD_CPU:-0}" "$bin" load --to 127.0.0.1:4317 --batch 512 --connections 4 --in-flight 4 --warmup 0 --duration 3 --fresh --label counted --json "$stats" >/dev/null
  accepted=$(python3 -c 'import json, sys; print(json.loads(open(sys.argv[1]).readlines()[-1])["items"])' "$stats")
  for _ in $(seq 20); do
    calls=$(curl -s 127.0.0.1:8889/metrics | awk '/^traces_span_metrics_calls_total\{/ {n += $NF} END {printf "%.0f", n}')
    [[ $calls == "$accepted" ]] && break
    sleep 0.5
  done
  kill "$pid"
  wait "$pid" 2>/dev/null || true
  rm -f "$stats"
  echo "counted: $calls of $accepted spans"
  [[ $calls == "$accepted" ]]
}
counted "$@" || bad=1

echo
echo "| work | ÷ floor, 512 spans a request | 10 spans |"
echo "|---|---|---|"
for work in ${WORKS:-receive red red+forward}; do
  echo "| $work | ${ratio[$work,512]:-–} | ${ratio[$work,10]:-–} |"
done
exit $bad
