# One connection, open loop, many groups, two cores, memory, restart: sourced by `run`.

if wanted one; then
  : >"$work/row"
  for round in $(seq "$rounds"); do
    disk=$(disk_p50)
    b=$(drive "$broker" $broker_url/v1/groups/load-0/events 1 single.lua)
    echo "one connection: round $round: disk p50 $disk µs, broker $b" | say
    echo "$disk $b" >>"$work/row"
  done
  record "one connection, one POST at a time, p50" "≤ 2" "≤ 1.5" "a durable overwrite of 4 KiB, $(column '$1') µs" "$(column '$4') µs" '$4 / $1'
fi

if wanted latency; then
  # produce RATE URL [ARGUMENTS]: loadgen's report, in $work/report. It goes through no pipe: what stands at the other end
  # would run on the broker's CPU just when it begins.
  produce() {
    taskset -c 1 "$target/loadgen" produce --url "$2" --group load --groups 1 --create=false -c 64 -s 100B -d "${seconds}s" --no-verify \
      --rate "$1" -o json "${@:3}" >"$work/report" 2>>"$raw"
    cat "$work/report" >>"$raw"
  }
  of_report() { jq -r "$1" "$work/report"; }
  commits() { curl -sf $broker_url/metrics | awk '/^eddyline_commits_total/ {print $2}'; }
  # disk_at IOPS POSTS: the p99 of durable overwrites so often, independent of each other, µs, beside so many POSTs to nginx.
  disk_at() {
    local text beside
    produce "$2" $nginx_url &
    beside=$!
    text=$(taskset -c 0 fio --name=paced --filename="$work/write" --ioengine=io_uring --iodepth=2 --direct=1 --sync=dsync --bs=4k \
      --rw=write --size=64M --rate_iops="$1" --rate_process=poisson --runtime="$seconds" --time_based --output-format=json)
    wait $beside
    printf '%s\n' "--- fio $1 overwrites/s" "$text" >>"$raw"
    jq -r '.jobs[0].write.clat_ns.percentile."99.000000" / 1000 | floor' <<<"$text"
  }
  for percent in 25 50 75 90 bulk; do
    : >"$work/row"
    for round in $(seq "$rounds"); do
      disk=$(disk_p50)
      taskset -c 1 "$target/loadgen" produce --url $broker_url --group load --groups 1 -c 64 -s 100B -d "${seconds}s" --no-verify \
        -o json >"$work/report" 2>>"$raw"
      cat "$work/report" >>"$raw"
      most=$(of_report '.measured.events_per_second | floor')
      part=$percent
      if [ "$percent" = bulk ]; then
        part=50
        load produce --group load --groups 1 -b 1000 -s 100B --format binary -c 16 -d "${seconds}s" --no-verify
      fi
      before=$(commits)
      produce $((most * part / 100)) $broker_url
      often=$((($(commits) - before) / seconds))
      times=$(of_report '"\(.measured.response_us.p50) \(.measured.response_us.p99)"')
      paced=$(disk_at $often $((most * part / 100)))
      echo "latency $percent: round $round: disk p50 $disk µs, $most/s at most, p50 and p99 $times µs with $often commits/s;" \
        "so many overwrites have p99 $paced µs" | say
      echo "$disk $most $times $paced $often" >>"$work/row"
    done
    case $percent in
      50) what="at half of the highest rate, open loop, p99" first="≤ 8" goal="≤ 4" ;;
      bulk) what="the same right after a bulk load, p99" first="≤ 8" goal="≤ 4" ;;
      *) what="at $percent % of the highest rate, p99" first=– goal=– ;;
    esac
    record "$what" "$first" "$goal" "a durable overwrite of 4 KiB, $(column '$1') µs" "p50 $(column '$3') µs, p99 $(column '$4') µs" '$4 / $1'
    record "$what, against the disk's" – – "p99 of $(column '$6') durable overwrites a second, $(column '$5') µs" "p99 $(column '$4') µs" '$4 / $5'
  done
