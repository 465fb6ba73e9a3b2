-- One 100 B event a POST, the smallest answer.
wrk.method = "POST"
wrk.path = "/v1/groups/load-0/events"
wrk.body = string.rep("x", 100)
wrk.headers["Prefer"] = "return=minimal"
