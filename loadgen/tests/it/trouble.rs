//! Connections that end, brokers that are busy, stall or say no: what is unknown is called so, and nothing is sent twice
//! unless the broker drops repeats.

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::fake::{Broker, Fault, Manners};
use crate::runs::{against, command, loadgen, run};

#[test]
fn lost_connections_leave_unknown_outcomes_and_no_faults() {
    let faults = (1..=20).map(|n| (n * 17, if n % 2 == 0 { Fault::CloseBefore } else { Fault::CloseAfter }));
    let broker = Broker::with_faults(faults);
    let ran = against(&broker, "-n 500 -c 4 --pipeline 3");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.value("/verdict"), json!("UNSTABLE"));
    let (acked, unknown, stored) = (ran.verify("acked"), ran.verify("unknown"), ran.verify("unknown_stored"));
    assert_eq!(acked + unknown, 500);
    assert_eq!(acked + stored, broker.stored("load").len() as u64);
    assert!(unknown >= 20 && stored >= 10, "{ran:?}");
    assert_eq!(ran.number("/errors/connection lost"), 20);
}

#[test]
fn deduplicated_producers_repeat_until_everything_is_there_once() {
    for options in
        ["-n 500 -c 4 --pipeline 3", "-n 500 -c 4 --pipeline 8 --groups 3", "-n 500 -c 4 -b 5 --full-answers"]
    {
        let faults = (1..=9).map(|n| (n * 11, [Fault::CloseBefore, Fault::CloseAfter, Fault::Busy][n % 3]));
        let broker = Broker::with_faults(faults);
        let ran = against(&broker, &format!("{options} --producer-id p"));
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!((ran.verify("acked"), ran.verify("verified"), ran.verify("unknown")), (500, 500, 0), "{ran:?}");
        assert!(broker.seen().iter().map(|seen| seen.events.len()).sum::<usize>() > 500, "nothing was repeated");
    }
}

#[test]
fn a_busy_broker_gets_the_same_requests_again() {
    let broker = Broker::with_faults((1..=40).map(|n| (n, Fault::Busy)));
    let ran = against(&broker, "-n 100 -c 4 --pipeline 2");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((ran.verify("acked"), ran.verify("verified")), (100, 100));
    assert_eq!(ran.number("/errors/503"), 40);
    assert_eq!(broker.seen().len(), 140);
}

#[test]
fn a_broker_that_closes_after_each_answer_is_still_served_in_full() {
    let broker = Broker::with_faults((1..=50).map(|n| (n, Fault::AnswerAndClose)));
    let ran = against(&broker, "-n 50 -c 2");
    assert_eq!((ran.code, ran.verify("acked"), ran.verify("unknown")), (0, 50, 0), "{ran:?}");
    assert_eq!(ran.value("/errors"), json!({}), "an announced end with nothing in flight is no error");
}

#[test]
fn a_stalled_request_times_out_and_is_unknown() {
    let broker = Broker::with_fault(10, Fault::Stall);
    let ran = against(&broker, "-n 30 -c 2 --timeout 3s");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((ran.verify("acked"), ran.verify("unknown"), ran.verify("unknown_stored")), (29, 1, 0));
    assert_eq!(ran.number("/errors/timeout"), 1);
    let ran = against(&Broker::with_fault(10, Fault::Stall), "-n 30 -c 2 --timeout 3s --rate 1k");
    let micros = |clock: &str| ran.value(&format!("/measured/{clock}_us/max")).as_f64().unwrap();
    assert!(micros("response") >= 3e6, "who was never answered waited for so long at least: {ran:?}");
}

#[test]
fn a_silent_broker_ends_the_run() {
    let broker = Broker::with_faults((5..1000).map(|n| (n, Fault::Stall)));
    let ran = against(&broker, "-n 1000 -c 1 --timeout 1s");
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!((ran.value("/verdict"), ran.verify("acked")), (json!("UNSTABLE"), 4));
    assert!(ran.value("/reason").as_str().unwrap().contains("silent"));
}

#[test]
fn a_broker_that_accepts_nothing_any_more_ends_the_run() {
    for options in ["-n 1000 -c 2", "-d 1h -c 2 --rate 100"] {
        let broker = Broker::with_faults((5..100_000).map(|n| (n, Fault::Busy)));
        let ran = against(&broker, &format!("{options} --timeout 1s"));
        assert_eq!((ran.code, ran.value("/verdict")), (4, json!("UNSTABLE")), "{ran:?}");
        assert_eq!(ran.value("/reason"), json!("nothing was accepted for 3 s: 503 busy"), "{ran:?}");
        assert_eq!((ran.verify("acked"), ran.value("/verify/state")), (4, json!("ok")), "{ran:?}");
    }
}

