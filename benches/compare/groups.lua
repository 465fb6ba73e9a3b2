-- One 100 B event a POST, to 1 000 groups in turn.
wrk.headers["Prefer"] = "return=minimal"
local body = string.rep("x", 100)
local requests = {}
local turn = 0
function init()
  for group = 0, 999 do
    requests[group] = wrk.format("POST", "/v1/groups/load-" .. group .. "/events", nil, body)
  end
end
function request()
  turn = (turn + 1) % 1000
  return requests[turn]
end
