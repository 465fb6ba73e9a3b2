# What the comparisons share: sourced by `run`, not run itself. It expects $seconds, $rounds, $target, $work, $raw, $table and $rows_file.

broker_url=http://127.0.0.1:4601 nginx_url=http://127.0.0.1:4600
broker= others=()

say() { tee -a "$raw" >&2; }
cpu() { awk '{print $14 + $15}' "/proc/$1/stat"; }
median() { sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
column() { awk "{print $1}" "$work/row" | median; }
wanted() { case ,$rows, in *,$1,*) true ;; *) false ;; esac; }

cleanup() {
  local pid
  for pid in $broker "${others[@]}"; do kill "$pid" 2>/dev/null || true; done
  [ ! -f "$work/nginx.pid" ] || kill "$(cat "$work/nginx.pid")" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}

start_nginx() {
  mkdir -p "$work/files"
  chmod 755 "$work" "$work/files"
  cat >"$work/nginx.conf" <<CONF
worker_processes 1;
worker_rlimit_nofile 65536;
error_log $work/error.log;
pid $work/nginx.pid;
events { worker_connections 20000; }
http {
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  client_body_buffer_size 64k;
  client_max_body_size 64m;
  server {
    listen 127.0.0.1:4600 backlog=4096;
    location / { return 204; }
    location /files/ { root $work; }
  }
}
CONF
  taskset -c 0 nginx -c "$work/nginx.conf"
  sleep 0.5
  nginx_worker=$(pgrep -P "$(cat "$work/nginx.pid")")
}

# start_broker [CPUS] [CORES]: on the first CPU alone if nothing else is asked for. Leaves the time to ready in $ready_ms.
start_broker() {
  taskset -c "${1:-0}" "$target/eddyline" serve --data "$work/data" --listen 127.0.0.1:4601 --cores "${2:-1}" \
    --http-connections 20000 2>>"$work/broker.log" &
  broker=$!
  local began; began=$(date +%s%N)
  until curl -sf -o /dev/null -m 1 $broker_url/readyz; do
    [ $(($(date +%s%N) - began)) -lt 60000000000 ] || { cat "$work/broker.log" >&2; exit 1; }
    sleep 0.005
  done
  ready_ms=$((($(date +%s%N) - began) / 1000000))
}
stop_broker() { kill "$broker"; wait "$broker" || true; broker=; }

# drive PID URL CONNECTIONS SCRIPT [ARGUMENTS]: prints "requests/s cpu-µs/request p50-µs"; the raw output keeps all of it.
# The client has the second CPU, or those of $client_cpus.
drive() {
  local before after text rate p50 pid=$1 url=$2 connections=$3 script=$4
  shift 4
  before=$(cpu "$pid")
  text=$(taskset -c "${client_cpus:-1}" wrk -t1 -c"$connections" -d"${seconds}s" --timeout 30s --latency -s "benches/compare/$script" "$url" -- "$@")
  after=$(cpu "$pid")
  printf '%s\n' "--- wrk -t1 -c$connections -d${seconds}s -s $script $url -- $* (load of the machine: $(cut -d' ' -f1 /proc/loadavg))" "$text" >>"$raw"
  if grep -q 'Non-2xx\|Socket errors' <<<"$text"; then echo "not every request was answered with 2xx, see $raw" >&2; exit 1; fi
  rate=$(awk '/Requests\/sec/ {print $2}' <<<"$text")
  p50=$(awk '$1 == "50%" {v = $2; if (sub(/us$/, "", v)) print v; else if (sub(/ms$/, "", v)) print v * 1000; else if (sub(/s$/, "", v)) print v * 1000000}' <<<"$text")
  awk -v r="$rate" -v a="$before" -v b="$after" -v s="$seconds" -v p="$p50" 'BEGIN {printf "%.0f %.2f %.0f\n", r, (b - a) * 10000 / (r * s), p}'
}

# record NAME FIRST-BAR GOAL THEIRS OURS RATIO: a row of the table. RATIO is an awk expression over the columns of the
# rounds in $work/row; bars are "≥ 0.7", "≤ 2" or "–".
record() {
  local spread
  spread=$(awk "{print $6}" "$work/row" | sort -g |
    awk '{v[NR] = $1} END {printf "%.3g\t%.3g\t%.3g", v[int((NR + 1) / 2)], v[1], v[NR]}')
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$spread" >>"$rows_file"
  awk -v n="$1" -v f="$2" -v g="$3" -v t="$4" -v o="$5" -F'\t' \
    '{printf "| %s | %s | %s | %s | %s | **%s** (%s–%s) |\n", n, t, o, f, g, $1, $2, $3}' <<<"$spread" >>"$table"
}

# against NAME FIRST-BAR GOAL CONNECTIONS NGINX-SCRIPT SCRIPT [ARGUMENTS]: nginx and the broker in turn.
against() {
  local round n b name=$1 first=$2 goal=$3 connections=$4 theirs=$5 ours=$6
  shift 6
  : >"$work/row"
  for round in $(seq "$rounds"); do
    n=$(drive "$nginx_worker" $nginx_url/v1/groups/load-0/events "$connections" "$theirs" "$@")
    b=$(drive "$broker" $broker_url/v1/groups/load-0/events "$connections" "$ours" "$@")
    echo "$name: round $round: nginx $n, broker $b (requests/s, CPU µs a request, p50 µs)" | say
    echo "$n $b" >>"$work/row"
  done
  record "$name" "$first" "$goal" "nginx $(column '$1')/s, $(column '$2') µs" "$(column '$4')/s, $(column '$5') µs" '$4 / $1'
}

# disk_p50: the median of one durable overwrite of 4 KiB after another, µs.
disk_p50() {
  local text
  [ -f "$work/write" ] || fio --name=zero --filename="$work/write" --rw=write --bs=1M --size=64M --end_fsync=1 >/dev/null
  text=$(taskset -c 0 fio --name=overwrite --filename="$work/write" --ioengine=psync --direct=1 --sync=dsync --bs=4k \
    --rw=write --size=64M --runtime="$seconds" --time_based --output-format=json)
  printf '%s\n' "--- fio overwrite" "$text" >>"$raw"
  tr -d ' "' <<<"$text" | awk -F: '/^50.000000:/ {sub(/,/, "", $2); print $2 / 1000; exit}'
}

# load ARGUMENTS: loadgen against the broker; what it says goes to the raw output.
load() { taskset -c "${client_cpus:-1}" "$target/loadgen" "$@" --url $broker_url >>"$raw" 2>&1; }
