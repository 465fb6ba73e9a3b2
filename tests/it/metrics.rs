//! `/metrics`: the format, line by line, and the numbers, compared with what the broker says elsewhere.

use crate::broker::{Broker, eventually};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const EVENTS: &str = "/v1/groups/orders/events";

/// The samples of an OpenMetrics text by name and labels. Every rule of the format that a broker could break is checked:
/// a family is described once and before its samples, which stand together; names, labels and values are well formed.
fn samples(text: &str) -> HashMap<String, f64> {
    let text = text.strip_suffix("# EOF\n").expect("a text with an end");
    let (mut samples, mut families) = (HashMap::new(), HashMap::new());
    let mut family = Family::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("HELP"), Some(name), Some(help)) => {
                    assert!(help.ends_with('.') && !help.contains(['\\', '"']), "{line}");
                    family = Family { name: name.to_owned(), ..Family::default() };
                    assert_eq!(families.insert(name.to_owned(), ()), None, "{name} is told once");
                }
                (Some("TYPE"), Some(name), Some(kind)) => {
                    assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                    assert!(name == family.name && family.kind.is_empty(), "{line}");
                    kind.clone_into(&mut family.kind);
                }
                (Some("UNIT"), Some(name), Some(unit)) => {
                    assert!(name == family.name && name.ends_with(&format!("_{unit}")), "{line}");
                }
                _ => panic!("{line:?} is no OpenMetrics"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} is no sample"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?} has no value"));
        let bare = name.split('{').next().expect("a name");
        assert!(is_name(bare), "{line:?}");
        assert!(family.owns(bare), "{line:?} does not belong to {}", family.name);
        labels(&name[bare.len()..]).unwrap_or_else(|| panic!("{line:?} has bad labels"));
        assert!(value >= 0.0, "{line:?}");
        assert_eq!(samples.insert(name.to_owned(), value), None, "{name} is told once");
    }
    samples
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
}

impl Family {
    fn owns(&self, sample: &str) -> bool {
        let Some(end) = sample.strip_prefix(&self.name) else { return false };
        match self.kind.as_str() {
            "counter" => end == "_total",
            "gauge" => end.is_empty(),
            "histogram" => ["_bucket", "_sum", "_count"].contains(&end),
            _ => false,
        }
    }
}

fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase()) && text.bytes().all(word)
}

/// The labels of a sample, `{a="b",c="d"}` or none.
fn labels(text: &str) -> Option<Vec<(&str, &str)>> {
    let Some(inner) = text.strip_prefix('{') else { return text.is_empty().then(Vec::new) };
    let label = |text| {
        let (name, value) = str::split_once(text, "=\"")?;
        let value = value.strip_suffix('"').filter(|value| !value.contains(['"', '\\', '\n']))?;
        is_name(name).then_some((name, value))
    };
    inner.strip_suffix('}')?.split(',').map(label).collect()
}

fn scrape(broker: &Broker) -> HashMap<String, f64> {
    let answer = broker.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    samples(answer.text())
}

#[test]
fn metrics_are_openmetrics_and_count_what_happened() {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    let mut client = broker.client();
    broker.produce_lines("orders", "a\nb\nc");
    for _ in 0..2 {
        client.ask("POST", &format!("{EVENTS}?producer=p&seq=0"), &[], "d");
    }
    client.get(&format!("{EVENTS}?from=99"));
    client.get(&format!("{EVENTS}?limit=2"));
    eventually("earlier connections are forgotten", || client.get("/v1/status").json()["connections"] == 1);
    let answer = client.get("/metrics");
    let samples = samples(answer.text());
    let bytes = client.get("/v1/groups/orders").json()["bytes"].as_f64().expect("a size");
    for (name, value) in [
        ("eddyline_events_produced_total{shard=\"0\"}", 4.0),
        ("eddyline_duplicates_total{shard=\"0\"}", 1.0),
        ("eddyline_rejected_total{code=\"behind_tail\"}", 1.0),
        ("eddyline_events_delivered_total", 2.0),
        ("eddyline_groups", 1.0),
        ("eddyline_groups_left_out", 0.0),
        ("eddyline_group_tail{group=\"orders\"}", 4.0),
        ("eddyline_group_earliest{group=\"orders\"}", 0.0),
        ("eddyline_group_bytes{group=\"orders\"}", bytes),
        ("eddyline_group_segments{group=\"orders\"}", 1.0),
        ("eddyline_consumers{state=\"live\"}", 0.0),
        ("eddyline_consumers_left_out", 0.0),
        ("eddyline_connections", 1.0),
        ("eddyline_shard_failed{shard=\"0\"}", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in\n{}", answer.text());
    }
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "eddyline_disk_free_bytes"] {
        assert!(samples.get(name).is_some_and(|value| *value > 0.0), "{name}");
    }
    client.assert_in_step("metrics");
}

