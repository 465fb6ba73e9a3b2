//! A disk that runs full: events and groups are refused before anything is done with them, everything else goes on, and
//! they are taken again as soon as there is room. On a small file system of its own; needs root and loop devices.

use crate::broker::{Broker, eventually};
use crate::history::{Acked, check, read_all};
use crate::http::Answer;
use crate::image::{Image, unavailable};
use crate::program::eddyline;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const MIB: u64 = 1 << 20;
/// What the filler leaves for the broker, its reserve included.
const LEFT: u64 = 16 * MIB;
const EVENTS: u64 = 4;

/// Posts numbered requests, and keeps what was answered.
struct Producer {
    seq: u64,
    acked: Vec<Acked>,
}

impl Producer {
    /// Posts the next request; one that is refused is the next one again.
    fn post(&mut self, broker: &Broker) -> Answer {
        let (seq, pad) = (self.seq, "x".repeat(20 << 10));
        let event =
            |index| format!(r#"{{"producer":"p","seq":{seq},"index":{index},"of":{EVENTS},"pad":"{pad}"}}"#) + "\n";
        let body: String = (0..EVENTS).map(event).collect();
        let target = format!("/v1/groups/orders/batch?producer=p&seq={seq}");
        let answer = broker.ask("POST", &target, &[("Content-Type", "application/x-ndjson")], body);
        if answer.status == 200 {
            let told = answer.json();
            assert_eq!(told["duplicate"], false, "a refused request was not stored");
            let first_offset = told["first_offset"].as_u64().unwrap();
            self.acked.push(Acked { producer: "p".to_owned(), seq, first_offset, events: EVENTS });
            self.seq += 1;
        }
        answer
    }

    /// Posts until the disk is full, and checks how that is said.
    fn fill(&mut self, broker: &Broker) {
        let before = self.seq;
        let refused =
            (0..1000).map(|_| self.post(broker)).find(|answer| answer.status != 200).expect("the disk is small");
        refused.assert_problem(507, "disk_full", "a full disk");
        let told = refused.json();
        assert_eq!((&told["effect"], &told["retryable"]), (&"none".into(), &true.into()), "{told}");
        assert!(self.seq > before, "there was room for something");
    }

    /// Everything that was answered can be read, and nothing else is there.
    fn assert_there(&self, broker: &Broker, when: &str) {
        let events = read_all(&mut broker.client(), "orders");
        assert_eq!(check(&events, &self.acked), Ok(()), "{when}");
        assert_eq!(events.len() as u64, self.seq * EVENTS, "{when}");
    }
}

#[test]
fn a_disk_without_a_byte_left_stops_no_checkpoint() {
    if unavailable("a disk without a byte left", &["mkfs.ext4", "mount"]) {
        return;
    }
    let image = Image::new("ext4", 48 * MIB);
    let mut broker = Broker::start_on(&image.path().join("data"), &[("storage.reserve", "4MiB")]);
    broker.create("orders", "");
    broker.produce_lines("orders", "before\n");
    // Whatever is free, to the last block.
    let mut filler = std::fs::File::create(image.path().join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    assert!(free(&image.path()) < 4096, "{} bytes are free", free(&image.path()));
    let make = |broker: &Broker, group: &str| broker.ask("PUT", &format!("/v1/groups/{group}"), &[], "");
    let refused = make(&broker, "other");
    refused.assert_problem(507, "disk_full", "a group for which there is no room");
    assert_eq!(refused.json()["effect"], "none");
    assert_eq!(make(&broker, "orders").status, 200, "it is there");
    // Many consumers with long names: the state outgrows what was allocated for it.
    let (reserve, made) = (image.path().join("data/reserve"), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = broker.client();
                while reserve.exists() {
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    assert!(number < 20_000, "the state never outgrew its files");
                    let answer =
                        client.ask("PUT", &format!("/v1/groups/orders/consumers/{:x>100}-{number}", "x"), &[], "");
                    assert_eq!(answer.status, 201, "{answer:?}");
                }
            });
        }
    });
    assert!(made.into_inner() > 1000, "the reserve was given back before it was needed");
    assert_eq!(broker.produce_lines("orders", "after\n"), 1, "what is allocated can be used");
    broker.kill9();
    broker.restart();
    assert_eq!(broker.get("/v1/groups/orders").json()["tail"], 2);
    drop(filler);
    assert_eq!(make(&broker, "other").status, 507, "still");
    std::fs::remove_file(image.path().join("filler")).unwrap();
    assert_eq!(make(&broker, "other").status, 201, "there is room for it");
    broker.restart();
    assert!(reserve.exists(), "it is set aside again");
    broker.stop();
    eddyline(&["verify", "--data", broker.data().to_str().unwrap()]).with(0);
}

fn free(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).expect("a file system");
    space.f_bavail * space.f_frsize
}

#[test]
fn a_full_disk_refuses_events_and_nothing_else_until_there_is_room() {
    if unavailable("a full disk", &["mkfs.ext4", "mount"]) {
        return;
    }
    let image = Image::new("ext4", 64 * MIB);
    let mut broker = Broker::start_on(&image.path().join("data"), &[("storage.reserve", "4MiB")]);
    let segments = r#"{"segment":{"max_bytes":"1MiB"}}"#;
    broker.create("orders", segments);
    broker.create("old", segments);
    for _ in 0..40 {
        broker.produce_lines("old", &("7".repeat(100_000) + "\n"));
    }
    let filler = image.path().join("filler");
    std::fs::write(&filler, vec![1; (free(&image.path()) - LEFT) as usize]).unwrap();
    let mut producer = Producer { seq: 0, acked: Vec::new() };

    producer.fill(&broker);
    producer.assert_there(&broker, "full");
    assert_eq!(broker.get("/livez").status, 200);
    assert_eq!(broker.get("/v1/groups/old").json()["tail"], 40);

    broker.kill9();
    broker.restart();
    producer.assert_there(&broker, "killed and started again while full");
    broker.stop();
    broker.restart();
    producer.assert_there(&broker, "stopped and started again while full");

    std::fs::remove_file(&filler).unwrap();
    eventually("the broker resumes by itself once a file is gone", || producer.post(&broker).status == 200);
    assert_eq!(broker.get("/readyz").status, 200);
    producer.assert_there(&broker, "resumed");

    std::fs::write(&filler, vec![1; (free(&image.path()) - LEFT) as usize]).unwrap();
    producer.fill(&broker);
    assert_eq!(broker.ask("DELETE", "/v1/groups/old", &[], "").status, 204, "removing is what makes room");
    eventually("the broker resumes by itself once a group is gone", || producer.post(&broker).status == 200);
    producer.assert_there(&broker, "resumed again");

    broker.stop();
    eddyline(&["verify", "--data", broker.data().to_str().unwrap()]).with(0);
}