#[test]
fn a_run_of_which_nothing_is_known_to_have_arrived_failed() {
    let broker = Broker::with_faults((1..=10).map(|n| (n, Fault::CloseBefore)));
    let ran = against(&broker, "-n 10 -c 2");
    assert_eq!((ran.code, ran.verify("acked"), ran.verify("unknown")), (1, 0, 10), "{ran:?}");
}

#[test]
fn a_refusal_of_the_first_request_is_the_end() {
    for options in ["-c 2 -n 10 --no-verify --create=false", "-c 2 -d 10m --no-verify --create=false"] {
        let ran = against(&Broker::honest(), options);
        assert_eq!((ran.code, ran.stdout.as_str()), (4, ""), "{ran:?}");
        assert!(ran.stderr.contains("refused the load: 404 no_group"), "{ran:?}");
    }
    let ran = against(&Broker::honest(), "-c 2 -n 10 --create=false");
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("refused to read load from latest: 404 no_group"), "{ran:?}");
}

#[test]
fn a_later_refusal_is_counted_and_fails_the_run() {
    let ran = against(&Broker::with_fault(10, Fault::Refuse), "-c 1 -n 30");
    assert_eq!((ran.code, ran.verify("acked"), ran.number("/refused_requests")), (1, 29, 1), "{ran:?}");
    assert!(ran.stderr.contains("refused: 404 gone_away"));
    assert_eq!(ran.value("/verify/state"), json!("ok"), "what was acknowledged is there all the same");
}

#[test]
fn reading_back_that_is_refused_is_said() {
    let broker = Broker::with(Manners { refuse_reads: Some(403), ..Manners::default() });
    let ran = against(&broker, "-c 1 -n 5");
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("403 reads_refused"), "{ran:?}");
}

#[test]
fn nobody_there_is_exit_code_three() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ran = run(&format!("--url http://{address} --group load -n 1"));
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{ran:?}");
    assert!(
        ran.stderr.contains(&format!("cannot reach http://{address}")) && ran.stderr.contains("eddyline dev"),
        "{ran:?}"
    );
}

/// What a run leaves that gets a signal, so many times without a pause, once some events are stored.
fn interrupted(broker: &Broker, mut command: Command, name: &str, times: usize) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    while broker.stored("load").len() < 10 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, name, times);
    child.wait_with_output().unwrap()
}

/// Sends a signal, so many times without a pause.
fn signal(child: &Child, name: &str, times: usize) {
    let ids = vec![child.id().to_string(); times];
    assert!(Command::new("kill").arg(format!("-{name}")).args(ids).status().unwrap().success());
}

#[test]
fn a_second_signal_ends_the_process() {
    let broker = Broker::with_faults((11..1000).map(|n| (n, Fault::Stall)));
    let mut options = command(&format!("--url {} --group load -c 1 -d 1h --timeout 1h", broker.url()));
    let mut child = options.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    while broker.stored("load").len() < 10 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Sooner it would be the same one, sent twice; and a busy machine hears of it late.
    for _ in 0..20 {
        signal(&child, "INT", 1);
        std::thread::sleep(Duration::from_millis(700));
        if child.try_wait().unwrap().is_some() {
            break;
        }
    }
    assert!(child.try_wait().unwrap().is_some(), "it does not wait for answers any more");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
}

#[test]
fn an_interrupt_ends_a_search_and_a_catchup_too() {
    let broker = Broker::honest();
    let search = "-c 2 -d 1m --find-max --slo p99<1us -o json";
    let output = interrupted(&broker, command(&format!("--url {} --group load {search}", broker.url())), "INT", 1);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["verify"]["verified"], json!(broker.stored("load").len()), "it is that of the run under way");
    let broker = Broker::honest();
    let mut catchup = loadgen();
    catchup.args(["catchup", "--url", &broker.url(), "--group", "load", "-c", "2", "-d", "1m"]);
    let output = interrupted(&broker, catchup, "INT", 1);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0), "nothing was read: {output:?}");
}

#[test]
fn an_interrupt_ends_the_load_but_not_the_verification() {
    // Some that end a process tell its whole group as well, so that it is told twice.
    for (name, times) in [("INT", 1), ("TERM", 1), ("INT", 2), ("TERM", 2)] {
        let broker = Broker::honest();
        let options = format!("--url {} --group load -c 2 -d 1m -o json", broker.url());
        let output = interrupted(&broker, command(&options), name, times);
        assert_eq!(output.status.code(), Some(130), "{name} {times}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["verify"]["state"], json!("ok"));
        assert_eq!(summary["verify"]["verified"], json!(broker.stored("load").len()));
    }
}
