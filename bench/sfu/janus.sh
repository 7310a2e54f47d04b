# Starts Janus from Debian for bench/compare.sh: videoroom over WebSockets, ICE-lite.

install_janus() {
  command -v janus >/dev/null || ./scripts/setup janus
}

start_janus() {
  local conf="$scratch/janus"
  mkdir -p "$conf"
  cat >"$conf/janus.jcfg" <<END
general: {
  debug_level = 2
  debug_colors = false
  session_timeout = 60
}
nat: {
  ice_lite = true
  ice_enforce_list = "bench0"
}
media: {
  rtp_port_range = "20000-40000"
}
transports: {
  disable = "libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so"
}
plugins: {
  disable = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,libjanus_textroom.so,libjanus_videocall.so,libjanus_voicemail.so"
}
END
  echo "general: {}" >"$conf/janus.plugin.videoroom.jcfg"
  cat >"$conf/janus.transport.websockets.jcfg" <<END
general: {
  ws = true
  ws_port = 8188
  ws_ip = "$host"
  wss = false
}
END
  taskset -c "$server_cores" janus -F "$conf" -C "$conf/janus.jcfg" >"$scratch/janus.log" 2>&1 &
  pid=$!
  url="ws://$host:8188/"
  await_port "$host" 8188
}
