# Starts corelay for bench/run.sh and bench/compare.sh.

start_corelay() {
  CORELAY_ROOMS_MAX_PARTICIPANTS=2000 CORELAY_ROOMS_MAX_ROOMS=10000 CORELAY_SERVER_DRAIN_TIMEOUT=0 \
    taskset -c "$server_cores" "$target/release/corelay" --http "$host:18080" \
    --udp "$host:18000" --shards "$shards" --log warn >"$scratch/corelay.log" 2>&1 &
  pid=$!
  url="ws://$host:18080/ws"
  await_port "$host" 18080
}
