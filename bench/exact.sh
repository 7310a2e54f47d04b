#!/usr/bin/env bash
# Counts instructions (by callgrind) and allocations of the engine per forwarded packet, per join
# and per second that a viewer is there, and fails when one is more than bench/baseline.txt allows.
#
#   bench/exact.sh             hold the counts against the baseline
#   bench/exact.sh --update    write them down as the new baseline: say why in the commit
#
# CORELAY_TARGET_DIR           where builds are kept (default ~/.cache/corelay/target)
#
# The counts are those of this crate optimised but with overflow checks and debug assertions, as
# its tests have it: the packages under it are then those the tests have already built. Instructions
# of the C libraries (cryptography, memcpy) are left out: those choose by the CPU they run on.
set -euo pipefail
cd "$(dirname "$0")/.."

CASES=(forward-10-bursts forward-10-singly ingress join idle idle-trickle)
# Percent that a count may be above the baseline: keys and hash seeds differ from run to run.
INSTRUCTIONS_SLACK=3
ALLOCATIONS_SLACK=2
FOREIGN='aws_lc|aesni|aead_aes|gcm_|ghash|sha256|sha512|montj|p256|p384|bn_|EVP_|CRYPTO|libc\.so|ld-linux'
baseline=bench/baseline.txt

main() {
  local update=no
  case "${1:-}" in
    "") ;;
    --update) update=yes ;;
    *) echo "usage: bench/exact.sh [--update]" >&2; exit 2 ;;
  esac
  ./scripts/setup exact
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/corelay-exact.XXXXXX")"
  trap 'rm -rf "$scratch"' EXIT
  build
  local case
  for case in "${CASES[@]}"; do count "$case" & done
  for case in "${CASES[@]}"; do wait -n; done
  for case in "${CASES[@]}"; do cat "$scratch/$case"; done >"$scratch/found"
  if [ "$update" = yes ]; then
    { echo "# case, instructions and allocations of one packet, join or second; see bench/exact.sh"
      cat "$scratch/found"; } >"$baseline"
    cat "$baseline"
  else
    compare
  fi
}

build() {
  export CARGO_TARGET_DIR="${CORELAY_TARGET_DIR:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/corelay/target}}"
  export CARGO_PROFILE_DEV_OPT_LEVEL=3 CARGO_INCREMENTAL=0
  exact="$(cargo build --locked --bench exact --message-format=json |
    grep '"name":"exact"' | grep -o '"executable":"[^"]*"' | cut -d'"' -f4)"
}

# Writes `case instructions allocations`, of one unit, to a file named after the case.
count() {
  local profile="$scratch/$1.callgrind" log="$scratch/$1.log" said instructions
  said="$(valgrind --tool=callgrind --callgrind-out-file="$profile" --log-file="$log" \
    --toggle-collect='*measured_turn*' "$exact" "$1")"
  instructions="$(callgrind_annotate --auto=no --threshold=100 "$profile" |
    grep -E '^ *[0-9,]+ \(.*:' | grep -vE "$FOREIGN" |
    awk '{ gsub(",", "", $1); sum += $1 } END { print sum }')"
  [ -n "$instructions" ] || { cat "$log" >&2; return 1; }
  # case, "units", units, "allocations", allocations
  echo "$said $instructions" |
    awk '{ printf "%s %.0f %.2f\n", $1, $6 / $3, $5 / $3 }' >"$scratch/$1"
}

compare() {
  awk -v instructions="$INSTRUCTIONS_SLACK" -v allocations="$ALLOCATIONS_SLACK" '
    function judge(what, now, before, slack) {
      verdict = "ok"
      if (now > before * (1 + slack / 100) + (what == "allocations") * 0.02) {
        verdict = "GREW"; failed++
      } else {
        passed++
        if (now < before * (1 - slack / 100)) verdict = "ok (less: --update keeps it so)"
      }
      printf "%-20s %-13s %12s %12s  %s\n", $1, what, before, now, verdict
    }
    /^#/ { next }
    FNR == NR { before[$1] = $2; allocated[$1] = $3; next }
    FNR == 1 { printf "%-20s %-13s %12s %12s\n", "case", "per unit", "baseline", "now" }
    !($1 in before) { print $1 " has no baseline: bench/exact.sh --update"; failed++; next }
    { judge("instructions", $2, before[$1], instructions)
      judge("allocations", $3, allocated[$1], allocations) }
    END { printf "\n%d passed, %d failed\n", passed, failed; exit failed > 0 }
  ' "$baseline" "$scratch/found"
}

main "$@"
