#!/usr/bin/env bash
# `deploy/stack` as a person runs it: what the shop sent is at every end, and nothing that it started is left.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export WEIR_BIN=$WEIR WEIR_E2E_CACHE=$CACHE TMPDIR=$WORK
# The usual ports may be in use, and so may be some of these.
for _ in 1 2 3; do
  offset=$((20000 + RANDOM % 12000)) status=0
  "$here/../../deploy/stack" --once --for 8s --rate 15 --offset "$offset" >"$WORK/said" || status=$?
  grep -q '^stack: in use' "$WORK/said" || break
done
cat "$WORK/said"
left=$(ps -eo pid,args | grep -F "$WORK/weir-stack" | grep -v grep) && { echo "FAIL  it leaves processes: $left"; exit 1; }
left=$(compgen -G "$WORK/weir-stack.*") && { echo "FAIL  it leaves a folder: $left"; exit 1; }
[[ $status -eq 0 ]] || { echo "FAIL  not everything arrived"; exit 1; }
echo "ok    what was sent is at every end, and nothing is left of it"
