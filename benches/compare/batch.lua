-- Batches of 100 B events: wrk -s batch.lua URL -- FORMAT EVENTS, FORMAT being binary or ndjson.
wrk.method = "POST"
wrk.path = "/v1/groups/load-0/batch"
wrk.headers["Prefer"] = "return=minimal"
function init(arguments)
  local format, events = arguments[1], tonumber(arguments[2])
  local types = {binary = "application/vnd.eddyline.batch", ndjson = "application/x-ndjson"}
  local one = {
    -- A little-endian length, no flags, the data.
    binary = string.char(100, 0, 0, 0, 0) .. string.rep("x", 100),
    ndjson = '"' .. string.rep("x", 98) .. '"\n',
  }
  wrk.headers["Content-Type"] = types[format]
  wrk.body = string.rep(one[format], events)
  local post = wrk.format()
  request = function() return post end
end