fi

if wanted groups; then
  load produce --group load --groups 10000 -n 10000 -c 4 --no-verify
  for count in 10 100 1000 10000; do
    : >"$work/row"
    for round in $(seq "$rounds"); do
      one=$(drive "$broker" $broker_url 64 single.lua)
      many=$(drive "$broker" $broker_url 64 groups.lua $count)
      echo "groups: round $round: one $one, $count $many" | say
      echo "$one $many" >>"$work/row"
    done
    case $count in 1000) first="≥ 0.6" goal="≥ 0.9" ;; *) first=– goal=– ;; esac
    record "$count groups in turn, single POSTs, 64 connections" "$first" "$goal" "one group, $(column '$1')/s, $(column '$2') µs" \
      "$(column '$4')/s, $(column '$5') µs" '$4 / $1'
  done
fi

if wanted memory; then
  resident() { awk '/VmRSS/ {printf "%.1f", $2 / 1024}' "/proc/$broker/status"; }
  full=$(resident)
  stop_broker
  mv "$work/data" "$work/data.full"
  start_broker; sleep 1
  empty=$(resident)
  stop_broker
  rm -rf "$work/data"; mv "$work/data.full" "$work/data"
  start_broker
  echo "$empty $full" >"$work/row"
  record "resident memory, nothing stored, idle, MiB" "≤ 24" "≤ 12" – "$(column '$1') MiB" '$1'
  record "resident memory, right after the rows above, MiB" "≤ 160" "≤ 96" – "$(column '$2') MiB" '$2'
fi

# Server and client share two CPUs here, so that CPU time says more than rates.
if wanted cores; then
  : >"$work/row"
  for round in $(seq "$rounds"); do
    one=$(client_cpus=0,1 drive "$broker" $broker_url 64 groups.lua 1000)
    stop_broker; start_broker 0,1 2
    single=$(client_cpus=0,1 drive "$broker" $broker_url 64 single.lua)
    two=$(client_cpus=0,1 drive "$broker" $broker_url 64 groups.lua 1000)
    stop_broker; start_broker
    echo "cores: round $round: 1 core $one; 2 cores, one group $single; 2 cores, 1 000 groups $two" | say
    echo "$one $single $two" >>"$work/row"
  done
  record "2 cores, 1 000 groups (half of the POSTs hop), CPU µs a request" – – "1 core, $(column '$2') µs" "$(column '$8') µs, $(column '$7')/s" '$8 / $2'
  record "2 cores, one group (half of the POSTs hop), CPU µs a request" – – "1 core, $(column '$2') µs" "$(column '$5') µs, $(column '$4')/s" '$5 / $2'
fi

if wanted restart; then
  # Its own directory: what the other rows stored has filled disks, and does not belong to it.
  stop_broker; rm -rf "$work/data"; start_broker
  load produce --group load --groups 1000 -n "$events" -b 1000 -s 100B --format binary -c 64 --no-verify &
  filling=$!
  while kill -0 $filling 2>/dev/null && [ "$(curl -sf $broker_url/metrics | awk '/^eddyline_events_produced_total/ {n += $2} END {printf "%.0f", n}')" -lt $((events * 95 / 100)) ]; do sleep 0.02; done
  kill -9 "$broker"; wait "$broker" 2>/dev/null || true
  kill $filling 2>/dev/null || true; wait $filling 2>/dev/null || true
  start_broker
  tail -n 1 "$work/broker.log" >>"$raw"
  stored=$(curl -sf $broker_url/v1/groups/load-0 | jq .tail)
  awk "BEGIN {print $ready_ms / 1000}" >"$work/row"
  record "restart after kill −9 at full rate, about $events events in 1 000 groups, s" "≤ 1" "≤ 0.2" – "load-0 holds $stored events" '$1'
fi
