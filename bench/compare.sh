#!/usr/bin/env bash
# The same load on corelay and on another SFU, in turns (A B A B), with medians and ratios.
#
#   bench/compare.sh [SCENARIO [CELL...]]    default: one-to-many, its runs of 20, 50 and 100
#
# CORELAY_BENCH_OTHER       the other one: janus (default), or any bench/sfu/NAME.sh
# CORELAY_BENCH_ROUNDS      turns of each (default 2)
# and those of bench/run.sh.
#
# Runs in a network namespace of its own, on an address that is not loopback: libnice, under
# Janus, skips loopback. Needs root or unprivileged user namespaces. How to add an SFU is in
# bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/sfu/common.sh
. bench/sfu/corelay.sh
other="${CORELAY_BENCH_OTHER:-janus}"
. "bench/sfu/$other.sh"

if [ -z "${CORELAY_BENCH_INSIDE:-}" ]; then
  "install_$other"
  build
  enter=(unshare --net --pid --fork --kill-child --mount --mount-proc)
  "${enter[@]}" true 2>/dev/null || enter+=(--user --map-root-user)
  CORELAY_BENCH_INSIDE=1 exec "${enter[@]}" "$0" "$@"
fi
export PATH="$PATH:/usr/sbin:/sbin"
host=10.77.0.1
ip link set lo up
# Both ends stay here: what is sent to an own address never leaves by them.
ip link add bench0 type veth peer name bench1
ip addr add "$host/24" dev bench0
ip link set bench0 up
ip link set bench1 up

built
scenario="${1:-one-to-many}"
cells=("${@:2}")
[ ${#cells[@]} -gt 0 ] || [ "$scenario" != one-to-many ] || cells=(0 1 2 4)
file="$(scenario_file "$scenario")"
count="$("$load" cells "$file" | wc -l)"
[ ${#cells[@]} -gt 0 ] || mapfile -t cells < <(seq 0 $((count - 1)))
files=()
for cell in "${cells[@]}"; do
  for ((round = 1; round <= ${CORELAY_BENCH_ROUNDS:-2}; round++)); do
    measure corelay "$file" "$cell" "$round"
    measure "$other" "$file" "$cell" "$round"
  done
done
echo
"$load" table "${files[@]}"
