//! Slow, large and many: who takes too long, sends too much or comes too often is told so, and costs the others nothing.

use crate::broker::{Broker, eventually};
use crate::http::Client;
use std::time::Duration;

const EVENTS: &str = "/v1/groups/orders/events";
const TEXT: (&str, &str) = ("Content-Type", "text/plain");

fn orders(settings: &[(&str, &str)]) -> Broker {
    let broker = Broker::start(settings);
    broker.create("orders", "");
    broker
}

fn post_head(lines: &str) -> String {
    format!("POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

#[test]
fn a_slow_head_is_refused_also_if_it_never_stands_still() {
    let broker = orders(&[("http.head", "300ms")]);
    for (start, drips) in [("G", false), ("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ", true), ("\r\n", false)] {
        for first in [false, true] {
            let mut client = broker.client();
            if !first {
                client.assert_in_step("nothing");
            }
            client.send(start);
            if drips {
                client.drip(Duration::from_millis(20));
            }
            let answer = client.answer();
            answer.assert_problem(408, "slow_request", start);
            assert_eq!(answer.header("connection"), Some("close"));
            client.assert_closed(start);
        }
    }
    // What was asked before the slow one is answered.
    let mut client = broker.client();
    client.send([&Client::request("POST", EVENTS, &[], "x")[..], b"GET /liv"].concat());
    assert_eq!(client.answer().json()["first_offset"], 0);
    client.answer().assert_problem(408, "slow_request", "half a head behind a whole request");
}

#[test]
fn a_slow_body_is_refused_and_a_large_one_may_pause() {
    let broker = orders(&[("http.body_grace", "300ms"), ("http.body_rate", "1kB")]);
    for (head, drips) in [
        (post_head("Content-Length: 100000\r\n"), false),
        (post_head("Content-Length: 100000\r\n"), true),
        (post_head("Transfer-Encoding: chunked\r\n"), false),
        (format!("{}FFFF\r\n", post_head("Transfer-Encoding: chunked\r\n")), true),
    ] {
        let mut client = broker.client();
        client.send(&head);
        if drips {
            client.drip(Duration::from_millis(20));
        }
        client.answer().assert_problem(408, "slow_request", &head);
        client.assert_closed(&head);
    }
    let mut client = broker.client();
    let body = "x".repeat(60_000);
    client.send(post_head("Content-Length: 60000\r\n"));
    client.send(&body[..50_000]);
    std::thread::sleep(Duration::from_millis(600));
    client.send(&body[50_000..]);
    assert_eq!(client.answer().json()["first_offset"], 0, "50 kB are worth 50 seconds");
    client.assert_in_step("a pause");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let broker = orders(&[("http.keep_alive", "1s")]);
    let mut fresh = broker.client();
    let mut used = broker.client();
    let answer = used.get("/livez");
    assert_eq!(answer.header("keep-alive"), Some("timeout=1"));
    used.assert_in_step("a request");
    fresh.assert_closed("nothing at all");
    used.assert_closed("a pause");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read_and_the_answer_is() {
    let broker = orders(&[("limits.max_event_bytes", "100KiB"), ("limits.max_batch_bytes", "200KiB")]);
    let sent = vec![b'x'; 700 << 10];
    let chunk = [format!("{:x}\r\n", sent.len()).as_bytes(), &sent].concat();
    let batch = "POST /v1/groups/orders/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
    for (head, body) in [
        (post_head("Content-Length: 102401\r\n"), &sent[..102_401]),
        (post_head("Content-Length: 18446744073709551615\r\n"), &sent),
        (post_head("Content-Length: 1000000000\r\n"), b""),
        (post_head("Content-Length: 1000000000\r\nExpect: 100-continue\r\n"), b""),
        (format!("{batch}Content-Length: 204801\r\n\r\n"), &sent[..204_801]),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n".to_owned(), b""),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n".to_owned(), b""),
        (post_head("Transfer-Encoding: chunked\r\n"), &chunk),
        (post_head("Transfer-Encoding: chunked\r\n"), b"FFFFFFF\r\n"),
    ] {
        let mut client = broker.client();
        client.send(&head);
        // All of it is taken off the client, so that it gets as far as reading.
        client.send(body);
        client.answer().assert_problem(413, "body_too_large", &head);
        client.assert_closed(&head);
    }
    let mut client = broker.client();
    assert_eq!(client.ask("POST", EVENTS, &[], &sent[..100 << 10]).status, 200, "as long as it may be");
    let lines = [&sent[..99 << 10], b"\n", &sent[..(101 << 10) - 1]].concat();
    client.ask("POST", "/v1/groups/orders/batch", &[TEXT], &lines).assert_problem(413, "event_too_large", "in a batch");
    let lines = [&sent[..100 << 10], b"\n", &sent[..(100 << 10) - 1]].concat();
    assert_eq!(lines.len(), 200 << 10);
    assert_eq!(client.ask("POST", "/v1/groups/orders/batch", &[TEXT], &lines).status, 200, "as long as it may be");
    client.send(post_head(""));
    let answer = client.answer();
    answer.assert_problem(411, "length_required", "no length");
    client.assert_closed("no length");
}

#[test]
fn a_batch_that_no_commit_of_this_journal_can_hold_is_refused() {
    let broker = orders(&[]);
    let mut client = broker.client();
    let lines = "x".repeat(1000) + "\n";
    let answer = client.ask("POST", "/v1/groups/orders/batch", &[TEXT], lines.repeat(5000));
    answer.assert_problem(413, "batch_too_large", "5 MB in a ring of 4 MiB");
    client.assert_in_step("a large batch");
    assert_eq!(client.ask("POST", "/v1/groups/orders/batch", &[TEXT], lines.repeat(200)).json()["last_offset"], 199);
}

#[test]
fn a_small_journal_is_used_again_and_again() {
    let broker = orders(&[]);
    let mut client = broker.client();
    let event = |number: u64| format!("{number} {}", "x".repeat(100_000));
    for first in (0..200).step_by(8) {
        let requests = (first..first + 8).flat_map(|number| Client::request("POST", EVENTS, &[], event(number)));
        client.send(requests.collect::<Vec<u8>>());
        for number in first..first + 8 {
            let answer = client.answer();
            assert_eq!((answer.status, &answer.json()["first_offset"]), (200, &number.into()), "{answer:?}");
        }
    }
    for number in [0, 7, 99, 199] {
        assert_eq!(client.get(&format!("{EVENTS}/{number}")).text(), event(number));
    }
}

#[test]
fn a_connection_too_many_is_told_to_come_again() {
    let broker = Broker::start(&[("http.connections", "3")]);
    let mut clients: Vec<Client> = (0..3).map(|_| broker.client()).collect();
    for client in &mut clients {
        client.assert_in_step("a connection");
    }
    for _ in 0..3 {
        let mut crowded = broker.client();
        let answer = crowded.answer();
        answer.assert_problem(503, "too_many_connections", "a fourth connection");
        assert!(answer.number("retry-after").is_some_and(|seconds| seconds > 0));
        crowded.assert_closed("a fourth connection");
    }
    clients[0].assert_in_step("others were refused");
    drop(clients.pop());
    eventually("a place is free again", || {
        let mut client = broker.client();
        client.send_anyway(Client::request("GET", "/livez", &[], ""));
        client.answer().status == 200
    });
}

#[test]
fn a_length_alone_costs_no_memory() {
    let broker = Broker::start(&[("limits.max_event_bytes", "8MiB")]);
    broker.create("orders", "{\"max_event_bytes\":\"8MiB\"}");
    let before = broker.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = broker.client();
        client.send(post_head("Content-Length: 8388608\r\n"));
        client.send("only this");
        clients.push(client);
    }
    eventually("all are connected", || broker.connections() == 201);
    broker.client().assert_in_step("two hundred long bodies that do not come");
    let refused = clients.iter_mut().filter_map(|client| client.has_input().then(|| client.answer())).count();
    assert_eq!(refused, 0, "announcing is no crime");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for two hundred lengths");
}

#[test]
fn half_heads_cost_little_and_hold_up_nobody() {
    let broker = orders(&[]);
    let before = broker.resident_bytes();
    let mut clients: Vec<Client> = (0..500).map(|_| broker.client()).collect();
    for client in &mut clients {
        client.send(format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(1000)));
    }
    eventually("all are connected", || broker.connections() == 501);
    let mut quick = broker.client();
    assert_eq!(quick.ask("POST", EVENTS, &[], "x").status, 200);
    quick.assert_in_step("five hundred half heads");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for five hundred half heads");
    for client in &mut clients {
        client.send("\r\nHost: localhost\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn who_comes_while_no_file_can_be_opened_is_told_so_and_others_are_let_in_once_one_can() {
    let broker = orders(&[]);
    let mut known = broker.client();
    // The first event needs a segment; later ones find room in it.
    assert_eq!(known.ask("POST", EVENTS, &[], "x").status, 200);
    let most = broker.open_files() + 4;
    broker.limit_open_files(most);
    let mut clients: Vec<Client> = (0..20).map(|_| broker.client()).collect();
    for client in &mut clients {
        client.send(Client::request("GET", "/livez", &[], ""));
    }
    // Those who are in go on, those who are not are told.
    assert_eq!(known.ask("POST", EVENTS, &[], "x").status, 200);
    let mut served = Vec::new();
    for mut client in clients {
        let answer = client.answer();
        if answer.status == 200 {
            served.push(client);
            continue;
        }
        answer.assert_problem(503, "too_many_connections", "no file left");
        assert_eq!((answer.header("retry-after"), answer.json()["effect"].as_str()), (Some("1"), Some("none")));
        client.assert_closed("no file left");
    }
    assert!((1..20).contains(&served.len()), "{} were let in", served.len());
    known.assert_in_step("a broker without files");
    // It waits for the next one with its spare file given up, which it needs no more once others have left. (The accept
    // that waited when the limit came knew nothing of it, and let one in above it.)
    eventually("it can tell one more", || broker.open_files() <= most);
    drop(served);
    eventually("they are gone", || known.get("/v1/status").json()["connections"] == 1);
    for number in 0..5 {
        assert_eq!(broker.client().get("/livez").status, 200, "client {number}");
    }
}

#[test]
fn bodies_that_are_coming_in_share_a_bounded_memory() {
    let broker = orders(&[
        ("http.body_memory", "1MiB"),
        ("limits.max_batch_bytes", "1MiB"),
        ("limits.max_event_bytes", "1MiB"),
        ("http.body_grace", "1h"),
    ]);
    let body = vec![b'x'; 700 << 10];
    let request = [post_head(&format!("Content-Length: {}\r\n", body.len())).as_bytes(), &body].concat();
    let mut clients = [broker.client(), broker.client()];
    for client in &mut clients {
        client.send(&request[..request.len() - 1]);
    }
    eventually("one of two large bodies finds no room", || clients.iter().any(Client::has_input));
    let [mut refused, mut taken] = clients;
    if !refused.has_input() {
        std::mem::swap(&mut refused, &mut taken);
    }
    refused.answer().assert_problem(503, "overloaded", "one of two large bodies");
    refused.assert_closed("one of two large bodies");
    broker.client().assert_in_step("a full memory for bodies");
    taken.send(&body[..1]);
    assert_eq!(taken.answer().status, 200, "the other one had room");
    assert_eq!(broker.ask("POST", EVENTS, &[], &body).status, 200, "and left it");
}
