# Other logs, one event of 100 B a request over 64 connections, each answer awaited: sourced by `run`.

# peer NAME FIRST-BAR GOAL THEIR-PID THEIR-COMMAND: the command prints requests/s and how many there were.
peer() {
  local round rate count before theirs b name=$1 first=$2 goal=$3 pid=$4
  shift 4
  : >"$work/row"
  for round in $(seq "$rounds"); do
    before=$(cpu "$pid")
    read -r rate count < <("$@")
    theirs=$(awk -v c=$(($(cpu "$pid") - before)) -v n="$count" 'BEGIN {printf "%.2f", c * 10000 / n}')
    b=$(drive "$broker" $broker_url/v1/groups/load-0/events 64 single.lua)
    echo "$name: round $round: $rate $theirs, broker $b (requests/s, CPU µs a request, p50 µs)" | say
    echo "$rate $theirs $b" >>"$work/row"
  done
  record "$name" "$first" "$goal" "$(column '$1')/s, $(column '$2') µs" "$(column '$3')/s, $(column '$4') µs" '$3 / $1'
}

if wanted redis; then
  mkdir -p "$work/redis"
  taskset -c 0 redis-server --port 4603 --bind 127.0.0.1 --appendonly yes --appendfsync always --save '' --dir "$work/redis" >>"$raw" &
  redis=$!
  others+=("$redis")
  until redis-cli -p 4603 ping >/dev/null 2>&1; do sleep 0.05; done
  # As many as take about the seconds asked for; the stream is emptied first, for it stands in memory.
  xadd() {
    local text event
    event=$(printf 'x%.0s' {1..100})
    redis-cli -p 4603 del load >/dev/null
    text=$(taskset -c 1 redis-benchmark -p 4603 -c 64 -n $((seconds * 50000)) --csv XADD load '*' data "$event")
    printf '%s\n' "--- redis-benchmark -c 64 XADD" "$text" >>"$raw"
    awk -F'","' -v n=$((seconds * 50000)) 'END {printf "%.0f %d\n", $2, n}' <<<"$text"
  }
  peer "Redis $(redis-server --version | awk '{sub(/v=/, "", $3); print $3}') Streams, XADD, appendfsync always" "≥ 1.4" "≥ 2" "$redis" xadd
  kill "$redis"
  wait "$redis" || true
fi

if wanted nats; then
  taskset -c 0 nats-server -a 127.0.0.1 -p 4604 -js -sd "$work/nats" >>"$raw" 2>&1 &
  nats=$!
  others+=("$nats")
  sleep 1
  publish() { taskset -c 1 node benches/compare/nats.mjs 4604 64 "$seconds" | tee -a "$raw"; }
  peer "NATS $(nats-server --version | awk '{sub(/v/, "", $2); print $2}') JetStream, file storage: **not** synced before it answers" – – "$nats" publish
  kill "$nats"
  wait "$nats" || true
fi
