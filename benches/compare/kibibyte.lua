-- One event of 1 KiB a POST.
wrk.method = "POST"
wrk.path = "/v1/groups/load-0/events"
wrk.body = string.rep("x", 1024)
wrk.headers["Prefer"] = "return=minimal"