/// A broker with two groups of ten events, and consumers in them that are all somewhere else.
fn consumers(settings: &[(&str, &str)]) -> Broker {
    let broker = Broker::start(settings);
    let post = |path: &str, body: &str| {
        let answer = broker.ask("POST", path, &[], body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    };
    for group in ["orders", "web"] {
        broker.create(group, "");
        broker.produce_lines(group, "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        for consumer in ["audit", "billing", "same-a", "same-b"] {
            let path = format!("/v1/groups/{group}/consumers/{consumer}");
            assert_eq!(broker.ask("PUT", &path, &[], "").status, 201);
        }
        let path = format!("/v1/groups/{group}/consumers");
        post(&format!("{path}/audit/rewind"), r#"{"to":"latest","skip":true}"#);
        assert_eq!(broker.get(&format!("{path}/billing/next?max=5")).events().len(), 5);
        post(&format!("{path}/billing/ack"), r#"{"offset":3}"#);
        post(&format!("{path}/billing/nack"), r#"{"offset":4}"#);
        broker.get(&format!("{path}/billing/next?max=1"));
        post(&format!("{path}/same-a/approve"), r#"{"max_attempts":1,"on_poison":"dead_letter"}"#);
        broker.get(&format!("{path}/same-a/next?max=1"));
        post(&format!("{path}/same-a/nack"), r#"{"offset":0}"#);
        assert_eq!(broker.get(&format!("{path}/same-a/next?max=1")).offsets(), [1]);
        post(&format!("{path}/same-b/suspend"), "");
        broker.produce_lines(group, "10\n");
    }
    broker
}

#[test]
fn consumers_are_told_as_their_status_tells_them() {
    let broker = consumers(&[("cores", "2"), ("shards", "2")]);
    let before = broker.get("/v1/consumers").json();
    let samples = scrape(&broker);
    let after = broker.get("/v1/consumers").json();
    let list = |page: &Value| page["consumers"].as_array().cloned().expect("a list");
    let mut states: HashMap<String, f64> = HashMap::new();
    for (status, later) in list(&before).iter().zip(&list(&after)) {
        let text = |name: &str| status[name].as_str().expect("text").to_owned();
        let of = |metric: &str| {
            let name =
                format!("eddyline_consumer_{metric}{{group=\"{}\",consumer=\"{}\"}}", text("group"), text("consumer"));
            *samples.get(&name).unwrap_or_else(|| panic!("no {name} in {samples:?}"))
        };
        assert_eq!(Some(of("position")), status["cursor"]["next"].as_f64(), "{status}");
        assert_eq!(Some(of("lag_events")), status["lag"]["events"].as_f64(), "{status}");
        let seconds = |status: &Value| status["lag"]["seconds"].as_f64().expect("a number");
        let age = of("lag_seconds");
        assert!(seconds(status) <= age && age <= seconds(later), "{age} is not between {status} and {later}");
        *states.entry(text("state")).or_default() += 1.0;
    }
    assert_eq!(states.values().sum::<f64>(), 8.0);
    assert!(states.len() >= 3, "{states:?}");
    for state in
        ["pending", "suspended", "revoked", "idle", "disconnected", "catching_up", "live", "blocked", "stuck", "gap"]
    {
        let told = samples.get(&format!("eddyline_consumers{{state=\"{state}\"}}"));
        assert_eq!(told, Some(states.get(state).unwrap_or(&0.0)), "{state} in {states:?}");
    }
    let sum = |metric: &str| {
        let shards = samples.iter().filter(|(name, _)| name.split('{').next() == Some(metric));
        shards.map(|(_, value)| value).sum::<f64>()
    };
    assert_eq!(sum("eddyline_consumer_acked_events_total"), 8.0);
    assert_eq!(sum("eddyline_consumer_redelivered_events_total"), 2.0);
    assert_eq!(sum("eddyline_consumer_dead_lettered_events_total"), 2.0);
}

#[test]
fn the_number_of_groups_and_consumers_told_is_bounded_and_the_rest_is_counted() {
    let broker = consumers(&[("metrics.consumers", "5"), ("metrics.groups", "1"), ("cores", "2"), ("shards", "2")]);
    let samples = scrape(&broker);
    let of = |metric: &str| -> Vec<&str> {
        let mut names: Vec<&str> =
            samples.keys().filter_map(|name| name.strip_prefix(metric)?.strip_prefix('{')).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(of("eddyline_group_tail"), ["group=\"orders\"}"], "the first by name, the audit log aside");
    assert_eq!((samples["eddyline_groups"], samples["eddyline_groups_left_out"]), (4.0, 3.0));
    for metric in ["eddyline_consumer_position", "eddyline_consumer_lag_events", "eddyline_consumer_lag_seconds"] {
        assert_eq!(
            of(metric),
            [
                "group=\"orders\",consumer=\"audit\"}",
                "group=\"orders\",consumer=\"billing\"}",
                "group=\"orders\",consumer=\"same-a\"}",
                "group=\"orders\",consumer=\"same-b\"}",
                "group=\"web\",consumer=\"audit\"}",
            ]
        );
    }
    assert_eq!(samples["eddyline_consumers_left_out"], 3.0);
    let counted: f64 =
        of("eddyline_consumers").iter().map(|state| samples[&format!("eddyline_consumers{{{state}")]).sum();
    assert_eq!(counted, 8.0, "states are counted of all");

    let mut broker = broker;
    broker.configure(&[("metrics.consumers", "0"), ("metrics.groups", "0"), ("cores", "2")]);
    broker.restart();
    let samples = scrape(&broker);
    assert!(!samples.keys().any(|name| name.starts_with("eddyline_consumer_lag") || name.contains("{group=")));
    assert_eq!((samples["eddyline_groups_left_out"], samples["eddyline_consumers_left_out"]), (4.0, 8.0));
}

#[test]
fn more_consumers_than_fit_a_slice_are_all_counted() {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    broker.create("web", "");
    broker.produce_lines("orders", "x\n");
    let mut client = broker.client();
    let all: HashSet<String> = (0..600).map(|number| format!("c-{number}")).collect();
    for (number, name) in all.iter().enumerate() {
        let group = if number % 3 == 0 { "web" } else { "orders" };
        assert_eq!(client.ask("PUT", &format!("/v1/groups/{group}/consumers/{name}"), &[], "").status, 201);
    }
    let samples = scrape(&broker);
    assert_eq!(samples["eddyline_consumers{state=\"disconnected\"}"], 400.0);
    assert_eq!(samples["eddyline_consumers{state=\"idle\"}"], 200.0);
    let told: HashSet<String> = samples
        .keys()
        .filter_map(|name| labels(name.strip_prefix("eddyline_consumer_lag_events")?))
        .map(|labels| labels[1].1.to_owned())
        .collect();
    assert_eq!(told, all);
}

/// Words in `text` that name metrics.
fn named(text: &str) -> HashSet<&str> {
    let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    words.filter(|word| word.starts_with("eddyline_") || word.starts_with("process_")).collect()
}

#[test]
fn the_dashboard_and_the_alerts_name_only_metrics_that_are_there() {
    let broker = consumers(&[]);
    broker.get(&format!("{EVENTS}?from=99"));
    let samples = scrape(&broker);
    let known: HashSet<&str> = samples.keys().filter_map(|name| name.split('{').next()).collect();
    for (file, least) in [("grafana.json", 20), ("alerts.yml", 8)] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file);
        let text = std::fs::read_to_string(path).expect("a file of the tree");
        let named = named(&text);
        assert!(named.len() >= least, "{file}: {named:?}");
        let missing: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
        assert!(missing.is_empty(), "{file} names what is not there: {missing:?}");
        if file.ends_with(".json") {
            let dashboard: Value = serde_json::from_str(&text).expect("a dashboard is JSON");
            let panels = dashboard["panels"].as_array().expect("panels");
            let ids: HashSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
            assert_eq!(ids.len(), panels.len(), "panels have numbers of their own");
        }
    }
    // States are named as values of a label.
    for text in ["stuck", "gap"] {
        assert!(samples.contains_key(&format!("eddyline_consumers{{state=\"{text}\"}}")), "{text}");
    }
}

#[test]
fn whoever_manages_some_groups_is_told_of_those_alone() {
    let (broker, admin) = Broker::start_guarded(&[]);
    for group in ["orders", "web-1"] {
        assert_eq!(broker.ask_as(&admin, "PUT", &format!("/v1/groups/{group}"), "").status, 201);
        assert_eq!(broker.ask_as(&admin, "PUT", &format!("/v1/groups/{group}/consumers/c"), "").status, 201);
    }
    let wanted = r#"{"scopes":["manage"],"groups":["web-*"]}"#;
    let made = broker.ask_as(&admin, "POST", "/v1/tokens", wanted).json();
    let told = |token: &str| {
        let samples = samples(broker.ask_as(token, "GET", "/metrics", "").text());
        let names: Vec<&str> = samples
            .keys()
            .filter_map(|name| labels(&name[name.find('{')?..]))
            .flatten()
            .filter(|(name, _)| *name == "group")
            .map(|(_, group)| group)
            .collect();
        let mut groups: Vec<String> = names.into_iter().map(str::to_owned).collect();
        groups.sort_unstable();
        groups.dedup();
        (groups, samples["eddyline_groups_left_out"], samples["eddyline_consumers_left_out"])
    };
    assert_eq!(told(&admin), (vec!["orders".to_owned(), "web-1".to_owned()], 0.0, 0.0));
    assert_eq!(told(made["token"].as_str().expect("text")), (vec!["web-1".to_owned()], 1.0, 1.0));
}
