//! What is told of commits that are under way.

use super::*;

/// Queries make way for them.
#[test]
fn a_commit_is_under_way_until_its_write_has_ended() {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        let stats = &node.shard.stats;
        let under_way = || stats.commits.get() - stats.commits_ended.get();
        let writes = || {
            let state = node.shard.state.borrow();
            state.in_flight.iter().filter(|entry| !entry.written).count() as u64
        };
        let mut seen = 0;
        // A write may end between two looks.
        for _ in 0..1000 {
            let look = async {
                loop {
                    assert_eq!(under_way(), writes());
                    seen += writes();
                    ring::park().await;
                }
            };
            tokio::select! {
                produced = node.produce(group, &["x"]) => assert!(produced.is_ok()),
                () = look => {}
            }
            assert_eq!(under_way(), 0, "nobody else writes");
            if seen > 0 {
                return;
            }
        }
        panic!("no commit was ever under way");
    });
}
