# Catching up: a group of events of 100 B read from its first to its last, page by page over one connection, against nginx
# sending a file of the same size: sourced by `run`.

if wanted reads; then
  read_events=$((events < 5000000 ? events / 10 : 5000000))
  load produce --group big -n "$read_events" -b 1000 -s 100B --format binary -c 8 --no-verify
  # 15 000 of them are as much as the broker holds of an answer (2 MiB), so that it reads nothing twice.
  for from in $(seq 0 15000 $((read_events - 1))); do
    printf 'url = "%s"\noutput = /dev/null\nwrite-out = "%%{size_download}\\n"\n' \
      "$broker_url/v1/groups/big/events?from=$from&limit=15000&max_bytes=2MiB"
  done >"$work/pages"
  # pages MEDIA-TYPE: reads all of them and prints "bytes/s cpu-µs/MB".
  pages() {
    local began before bytes
    before=$(cpu "$broker") began=$(date +%s%N)
    bytes=$(taskset -c 1 curl -sf -K "$work/pages" -H "Accept: $1" | awk '{n += $1} END {printf "%.0f", n}')
    awk -v b="$bytes" -v t=$(($(date +%s%N) - began)) -v c=$(($(cpu "$broker") - before)) \
      'BEGIN {printf "%.0f %.0f\n", b * 1e9 / t, c * 1e10 / b}'
  }
  for format in vnd.eddyline.frames:"≥ 0.7":"≥ 1":"stored frames" x-ndjson:"≥ 0.2":"≥ 0.4":NDJSON; do
    IFS=: read -r type first goal what <<<"$format"
    bytes=$(taskset -c 1 curl -sf -K "$work/pages" -H "Accept: application/$type" | awk '{n += $1} END {printf "%.0f", n}')
    head -c "$bytes" /dev/urandom >"$work/files/file"
    : >"$work/row"
    for round in $(seq "$rounds"); do
      n=$(taskset -c 1 curl -sf -o /dev/null -w '%{speed_download}' $nginx_url/files/file)
      b=$(pages "application/$type")
      echo "reads, $what: round $round: nginx $n B/s, broker $b (B/s, CPU µs a MB), $bytes bytes" | say
      echo "$n $b" >>"$work/row"
    done
    record "$read_events events read, $what, page by page" "$first" "$goal" \
      "nginx, a file of that size: $(column '$1 / 1e6') MB/s" "$(column '$2 / 1e6') MB/s, $(column '$3') µs a MB" '$2 / $1'
  done
fi
