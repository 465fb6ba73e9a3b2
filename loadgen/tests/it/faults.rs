//! Every broken promise is noticed, named and exit code 1.

use serde_json::json;

use crate::fake::{Broker, Fault};
use crate::runs::against;

#[test]
fn every_planted_fault_is_caught_and_named() {
    for (fault, name) in [
        (Fault::LoseLeavingHole, "lost"),
        (Fault::Lose, "lost"),
        (Fault::Duplicate, "duplicated"),
        (Fault::Swap, "out_of_order"),
        (Fault::Corrupt, "corrupted"),
        (Fault::WrongOffset, "out_of_order"),
        (Fault::BusyYetStored, "duplicated"),
    ] {
        for options in ["-n 200 -c 1", "-n 200 -c 8 --pipeline 4 --threads 2", "-n 2000 -c 4 -b 10 --format binary"] {
            let broker = Broker::with_fault(100, fault);
            let ran = against(&broker, options);
            assert_eq!(ran.code, 1, "{fault:?} {options}: {ran:?}");
            assert_eq!(ran.value("/verdict"), json!("INCORRECT"), "{fault:?} {options}");
            assert_eq!(ran.value("/verify/state"), json!("wrong"));
            assert!(ran.verify(name) > 0, "{fault:?} {options} is not called {name}: {ran:?}");
            assert!(ran.stderr.contains("wrong: "), "an example is told: {ran:?}");
        }
    }
}

#[test]
fn a_single_fault_among_many_events_is_counted_as_one() {
    for (fault, name, count) in [
        (Fault::LoseLeavingHole, "lost", 1),
        (Fault::Lose, "lost", 1),
        (Fault::Duplicate, "duplicated", 1),
        (Fault::Swap, "out_of_order", 2),
        (Fault::Corrupt, "corrupted", 1),
    ] {
        let ran = against(&Broker::with_fault(500, fault), "-n 1000 -c 4");
        let names = ["lost", "duplicated", "out_of_order", "corrupted", "torn", "refused_stored", "holes"];
        for other in names {
            assert_eq!(ran.verify(other), if other == name { count } else { 0 }, "{fault:?} {other}: {ran:?}");
        }
        assert_eq!(ran.verify("acked"), 1000);
    }
}

#[test]
fn faults_are_found_among_more_requests_than_are_kept_in_memory() {
    let faults = [(1_000, Fault::Lose), (6_000, Fault::Corrupt), (11_000, Fault::Duplicate)];
    let ran = against(&Broker::with_faults(faults), "-n 12000 -c 3 --pipeline 16");
    assert_eq!((ran.code, ran.verify("acked")), (1, 12_000), "{ran:?}");
    assert_eq!((ran.verify("lost"), ran.verify("corrupted"), ran.verify("duplicated")), (1, 1, 1), "{ran:?}");
}

#[test]
fn faults_in_one_group_of_many_or_in_a_file_are_caught_too() {
    let ran = against(&Broker::with_fault(33, Fault::Corrupt), "-n 100 -c 3 --groups 5");
    assert_eq!((ran.code, ran.verify("corrupted")), (1, 1), "{ran:?}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"one\ntwo\nthree\n").unwrap();
    let ran = against(&Broker::with_fault(8, Fault::Lose), &format!("--payload {} -n 10 -c 1", file.path().display()));
    assert_eq!((ran.code, ran.verify("lost")), (1, 1), "{ran:?}");
}

#[test]
fn an_answer_that_breaks_the_contract_is_incorrect() {
    for fault in [Fault::NoOffset, Fault::Garbage] {
        let ran = against(&Broker::with_fault(20, fault), "-n 50 -c 2");
        assert_eq!((ran.code, ran.value("/verdict")), (1, json!("INCORRECT")), "{fault:?}: {ran:?}");
        assert_eq!(ran.number("/errors/bad answer"), 1);
        assert_eq!((ran.verify("unknown"), ran.verify("unknown_stored")), (1, 1));
    }
}
