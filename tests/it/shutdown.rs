//! File systems that go away under the broker, as in a power cut: what was answered before is there after the restart.
//! (`kill -9` cannot show that: the page cache outlives the process.) Needs root and loop devices.

use crate::broker::{Broker, PATIENCE};
use crate::crash::refused;
use crate::history::{Scene, Trouble, check, read_all, write};
use crate::image::{Image, unavailable};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const GROUPS: [&str; 2] = ["orders", "clicks"];
const SEGMENTS: &str = r#"{"segment":{"max_bytes":"64KiB"}}"#;
const ROUNDS: u64 = 4;
const MIB: u64 = 1 << 20;

#[test]
fn a_power_cut_under_ext4_takes_nothing_that_was_answered() {
    power_cuts("ext4", 64 * MIB);
}

#[test]
fn a_power_cut_under_xfs_takes_nothing_that_was_answered() {
    // The smallest that mkfs.xfs makes.
    power_cuts("xfs", 300 * MIB);
}

fn power_cuts(file_system: &str, bytes: u64) {
    let tools = [&format!("mkfs.{file_system}"), "xfs_io", "mount"];
    if unavailable(&format!("power cuts under {file_system}"), &tools) {
        return;
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let image = Image::new(file_system, bytes);
    let mut broker = Broker::start_on(&image.path().join("data"), &[]);
    GROUPS.iter().for_each(|group| broker.create(group, SEGMENTS));
    let mut answered = GROUPS.map(|_| Vec::new());
    for round in 0..ROUNDS {
        let scene = Scene::new(broker.address());
        let writers: Vec<_> = (0..4)
            .map(|number| {
                // What a writer was told after the cut began may be lost, so each round has writers of its own.
                let (scene, seed, name) = (Arc::clone(&scene), random.u64(..), format!("writer-{round}-{number}"));
                thread::spawn(move || write(&scene, GROUPS[number % 2], &name, seed, Trouble::GiveUp))
            })
            .collect();
        thread::sleep(Duration::from_millis(random.u64(50..700)));
        // Only what was recorded before the call counts: on ext4 a sync that races with it may return 0.
        for (acked, group) in answered.iter_mut().zip(GROUPS) {
            acked.extend(scene.acked(group));
        }
        image.shut_down();
        let deadline = Instant::now() + PATIENCE;
        for writer in writers {
            let cause = writer.join().unwrap().expect("a writer goes on until the disk is gone");
            let told =
                ["\"code\":\"unknown\"", "\"code\":\"stopped\"", "\"code\":\"overloaded\"", "\"code\":\"disk_full\""];
            assert!(told.iter().any(|code| cause.contains(code)), "round {round}: {cause}");
        }
        assert!(Instant::now() < deadline);
        assert_eq!(broker.get("/readyz").status, 503, "a broker without its disk is not ready");
        broker.kill9();
        image.remount();
        broker.restart();
        for (acked, group) in answered.iter().zip(GROUPS) {
            let events = read_all(&mut broker.client(), group);
            println!(
                "{file_system} round {round}, {group}: {} events, {} answers before the cuts",
                events.len(),
                acked.len()
            );
            assert_eq!(check(&events, acked), Ok(()), "{file_system}, {group}, round {round}, seed {seed}");
        }
    }
    assert!(answered.iter().all(|acked| !acked.is_empty()), "nothing was answered before any cut");
    broker.stop();
}

#[test]
fn a_read_only_file_system_is_refused() {
    if unavailable("a read-only file system", &["mkfs.ext4", "mount"]) {
        return;
    }
    let image = Image::new("ext4", 32 * MIB);
    let data = image.path().join("data");
    Broker::start_on(&data, &[]).stop();
    image.make_read_only();
    refused(&data, "Read-only file system");
    refused(&image.path().join("another"), "Read-only file system");
}
