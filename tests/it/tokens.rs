//! Tokens: who may do what, from where, how often and until when; and that nobody else may.

use crate::broker::{Broker, eventually};
use crate::http::{Answer, Client};
use crate::program::{eddyline, run};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PAGE: &str = "https://app.example.org";
const EVENTS: &str = "/v1/groups/orders/events";

/// Makes a token; gives its id and its text.
fn issue(broker: &Broker, admin: &str, wanted: &Value) -> (String, String) {
    let answer = broker.ask_as(admin, "POST", "/v1/tokens", wanted.to_string());
    assert_eq!(answer.status, 201, "{wanted}: {answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let made = answer.json();
    let text = |member: &str| made[member].as_str().expect("text").to_owned();
    assert_eq!(made.as_object().map(serde_json::Map::len), Some(2));
    (text("id"), text("token"))
}

fn with_scope(broker: &Broker, admin: &str, scope: &str) -> String {
    issue(broker, admin, &json!({ "scopes": [scope], "groups": ["orders", "web-*"] })).1
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Who may, by a letter each: produce, consume, query, manage (all on `orders` and `web-*`), admin.
const WHO: [&str; 5] = ["produce", "consume", "query", "manage", "admin"];

/// Method, target, body, and who may.
const ROUTES: &[(&str, &str, &str, &str)] = &[
    ("POST", EVENTS, "x", "p---a"),
    ("POST", "/v1/groups/orders/batch", "x", "p---a"),
    ("GET", EVENTS, "", "--q-a"),
    ("HEAD", EVENTS, "", "--q-a"),
    ("GET", "/v1/groups/orders/events/0", "", "--q-a"),
    ("GET", "/v1/groups/orders", "", "--qma"),
    ("PUT", "/v1/groups/orders", "", "---ma"),
    ("PATCH", "/v1/groups/orders", "{}", "---ma"),
    ("PUT", "/v1/groups/web-1", "", "---ma"),
    ("DELETE", "/v1/groups/web-1", "", "---ma"),
    ("PUT", "/v1/groups/other", "", "----a"),
    ("GET", "/v1/groups", "", "--qma"),
    ("GET", "/v1/groups/_audit/events", "", "----a"),
    ("GET", "/v1/groups/_audit", "", "----a"),
    ("GET", "/v1/status", "", "---ma"),
    ("GET", "/metrics", "", "---ma"),
    ("GET", "/v1/tokens", "", "----a"),
    ("POST", "/v1/tokens", "{\"scopes\":[\"query\"],\"groups\":[\"*\"]}", "----a"),
    ("DELETE", "/v1/tokens/0000000000000001", "", "----a"),
    ("GET", "/livez", "", "pcqma"),
    ("GET", "/readyz", "", "pcqma"),
    ("OPTIONS", EVENTS, "", "pcqma"),
];

#[test]
fn every_scope_opens_its_routes_and_no_other() {
    let (broker, admin) = Broker::start_guarded(&[]);
    assert_eq!(broker.ask_as(&admin, "PUT", "/v1/groups/orders", "").status, 201);
    broker.ask_as(&admin, "POST", EVENTS, "first");
    eventually("the audit log is there", || broker.ask_as(&admin, "GET", "/v1/groups/_audit", "").status == 200);
    let mut tokens: Vec<String> = WHO[..4].iter().map(|scope| with_scope(&broker, &admin, scope)).collect();
    tokens.push(admin);
    let mut client = broker.client();
    for (method, target, body, who) in ROUTES {
        for (place, token) in tokens.iter().enumerate() {
            let case = format!("{} {method} {target}", WHO[place]);
            let headers = [("Authorization", bearer(token)), ("Content-Type", "text/plain".to_owned())];
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            let answer = client.ask(method, target, &headers, body);
            let allowed = who.as_bytes()[place] != b'-';
            assert_eq!(answer.status != 403, allowed, "{case}: {answer:?}");
            assert_ne!(answer.status, 401, "{case}");
            if !allowed && *method != "HEAD" {
                answer.assert_problem(403, "not_allowed", &case);
            }
            client.assert_in_step(&case);
        }
        let answer = client.ask(method, target, &[("Content-Type", "text/plain")], body);
        let open = *who == "pcqma";
        assert_eq!(answer.status == 401, !open, "nobody: {method} {target}: {answer:?}");
        if !open {
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{method} {target}");
        }
    }
    client.get(EVENTS).assert_problem(401, "no_token", "nobody");
    let list = |place: usize| {
        let answer = broker.ask_as(&tokens[place], "GET", "/v1/groups", "");
        let groups = answer.json()["groups"].as_array().expect("a list").clone();
        groups.iter().map(|group| group["group"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(2), ["orders"], "a list shows what the caller may see");
    assert_eq!(list(4), ["orders", "other"]);
}

#[test]
fn a_refusal_is_the_same_whether_or_not_there_is_such_a_group() {
    let (broker, admin) = Broker::start_guarded(&[]);
    broker.ask_as(&admin, "PUT", "/v1/groups/secret", "");
    let tokens = ["produce", "consume", "query", "manage"].map(|scope| with_scope(&broker, &admin, scope));
    let told = |token: &str, method: &str, group: &str, rest: &str| {
        let answer = broker.ask_as(token, method, &format!("/v1/groups/{group}{rest}"), "x");
        let mut headers = answer.headers.clone();
        headers.retain(|(name, _)| name != "date");
        (answer.status, headers, answer.text().to_owned())
    };
    for token in &tokens {
        for (method, rest) in [
            ("GET", ""),
            ("PUT", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("GET", "/events"),
            ("POST", "/events"),
            ("POST", "/batch"),
            ("GET", "/events/0"),
        ] {
            let there = told(token, method, "secret", rest);
            assert_eq!(there.0, 403, "{method} {rest}");
            for missing in ["none", "web%20site", "_audit", "_none", "secret.dead"] {
                assert_eq!(told(token, method, missing, rest), there, "{method} {missing}{rest}");
            }
        }
    }
    assert_eq!(broker.ask_as(&admin, "GET", "/v1/groups/secret", "").status, 200, "nothing happened to it");
}

#[test]
fn what_is_no_token_is_refused_and_says_so() {
    let (broker, admin) = Broker::start_guarded(&[]);
    let mut client = broker.client();
    let other = format!("{}{}", &admin[..admin.len() - 1], if admin.ends_with('0') { '1' } else { '0' });
    for value in [
        bearer(&other),
        bearer(&admin[..admin.len() - 1]),
        bearer(&format!("{admin}0")),
        bearer(&admin.to_uppercase()),
        bearer(""),
        bearer("edl_"),
        format!("Basic {admin}"),
        admin.clone(),
        "Bearer".to_owned(),
        String::new(),
    ] {
        let answer = client.ask("GET", "/v1/groups", &[("Authorization", &value)], "");
        answer.assert_problem(401, "bad_token", "a bad token");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.text().contains(&admin[22..]), "the secret is not told");
        client.assert_in_step("a bad token");
        // A probe of a load balancer is never asked.
        assert_eq!(client.ask("GET", "/livez", &[("Authorization", &value)], "").status, 200);
    }
    let answer = client.ask("GET", "/v1/groups", &[("Authorization", &format!("bEARER  {admin}"))], "");
    assert_eq!(answer.status, 200);
    for (body, what) in [
        ("{\"scopes\":[\"query\"],\"groups\":[\"a\"],\"scope\":1}", "an unknown field"),
        ("{\"scopes\":[\"query\"],\"groups\":[\"a\"],\"consumer\":\"c\"}", "what approval alone makes"),
        ("{", "no JSON"),
        ("", "nothing"),
    ] {
        broker.ask_as(&admin, "POST", "/v1/tokens", body).assert_problem(400, "bad_body", what);
    }
    for id in ["1", "0000000000000001", "%20", "x"] {
        let answer = broker.ask_as(&admin, "DELETE", &format!("/v1/tokens/{id}"), "");
        answer.assert_problem(404, "unknown_token", id);
    }
    broker.ask_as(&admin, "GET", "/v1/tokens?x=1", "").assert_problem(400, "unknown_parameter", "a parameter");
    broker.ask_as(&admin, "PUT", "/v1/tokens", "").assert_problem(405, "method_not_allowed", "PUT");
}

#[test]
fn a_browser_key_works_in_a_url_from_its_pages_and_nowhere_else() {
    let (broker, admin) = Broker::start_guarded(&[("http.cors", "[\"https://console.example.org\"]")]);
    broker.ask_as(&admin, "PUT", "/v1/groups/orders", "");
    let key = json!({ "scopes": ["produce"], "groups": ["orders"], "origins": [PAGE, "http://localhost:8080"] });
    let (id, key) = issue(&broker, &admin, &key);
    let with_key = format!("/v1/groups/orders/batch?token={key}&producer=p&seq=0");
    let text = ("Content-Type", "text/plain");
    let mut client = broker.client();
    let preflight = |client: &mut Client, origin: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        client.ask("OPTIONS", EVENTS, &headers, "")
    };
    let readable = |answer: &Answer, origin: &str| {
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
        assert_eq!(answer.header("vary"), Some("Origin"));
    };
    for origin in [PAGE, "http://localhost:8080", "https://console.example.org"] {
        let answer = preflight(&mut client, origin);
        assert_eq!(answer.status, 204, "{origin}");
        readable(&answer, origin);
    }
    preflight(&mut client, "https://evil.example").assert_problem(403, "origin_not_allowed", "a stranger's page");
    let answer = client.ask("POST", &with_key, &[text, ("Origin", PAGE)], "a");
    assert_eq!(answer.status, 200, "{answer:?}");
    readable(&answer, PAGE);
    let header = [("Authorization", bearer(&key)), ("Origin", PAGE.to_owned())];
    let header = header.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(client.ask("POST", EVENTS, &header, "b").status, 200, "in a header, too");
    for headers in [
        &[][..],
        &[("Origin", "https://evil.example")],
        &[("Origin", "https://app.example.org.evil.example")],
        &[("Origin", "http://app.example.org")],
        // What the configuration allows is not what this key allows.
        &[("Origin", "https://console.example.org")],
        &[("Origin", "null")],
    ] {
        let answer = client.ask("POST", &with_key, &[headers, &[text]].concat(), "c");
        answer.assert_problem(403, "origin_not_allowed", &format!("{headers:?}"));
        client.assert_in_step("a stranger's page");
    }
    let answer = client.ask("POST", EVENTS, &[("Origin", PAGE)], "c");
    answer.assert_problem(401, "no_token", "a page without its key");
    readable(&answer, PAGE);
    // A page can read why its key was refused, and not more than that.
    let answer = client.ask("GET", &format!("{EVENTS}?token={key}"), &[("Origin", PAGE)], "");
    answer.assert_problem(403, "not_allowed", "a key that only produces");
    readable(&answer, PAGE);
    assert_eq!(broker.ask_as(&admin, "GET", "/v1/groups/orders", "").json()["tail"], 2, "nothing else was stored");
    assert_eq!(broker.ask_as(&admin, "DELETE", &format!("/v1/tokens/{id}"), "").status, 204);
    client.ask("POST", &with_key, &[text], "d").assert_problem(401, "bad_token", "a revoked key");
    preflight(&mut client, PAGE).assert_problem(403, "origin_not_allowed", "no token names it any more");
}

#[test]
fn only_a_key_that_can_do_nothing_but_produce_may_stand_in_a_url() {
    let (broker, admin) = Broker::start_guarded(&[]);
    broker.ask_as(&admin, "PUT", "/v1/groups/orders", "");
    let produce = with_scope(&broker, &admin, "produce");
    let mut client = broker.client();
    assert_eq!(client.ask("POST", &format!("{EVENTS}?token={produce}"), &[], "x").status, 200);
    let (_, both) = issue(&broker, &admin, &json!({ "scopes": ["produce", "query"], "groups": ["orders"] }));
    for token in [&admin, &both, &with_scope(&broker, &admin, "query"), &with_scope(&broker, &admin, "manage")] {
        for (method, target) in [("POST", EVENTS), ("GET", EVENTS), ("GET", "/v1/groups")] {
            let answer = client.ask(method, &format!("{target}?token={token}"), &[], "");
            answer.assert_problem(403, "token_in_url", target);
        }
    }
    let header = [("Authorization", &*bearer(&produce))];
    let answer = client.ask("POST", &format!("{EVENTS}?token={produce}"), &header, "x");
    answer.assert_problem(400, "duplicate_token", "twice");
    let twice = format!("{EVENTS}?token={produce}&token={produce}");
    client.ask("POST", &twice, &[], "x").assert_problem(400, "duplicate_parameter", "twice in the query");
    client.ask("POST", &format!("{EVENTS}?token="), &[], "x").assert_problem(401, "bad_token", "an empty one");
    let (shown, log) = (broker.ask_as(&admin, "GET", "/v1/tokens", ""), broker.log());
    for secret in [&admin, &produce, &both].map(|token| &token[22..]) {
        assert!(!log.contains(secret) && !shown.text().contains(secret), "a secret is told");
    }
}

#[test]
fn a_rate_holds_on_all_cores_together_and_counts_each_request_once() {
    let (broker, admin) = Broker::start_guarded(&[("cores", "2")]);
    broker.ask_as(&admin, "PUT", "/v1/groups/orders", "");
    let limited =
        |rate: Value| issue(&broker, &admin, &json!({ "scopes": ["produce"], "groups": ["orders"], "rate": rate })).1;
    let token = limited(json!("20/s"));
    let began = Instant::now();
    let (mut taken, mut refused) = (0, 0);
    // Connections are spread over cores by the kernel.
    for _ in 0..30 {
        let mut client = broker.client();
        for _ in 0..10 {
            let answer = client.ask("POST", EVENTS, &[("Authorization", &bearer(&token))], "x");
            match answer.status {
                200 => taken += 1,
                _ => {
                    answer.assert_problem(429, "rate_exceeded", "too often");
                    assert_eq!(answer.json()["effect"], "none");
                    refused += 1;
                }
            }
            client.assert_in_step("a rate");
        }
    }
    let most = 20.0 * (1.0 + began.elapsed().as_secs_f64());
    assert!(f64::from(taken) <= most.ceil(), "{taken} of at most {most}");
    assert!(taken >= 20, "a second's worth may come at once: {taken}");
    assert!(refused > 0 || began.elapsed() > Duration::from_secs(14), "three hundred came in {:?}", began.elapsed());
    // Head and body come apart, so both are looked at; it is one use.
    let token = limited(json!(1));
    let mut client = broker.client();
    client.send(format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        bearer(&token)
    ));
    assert_eq!(client.answer().status, 100);
    client.send("xy");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn what_was_answered_holds_after_a_kill() {
    let (mut broker, admin) = Broker::start_guarded(&[("cores", "2"), ("limits.tokens", "5")]);
    broker.ask_as(&admin, "PUT", "/v1/groups/orders", "");
    let (kept_id, kept) = issue(&broker, &admin, &json!({ "scopes": ["produce"], "groups": ["orders"], "name": "k" }));
    let (gone_id, gone) = issue(&broker, &admin, &json!({ "scopes": ["query"], "groups": ["*"], "rate": 9 }));
    broker.kill9();
    broker.restart();
    assert_eq!(broker.ask_as(&kept, "POST", EVENTS, "x").status, 200);
    assert_eq!(broker.ask_as(&gone, "GET", EVENTS, "").status, 200);
    assert_eq!(broker.ask_as(&admin, "DELETE", &format!("/v1/tokens/{gone_id}"), "").status, 204);
    broker.ask_as(&gone, "GET", EVENTS, "").assert_problem(401, "bad_token", "revoked");
    let list = broker.ask_as(&admin, "GET", "/v1/tokens", "").json();
    for end in ["kill", "stop", "kill"] {
        if end == "stop" {
            broker.stop();
        }
        broker.restart();
        broker.ask_as(&gone, "GET", EVENTS, "").assert_problem(401, "bad_token", end);
        assert_eq!(broker.ask_as(&kept, "POST", EVENTS, "x").status, 200, "{end}");
        assert_eq!(broker.ask_as(&admin, "GET", "/v1/tokens", "").json(), list, "{end}");
    }
    assert_eq!(list["tokens"].as_array().map(Vec::len), Some(2));
    assert_eq!((&list["tokens"][1]["id"], &list["tokens"][1]["name"]), (&json!(kept_id), &json!("k")));
    let page = broker.ask_as(&admin, "GET", "/v1/tokens?limit=1", "").json();
    let next = page["next"].as_str().expect("more");
    let rest = broker.ask_as(&admin, "GET", &format!("/v1/tokens?after={next}"), "").json();
    assert_eq!((&page["tokens"][0], &rest["tokens"][0]), (&list["tokens"][0], &list["tokens"][1]));
    for _ in 0..3 {
        issue(&broker, &admin, &json!({ "scopes": ["query"], "groups": ["*"] }));
    }
    let more = broker.ask_as(&admin, "POST", "/v1/tokens", "{\"scopes\":[\"query\"],\"groups\":[\"*\"]}");
    more.assert_problem(429, "too_many_tokens", "a sixth");
}

#[test]
fn producing_makes_a_group_only_for_whoever_may_manage_it() {
    let (broker, admin) = Broker::start_guarded(&[("auto_create", "true")]);
    let produce = with_scope(&broker, &admin, "produce");
    broker.ask_as(&produce, "POST", "/v1/groups/web-1/events", "x").assert_problem(404, "no_group", "produce alone");
    let (_, both) = issue(&broker, &admin, &json!({ "scopes": ["produce", "manage"], "groups": ["web-*"] }));
    assert_eq!(broker.ask_as(&both, "POST", "/v1/groups/web-1/events", "x").status, 200);
    assert_eq!(broker.ask_as(&produce, "POST", "/v1/groups/web-1/events", "x").status, 200);
    broker.ask_as(&both, "POST", "/v1/groups/orders/events", "x").assert_problem(403, "not_allowed", "another group");
}

#[test]
fn the_first_token_is_made_while_no_broker_runs() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = directory.path().join("new/data");
    let data = data.to_str().unwrap();
    let configuration = directory.path().join("eddyline.toml");
    std::fs::write(&configuration, "shards = 2\n[journal]\nfile_bytes = \"1MiB\"\nfiles = 4\n").unwrap();
    let create = ["token", "create", "--admin", "--data", data, "--config", configuration.to_str().unwrap()];
    let first = eddyline(&create).with(0).saying("is a new data directory");
    let second = eddyline(&[&create[..], &["--expires", "1h", "-o", "json"]].concat()).with(0);
    let second: Value = serde_json::from_str(second.text()).unwrap();
    assert!(!first.stderr.contains(&first.text().trim()[22..]), "talk tells no secret");
    let broker = Broker::start_on(data.as_ref(), &[("auth.enabled", "true")]);
    let (first, second) = (first.text().trim(), second["token"].as_str().unwrap());
    for token in [first, second] {
        assert_eq!(broker.ask_as(token, "GET", "/v1/tokens", "").json()["tokens"].as_array().map(Vec::len), Some(2));
    }
    eddyline(&create).with(1).saying("in use").saying("--token-file");
    let line = ["token", "create", "--scope", "all", "--group", "a", "--data", data];
    eddyline(&line).with(1).saying("unknown variant");
    let foreign = directory.path().to_str().unwrap();
    eddyline(&["token", "create", "--admin", "--data", foreign]).with(1).saying("no data directory of Eddyline");
    assert!(broker.log().contains("on: callers need one, 2 tokens in force"));
    assert!(broker.log().contains("2 shards") && broker.log().contains("4 × 1MiB"), "made as that file says");
}

#[test]
fn the_commands_show_their_token() {
    use std::os::unix::fs::PermissionsExt;
    let (broker, admin) = Broker::start_guarded(&[]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let (file, url) = (file.to_str().unwrap(), broker.url());
    std::fs::write(file, format!("{admin}\n")).unwrap();
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    let shown = |arguments: &[&str]| eddyline(&[arguments, &["--url", &url, "--token-file", file]].concat());
    eddyline(&["group", "ls", "--url", &url]).with(4).saying("no_token").saying("--token-file");
    let page = eddyline(&["status", "--url", &url]).with(0).saying("--token-file");
    assert_eq!(page.text(), "ready\n", "whether it is ready is for everybody");
    assert!(shown(&["status"]).with(0).text().contains("\nshards\n"));
    let made = shown(&["token", "create", "--scope", "query", "--group", "*", "--name", "dashboard"]).with(0);
    let token = made.text().trim();
    assert_eq!(broker.ask_as(token, "GET", "/v1/groups", "").status, 200);
    assert!(!made.stderr.contains("warning"), "{}", made.stderr);
    let list = shown(&["token", "ls"]).with(0);
    assert!(list.text().contains("dashboard") && !list.text().contains(&token[22..]), "{}", list.text());
    let id = &token[4..20];
    shown(&["token", "revoke", id]).with(0).saying("revoked");
    broker.ask_as(token, "GET", "/v1/groups", "").assert_problem(401, "bad_token", "revoked");
    shown(&["token", "revoke", id]).with(4).saying("unknown_token");
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap();
    let warned = shown(&["group", "ls"]).with(0).saying("others can read this token");
    assert!(!warned.stderr.contains(&admin[22..]), "talk tells no secret");
    let variable = format!("EDDYLINE_TOKEN={admin}");
    let program = env!("CARGO_BIN_EXE_eddyline");
    run("/usr/bin/env", &[&variable, program, "group", "ls", "--url", &url], "").with(0);
    let bad = "EDDYLINE_TOKEN=one two";
    run("/usr/bin/env", &[bad, program, "group", "ls", "--url", &url], "").with(2).saying("more than one token");
    // A broker that finds the variable of its clients takes no notice.
    run("/usr/bin/env", &[&variable, program, "config", "check"], "").with(0);
}

#[test]
fn without_tokens_it_says_that_everybody_may_do_everything() {
    let broker = Broker::start(&[]);
    assert!(broker.log().contains("off: everybody who reaches the address may do everything"), "{}", broker.log());
    assert_eq!(broker.get("/v1/tokens").json(), json!({ "tokens": [] }));
    assert_eq!(broker.ask_as("edl_whatever", "PUT", "/v1/groups/orders", "").status, 201, "nobody looks at it");
    assert_eq!(broker.ask("POST", &format!("{EVENTS}?token=x"), &[], "x").status, 200);
    let (guarded, _) = Broker::start_guarded(&[]);
    assert!(guarded.log().contains("on: callers need one, 1 token in force"), "{}", guarded.log());
    let open = ["config", "check", "--listen", "0.0.0.0:4437"];
    eddyline(&open).with(2).saying("--auth-enabled");
    eddyline(&[&open[..], &["--auth-enabled"]].concat()).with(0);
}
