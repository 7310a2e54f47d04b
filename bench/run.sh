#!/usr/bin/env bash
# Runs scenarios against a fresh, pinned corelay each, and prints one table.
#
#   bench/run.sh SCENARIO...          names in bench/scenarios/, or files
#
# CORELAY_BENCH_SHARDS      shards of the server (default 1)
# CORELAY_BENCH_SERVER      cores of the server (default 0; with more shards as many)
# CORELAY_BENCH_GENERATOR   cores of the generator (default: the next one)
# CORELAY_BENCH_FLAGS       further flags for corelay-load, e.g. "--duration 5"
# CORELAY_BENCH_RESULTS     directory for one JSON and one HTML file a run (default: a new one)
# CORELAY_TARGET_DIR        where builds are kept (default ~/.cache/corelay/target)
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/sfu/common.sh
. bench/sfu/corelay.sh

[ $# -gt 0 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
build
files=()
for scenario in "$@"; do
  file="$(scenario_file "$scenario")"
  count="$("$load" cells "$file" | wc -l)"
  for ((cell = 0; cell < count; cell++)); do measure corelay "$file" "$cell"; done
done
echo
"$load" table "${files[@]}"
