//! Recovery of the state file: a damaged generation costs a longer replay, never an older truth.

use super::*;

/// Generation 2 holds entries up to 3, generation 3 up to 5; the journal up to 7.
fn filled() -> Site {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        for pair in [["a", "b"], ["c", "d"], ["e", "f"]] {
            for data in pair {
                node.produce(group, &[data]).await.unwrap();
            }
            if pair[0] != "e" {
                node.checkpoint().await;
            }
        }
    });
    site
}

#[test]
fn a_damaged_generation_costs_a_longer_replay_and_nothing_else() {
    type Hurt = fn(&Site);
    let cases: [(&str, Hurt, u64, usize); 7] = [
        ("both are sound", |_| (), 2, 0),
        ("a record of the newer is hurt", |site| site.flip("state.b", 140), 4, 1),
        ("the header of the newer is hurt", |site| site.flip("state.b", 88), 4, 1),
        ("the newer is cut", |site| truncate(site, "state.b", 150), 4, 1),
        ("the newer is gone", |site| std::fs::remove_file(site.path("state.b")).unwrap(), 4, 1),
        ("the older is hurt", |site| site.flip("state.a", 140), 2, 1),
        ("the newer is another broker's", |site| site.write("state.b", 0, &filled().read("state.b", 0, 4096)), 4, 1),
    ];
    for (name, hurt, entries, warnings) in cases {
        let site = filled();
        hurt(&site);
        let (found, seen) = site.look(async |node| node.data(1).await);
        assert_eq!((found.entries, found.warnings.len()), (entries, warnings), "{name}: {found:?}");
        assert_eq!(seen.concat(), "abcdef", "{name}");
        site.run(async |node| {
            for data in ["g", "h"] {
                node.produce(1, &[data]).await.unwrap();
                node.checkpoint().await;
            }
        });
        let (found, seen) = site.look(async |node| node.data(1).await);
        assert_eq!((found.entries, found.warnings.len()), (0, 0), "{name}: both are written again");
        assert_eq!(seen.concat(), "abcdefgh", "{name}");
    }
}

fn truncate(site: &Site, name: &str, length: u64) {
    File::options().write(true).open(site.path(name)).unwrap().set_len(length).unwrap();
}

#[test]
fn without_any_generation_the_shard_refuses_and_nothing_is_read_as_zero() {
    type Hurt = fn(&Site, &str);
    let cases: [(&str, Hurt); 4] = [
        ("hurt", |site, name| site.flip(name, 100)),
        ("zeroed", |site, name| site.write(name, 0, &[0; 4096])),
        ("cut to nothing", |site, name| truncate(site, name, 0)),
        ("gone", |site, name| std::fs::remove_file(site.path(name)).unwrap()),
    ];
    for (name, hurt) in cases {
        let site = filled();
        ["state.a", "state.b"].into_iter().for_each(|file| hurt(&site, file));
        let segments = std::fs::read_dir(site.path("segments")).unwrap().count();
        let refused = site.start(false, async |_| ()).unwrap_err().to_string();
        assert!(refused.starts_with("position_damaged"), "{name}: {refused}");
        assert_eq!(std::fs::read_dir(site.path("segments")).unwrap().count(), segments, "{name}: nothing was removed");
    }
}
