//! The audit log: every change is told in it, once, whatever happens to the broker; and it is nobody's to change.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::history::read_all;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the log tells, once it tells so much.
fn told(broker: &Broker, token: &str, least: usize) -> Vec<Value> {
    let mut events = Vec::new();
    eventually("it is told", || {
        let answer = broker.ask_as(token, "GET", "/v1/groups/_audit/events?limit=10000", "");
        if answer.status == 200 {
            events = answer.events().iter().map(|event| event["data"].clone()).collect();
        }
        events.len() >= least
    });
    events
}

#[test]
fn every_change_is_told_with_who_and_from_where() {
    let (broker, admin) = Broker::start_guarded(&[("cores", "2")]);
    let wanted = json!({ "scopes": ["manage"], "groups": ["web-*"], "name": "deploys" });
    let made = broker.ask_as(&admin, "POST", "/v1/tokens", wanted.to_string()).json();
    let (id, token) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a text"));
    for (method, target, body, status) in [
        ("PUT", "/v1/groups/web-1", "{\"max_event_bytes\":\"1KiB\"}", 201),
        ("PUT", "/v1/groups/web-1", "", 200),
        ("PUT", "/v1/groups/web-1", "{}", 409),
        ("PUT", "/v1/groups/other", "", 403),
        ("PATCH", "/v1/groups/web-1", "{\"max_event_bytes\":\"2KiB\"}", 200),
        ("DELETE", "/v1/groups/web-1", "", 204),
        ("DELETE", "/v1/groups/web-1", "", 404),
    ] {
        assert_eq!(broker.ask_as(token, method, target, body).status, status, "{method} {target}");
    }
    for status in [204, 404] {
        assert_eq!(broker.ask_as(&admin, "DELETE", &format!("/v1/tokens/{id}"), "").status, status);
    }
    // Six changes; the broker's first token is one of them.
    let events = told(&broker, &admin, 6);
    assert_eq!(events.len(), 6, "what changed nothing is not told: {events:?}");
    let by = |who: &str| events.iter().filter(|event| event["who"] == who).cloned().collect::<Vec<_>>();
    let actions = |events: &[Value]| events.iter().map(|event| event["action"].clone()).collect::<Vec<_>>();
    let deploys = by(id);
    // Two shards may hold the group, and each brings its events in order.
    assert_eq!(deploys.len(), 3, "{events:?}");
    for action in ["group.created", "group.configured", "group.deleted"] {
        let event = deploys.iter().find(|event| event["action"] == action).expect(action);
        assert_eq!((&event["group"], &event["who_name"]), (&json!("web-1"), &json!("deploys")));
        assert!(event["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{event}");
        let at = event["at"].as_str().expect("a time");
        assert!(at.len() == 27 && at.ends_with('Z'), "{at}");
    }
    let config = |action: &str| {
        let event = deploys.iter().find(|event| event["action"] == action).expect("an event");
        event["config"]["max_event_bytes"].clone()
    };
    assert_eq!((config("group.created"), config("group.configured")), (json!("1KiB"), json!("2KiB")));
    let admins = by(&admin[4..20]);
    assert_eq!(actions(&admins), ["token.created", "token.revoked"]);
    for event in &admins {
        assert_eq!((&event["token"]["id"], &event["token"]["groups"]), (&json!(id), &json!(["web-*"])));
    }
    assert_eq!(actions(&by("command line")), ["token.created"]);
    let text = json!(events).to_string();
    assert!(!text.contains(&token[22..]) && !text.contains(&admin[22..]), "secrets are not told");
}

#[test]
fn it_is_hidden_from_lists_and_nobody_can_write_or_change_it() {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    let first = told(&broker, "", 1).remove(0);
    assert_eq!((&first["who"], &first["group"]), (&json!("anonymous"), &json!("orders")));
    let names = |query: &str| {
        let list = broker.get(&format!("/v1/groups?{query}")).json();
        list["groups"].as_array().expect("a list").iter().map(|group| group["group"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(""), ["orders"]);
    assert_eq!(names("prefix=_"), ["_audit"]);
    assert_eq!(names("prefix=_a"), ["_audit"]);
    assert_eq!(names("prefix=o"), ["orders"]);
    assert_eq!(broker.get("/v1/status").json()["groups"], 1, "it does not count");
    let mut client = broker.client();
    for group in ["_audit", "_other", "orders.dead"] {
        for (method, rest, body) in [
            ("PUT", "", ""),
            ("PATCH", "", "{}"),
            ("DELETE", "", ""),
            ("POST", "/events", "x"),
            ("POST", "/batch", "x"),
        ] {
            let target = format!("/v1/groups/{group}{rest}");
            let answer = client.ask(method, &target, &[("Content-Type", "text/plain")], body);
            answer.assert_problem(400, "bad_group", &format!("{method} {target}"));
            client.assert_in_step(&target);
        }
    }
    assert_eq!(told(&broker, "", 1).len(), 1);
}

/// What a change was about: a group's name or a token's name, and what became of it.
type Subject = (String, &'static str);

/// A broker that is killed and started again, and what its callers were told.
struct Scene {
    address: Mutex<SocketAddr>,
    over: AtomicBool,
    /// Changes that were answered with yes.
    answered: Mutex<HashMap<Subject, u64>>,
    /// Changes of which nobody knows.
    unknown: Mutex<HashMap<Subject, u64>>,
}

impl Scene {
    fn note(&self, known: bool, subject: &Subject) {
        let all = if known { &self.answered } else { &self.unknown };
        *all.lock().expect("no panic").entry(subject.clone()).or_default() += 1;
    }

    /// Asks for one change; true if it was made.
    fn change(
        &self,
        agent: &ureq::Agent,
        token: &str,
        request: (&str, String, &str),
        subject: &Subject,
    ) -> Option<Value> {
        let (method, path, body) = request;
        let url = format!("http://{}{path}", *self.address.lock().expect("no panic"));
        let request = ureq::http::Request::builder().method(method).uri(url);
        let request = request.header("Authorization", format!("Bearer {token}")).body(body.to_owned());
        match agent.run(request.expect("a request")) {
            Ok(mut answer) if answer.status().is_success() => {
                let text = answer.body_mut().read_to_string();
                self.note(true, subject);
                Some(text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
            }
            // What is refused was not done; a 500 is one of which nobody knows.
            Ok(answer) if answer.status() != 500 => None,
            _ => {
                self.note(false, subject);
                None
            }
        }
    }
}

/// Makes, changes and removes groups and tokens of its own until it is over.
fn work(scene: &Scene, admin: &str, worker: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    for number in 0.. {
        if scene.over.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("w{worker}-{number}");
        let group = |action| (name.clone(), action);
        let path = format!("/v1/groups/{name}");
        scene.change(&agent, admin, ("PUT", path.clone(), ""), &group("group.created"));
        let config = "{\"max_event_bytes\":\"5KiB\"}";
        scene.change(&agent, admin, ("PATCH", path.clone(), config), &group("group.configured"));
        if random.bool() {
            scene.change(&agent, admin, ("DELETE", path, ""), &group("group.deleted"));
        }
        let wanted = format!("{{\"scopes\":[\"query\"],\"groups\":[\"{name}\"],\"name\":\"{name}\"}}");
        let made = scene.change(&agent, admin, ("POST", "/v1/tokens".into(), &wanted), &group("token.created"));
        if let Some(id) = made.as_ref().and_then(|made| made["id"].as_str()).filter(|_| random.bool()) {
            scene.change(&agent, admin, ("DELETE", format!("/v1/tokens/{id}"), ""), &group("token.revoked"));
        }
        thread::sleep(Duration::from_millis(random.u64(0..3)));
    }
}

#[test]
fn killed_at_random_moments_it_tells_every_change_once() {
    let seed =
        std::env::var("EDDYLINE_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a seed"));
    println!("EDDYLINE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut broker, admin) = Broker::start_guarded(&[("cores", "2")]);
    let scene = Arc::new(Scene {
        address: Mutex::new(broker.address()),
        over: AtomicBool::new(false),
        answered: Mutex::default(),
        unknown: Mutex::default(),
    });
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (scene, admin, seed) = (Arc::clone(&scene), admin.clone(), random.u64(..));
            thread::spawn(move || work(&scene, &admin, worker, seed))
        })
        .collect();
    for _ in 0..6 {
        thread::sleep(Duration::from_millis(random.u64(100..700)));
        broker.kill9();
        broker.restart();
        *scene.address.lock().unwrap() = broker.address();
    }
    let enough = || scene.answered.lock().unwrap().len() > 100;
    let deadline = Instant::now() + PATIENCE;
    while !enough() {
        assert!(Instant::now() < deadline, "too little was changed");
        thread::sleep(Duration::from_millis(20));
    }
    scene.over.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    broker.kill9();
    broker.restart();
    let (answered, unknown) = (scene.answered.lock().unwrap().clone(), scene.unknown.lock().unwrap().clone());
    eventually("everything is told", || {
        let status = broker.ask_as(&admin, "GET", "/v1/status", "").json();
        status["shards"].as_array().expect("shards").iter().all(|shard| shard["audit_pending"] == 0)
    });
    let told = count(&read_all_as(&broker, &admin));
    println!("{} answered, {} unknown, {} told", answered.len(), unknown.len(), told.len());
    for (subject, times) in &told {
        let known = answered.get(subject).copied().unwrap_or(0);
        let most = known + unknown.get(subject).copied().unwrap_or(0);
        // The token that was made beside the broker has no name.
        let first = subject.0.is_empty();
        assert!(first || (known..=most).contains(times), "{subject:?}: told {times}, answered {known}, seed {seed}");
    }
    for subject in answered.keys() {
        assert!(told.contains_key(subject), "{subject:?} is not told, seed {seed}");
    }
    // What is there was told of.
    let groups = broker.ask_as(&admin, "GET", "/v1/groups?limit=1000", "").json();
    for group in groups["groups"].as_array().expect("a list") {
        let name = group["group"].as_str().expect("a name").to_owned();
        assert!(told.contains_key(&(name.clone(), "group.created")), "{name}, seed {seed}");
    }
    broker.stop();
}

fn read_all_as(broker: &Broker, admin: &str) -> Vec<Value> {
    let mut client = broker.client();
    client.authorize(admin);
    read_all(&mut client, "_audit")
}

/// How often each change is told.
fn count(events: &[Value]) -> HashMap<Subject, u64> {
    const ACTIONS: [&str; 5] = ["group.created", "group.configured", "group.deleted", "token.created", "token.revoked"];
    let mut told = HashMap::new();
    for event in events {
        let data = &event["data"];
        let action = ACTIONS.into_iter().find(|action| data["action"] == *action).expect("a known action");
        let name = data["group"].as_str().or(data["token"]["name"].as_str()).unwrap_or_default();
        *told.entry((name.to_owned(), action)).or_default() += 1;
    }
    told
}
