# POSTs against nginx, which answers 204 to the same POSTs and throws them away: sourced by `run`.

if wanted single; then
  against "one 100 B event a POST, 64 connections" "≥ 0.7" "≥ 0.9" 64 single.lua single.lua
  against "one 100 B event a POST, 256 connections" "≥ 0.8" "≥ 0.95" 256 single.lua single.lua
fi
if wanted connections; then
  against "one 100 B event a POST, 1 000 connections" – – 1000 single.lua single.lua
  against "one 100 B event a POST, 10 000 connections" – – 10000 single.lua single.lua
fi
if wanted pipelined; then
  against "64 connections, 16 pipelined (nginx not)" "≥ 4" "≥ 6" 64 single.lua pipelined.lua
fi
if wanted kibibyte; then
  against "one event of 1 KiB a POST, 64 connections" "≥ 0.65" "≥ 0.9" 64 kibibyte.lua kibibyte.lua
fi
if wanted batch1000; then
  against "batches of 1 000 × 100 B, binary, 16 connections" "≥ 0.15" "≥ 0.35" 16 batch.lua batch.lua binary 1000
  against "batches of 1 000 × 100 B, NDJSON, 16 connections" "≥ 0.08" "≥ 0.2" 16 batch.lua batch.lua ndjson 1000
fi
if wanted batch100; then
  against "batches of 100 × 100 B, binary, 64 connections" "≥ 0.3" "≥ 0.7" 64 batch.lua batch.lua binary 100
fi
