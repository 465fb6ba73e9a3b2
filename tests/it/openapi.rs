//! The interface as a machine reads it: `docs/openapi.json` names every path and method that the broker has and no
//! other, and what the broker answers is of the shapes that it gives.

use crate::broker::Broker;
use crate::http::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const METHODS: [&str; 5] = ["GET", "PUT", "POST", "PATCH", "DELETE"];

fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    serde_json::from_slice(&std::fs::read(path).expect("the document")).expect("JSON")
}

/// A path of the document with names in it that nothing has.
fn filled(path: &str) -> String {
    let names = [("{group}", "nowhere"), ("{consumer}", "nobody"), ("{event}", "7"), ("{id}", "nobodys")];
    names.iter().fold(path.to_owned(), |path, (place, name)| path.replace(place, name))
}

#[test]
fn every_path_and_method_of_the_document_is_there_and_no_other_method() {
    let broker = Broker::start(&[]);
    let document = document();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let named: BTreeSet<&str> =
            METHODS.into_iter().filter(|method| item[method.to_ascii_lowercase()].is_object()).collect();
        for method in METHODS {
            let answer = broker.ask(method, &filled(path), &[], "");
            if named.contains(method) {
                let code = String::from_utf8_lossy(&answer.body);
                assert!(!code.contains("\"not_found\"") && answer.status != 405, "{method} {path}: {answer:?}");
                let operation = item[method.to_ascii_lowercase()]["operationId"].as_str().expect("an id");
                assert!(operations.insert(operation.to_owned()), "{operation} comes twice");
                continue;
            }
            assert_eq!(answer.status, 405, "{method} {path}");
            let allow = answer.header("allow").expect("what is allowed");
            let allowed: BTreeSet<&str> =
                allow.split(", ").filter(|method| !matches!(*method, "HEAD" | "OPTIONS")).collect();
            assert_eq!(allowed, named, "{path}");
        }
    }
}

/// Every kind of target is described in the code by the path it stands for.
#[test]
fn every_path_that_the_code_knows_is_in_the_document() {
    let source =
        |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect("a file");
    let described = |text: &str, prefix: &str| -> Vec<String> {
        let lines =
            text.lines().filter_map(|line| line.trim().strip_prefix("/// `")?.strip_prefix(prefix)?.split_once('`'));
        lines.map(|(path, _)| format!("{prefix}{path}")).collect()
    };
    let mut known: BTreeSet<String> = described(&source("src/api/route.rs"), "/").into_iter().collect();
    let consumer = "/v1/groups/{group}/consumers/{consumer}";
    let actions = described(&source("src/api/consumer/mod.rs"), "…/");
    known.extend(actions.iter().map(|action| action.replace('…', consumer)));
    let known: BTreeSet<String> = known.into_iter().map(|path| path.replace("{offset or id}", "{event}")).collect();
    let document = document();
    let named: BTreeSet<String> = document["paths"].as_object().expect("paths").keys().cloned().collect();
    assert!(actions.len() > 5 && known.len() > 15, "descriptions were found: {known:?}");
    assert_eq!(known, named);
}

/// Every place in the document that another one is named from must be there.
#[test]
fn whatever_the_document_refers_to_is_in_it() {
    fn look(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let place = reference.strip_prefix('#').expect("within the document");
                    assert!(document.pointer(place).is_some(), "{reference}");
                }
                members.values().for_each(|value| look(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| look(value, document)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    look(&document, &document);
}

/// What `value` has against a schema of the document.
fn faults(document: &Value, schema: &str, value: &Value) -> Vec<String> {
    let whole = json!({ "$ref": format!("#/components/schemas/{schema}"), "components": document["components"] });
    let validator = jsonschema::validator_for(&whole).expect("a schema");
    validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

#[test]
fn answers_are_of_the_shapes_that_the_document_gives() {
    let broker = Broker::start(&[]);
    let document = document();
    let holds = |schema: &str, method: &str, target: &str, body: &str| {
        let answer = broker.ask(method, target, &[], body);
        let value = answer.json();
        assert_eq!(faults(&document, schema, &value), Vec::<String>::new(), "{method} {target}: {value:#}");
        value
    };
    let group = "/v1/groups/orders";
    let consumer = "/v1/groups/orders/consumers/billing";
    holds("Group", "PUT", group, "");
    holds("Group", "PATCH", group, r#"{"segment":{"max_age":"5m"}}"#);
    for number in 0..5 {
        holds("Produced", "POST", &format!("{group}/events"), &format!("{{\"n\":{number}}}"));
    }
    holds("Events", "GET", &format!("{group}/events"), "");
    holds("Consumer", "PUT", consumer, r#"{"start":0}"#);
    holds(
        "Consumer",
        "POST",
        &format!("{consumer}/approve"),
        r#"{"lease":"5s","max_attempts":3,"on_poison":"dead_letter"}"#,
    );
    let batch = holds("Batch", "GET", &format!("{consumer}/next?max=2"), "");
    assert_eq!(batch["events"].as_array().expect("events").len(), 2);
    holds("Consumer", "GET", consumer, "");
    broker.ask("POST", &format!("{consumer}/ack"), &[], r#"{"offset":1}"#);
    holds("Rewound", "POST", &format!("{consumer}/rewind"), r#"{"to":0,"until":1}"#);
    holds("Batch", "GET", &format!("{consumer}/next"), "");
    holds("Consumer", "GET", consumer, "");
    holds("Rewound", "POST", &format!("{consumer}/rewind"), r#"{"to":4,"skip":true}"#);
    holds("Session", "POST", &format!("{consumer}/session?takeover=1"), "");
    holds("ConsumerList", "GET", &format!("{group}/consumers"), "");
    holds("ConsumerList", "GET", "/v1/consumers", "");
    let mut follows = broker.client();
    let rows = [("Accept", "application/x-ndjson")];
    follows.send(Client::request("POST", "/v1/query", &rows, "SELECT * IN orders FOLLOW"));
    follows.head();
    let listed = holds("QueryList", "GET", "/v1/queries", "");
    assert_eq!(listed["queries"].as_array().map(Vec::len), Some(1));
    holds("Ready", "GET", "/readyz", "");
    for (method, target, body) in [
        ("GET", "/v1/nowhere", ""),
        ("GET", "/v1/groups/orders/events?from=900", ""),
        ("POST", "/v1/groups/orders/consumers/billing/ack", r#"{"offset":900}"#),
        ("PUT", "/v1/groups/..", ""),
    ] {
        holds("Problem", method, target, body);
    }
    assert_ne!(faults(&document, "Event", &json!({ "offset": -1 })), Vec::<String>::new(), "the check can fail");
}
