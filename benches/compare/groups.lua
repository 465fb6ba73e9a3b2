-- One 100 B event a POST, to so many groups in turn: wrk -s groups.lua URL -- GROUPS.
wrk.headers["Prefer"] = "return=minimal"
local body = string.rep("x", 100)
local requests = {}
local turn = 0
local count
function init(arguments)
  count = tonumber(arguments[1])
  for group = 0, count - 1 do
    requests[group] = wrk.format("POST", "/v1/groups/load-" .. group .. "/events", nil, body)
  end
end
function request()
  turn = (turn + 1) % count
  return requests[turn]
end
