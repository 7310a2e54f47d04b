#!/usr/bin/env bash
# What a second shard costs: one shard and the generator of its load share one core; then two of
# each, with twice the rooms, share two. So each core has the same to do, and what differs is that
# there are two shards. In turns (A B A B); prints one table.
#
#   bench/shards.sh           needs two cores
#
# CORELAY_BENCH_ROUNDS      turns of each (default 2)
# and CORELAY_BENCH_FLAGS, CORELAY_BENCH_RESULTS, CORELAY_TARGET_DIR as for bench/run.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/sfu/common.sh
. bench/sfu/corelay.sh
build
file="$(scenario_file shards)"
files=()
for pair in 0 2; do
  for ((round = 1; round <= ${CORELAY_BENCH_ROUNDS:-2}; round++)); do
    shards=1 server_cores=0 generator_cores=0
    measure corelay "$file" "$pair" "$round"
    shards=2 server_cores=0,1 generator_cores=0,1
    measure corelay "$file" "$((pair + 1))" "$round"
  done
done
echo
"$load" table "${files[@]}"
