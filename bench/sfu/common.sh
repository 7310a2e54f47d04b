# What bench/run.sh and bench/compare.sh share. Sourced, from the repository's root.
#
# A server NAME has a file bench/sfu/NAME.sh with
#   install_NAME    installs it (not called for corelay)
#   start_NAME      starts it on address $host, pinned to $server_cores, its log in $scratch/NAME.log,
#                   and sets `pid` (the process to measure) and `url` (its WebSocket)
# and an adapter in bench/load/src/sfu/ that speaks its signalling.

host=127.0.0.1
shards="${CORELAY_BENCH_SHARDS:-1}"
server_cores="${CORELAY_BENCH_SERVER:-$(seq -s, 0 $((shards - 1)))}"
cores="$(nproc --all)"
generator_cores="${CORELAY_BENCH_GENERATOR:-$((shards % cores))}"
read -r -a flags <<<"${CORELAY_BENCH_FLAGS:-}"
scratch="$(mktemp -d "${TMPDIR:-/tmp}/corelay-bench.XXXXXX")"
results="${CORELAY_BENCH_RESULTS:-$scratch/results}"
mkdir -p "$results"
pid=
trap 'stop; rm -f "$scratch"/*.log; rmdir "$scratch" 2>/dev/null || true' EXIT

build() {
  ./scripts/setup build
  built
  echo "bench: building the server and the generator" >&2
  # In two steps: the generator's features must not reach the server's packages.
  cargo build --release --locked --quiet --bin corelay --target-dir "$target"
  cargo build --release --locked --quiet --package corelay-load --target-dir "$target"
}

# Says where the builds are.
built() {
  target="${CORELAY_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/corelay/target}"
  load="$target/release/corelay-load"
}

scenario_file() {
  local file="$1"
  [ -e "$file" ] || file="bench/scenarios/$1.yaml"
  [ -e "$file" ] || { echo "bench: no scenario $1 (there are: $(ls bench/scenarios))" >&2; exit 2; }
  echo "$file"
}

# measure SERVER FILE CELL [ROUND]: one run against a fresh server; adds its result to `files`.
measure() {
  local server="$1" file="$2" cell="$3" round="${4:-1}" stem
  stem="$results/$(basename "$file" .yaml).$cell.$round.$server"
  "start_$server"
  echo "bench: $(basename "$file" .yaml) $cell, $server, round $round" >&2
  if ! taskset -c "$generator_cores" "$load" --scenario "$file" --cell "$cell" --sfu "$server" \
    --url "$url" --server-pid "$pid" --json --html "$stem.html" "${flags[@]}" >"$stem.json"; then
    echo "bench: that run failed; the server said:" >&2
    tail -5 "$scratch/$server.log" >&2
  fi
  stop
  [ ! -s "$stem.json" ] || files+=("$stem.json")
}

# Waits until a TCP port takes connections.
await_port() {
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && return
    sleep 0.05
  done
  echo "bench: nothing listens on $1 port $2" >&2
  cat "$scratch"/*.log >&2
  exit 1
}

stop() {
  [ -z "$pid" ] || { kill -INT "$pid" 2>/dev/null; wait "$pid" 2>/dev/null || true; }
  pid=
}
