-- One 100 B event a POST, 16 of them sent before the first is answered.
wrk.headers["Prefer"] = "return=minimal"
local sixteen
function init()
  local one = wrk.format("POST", "/v1/groups/load-0/events", nil, string.rep("x", 100))
  sixteen = string.rep(one, 16)
end
function request()
  return sixteen
end
