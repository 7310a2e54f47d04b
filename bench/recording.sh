#!/usr/bin/env bash
# What recording costs: the same load with nothing recorded and with every room recorded, in turns
# (A B A B). Prints two tables, first that of nothing recorded; the CPU is that of the whole server,
# the recorder's thread included.
#
#   bench/recording.sh [CELL...]      runs of bench/scenarios/recorded.yaml, counted from 0
#
# CORELAY_BENCH_ROUNDS      turns of each (default 2)
# and those of bench/run.sh. The files go to a directory that is deleted.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/sfu/common.sh
. bench/sfu/corelay.sh
build
file="$(scenario_file recorded)"
cells=("$@")
[ ${#cells[@]} -gt 0 ] || mapfile -t cells < <(seq 0 $(($("$load" cells "$file" | wc -l) - 1)))
export CORELAY_RECORDING_PATH="$scratch/recordings" CORELAY_RECORDING_MIN_FREE_SPACE=1
export CORELAY_RECORDING_AUTO=true
files=()
for cell in "${cells[@]}"; do
  for ((round = 1; round <= ${CORELAY_BENCH_ROUNDS:-2}; round++)); do
    for is_recorded in false true; do
      export CORELAY_RECORDING_ENABLED="$is_recorded"
      measure corelay "$file" "$cell" "$round.$is_recorded"
      rm -rf "$CORELAY_RECORDING_PATH"
    done
  done
done
for is_recorded in false true; do
  printf '\nrecorded: %s\n' "$is_recorded"
  those=()
  for one in "${files[@]}"; do [[ $one != *".$is_recorded."* ]] || those+=("$one"); done
  "$load" table "${those[@]}"
done
