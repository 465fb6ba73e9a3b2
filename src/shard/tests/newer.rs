//! What only a newer version understands is refused by name: path, what was found, what is known. It is never counted as
//! torn or damaged, and a refusal changes nothing.

use super::*;
use crate::log::entry::ENTRY_HEADER_BYTES;

/// Entry 1 makes the group; entries 2 to 4 hold an event each. The newer state, in `state.a`, holds entries up to 2.
const LAST: u64 = 4;

fn filled() -> Site {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        node.produce(group, &["a"]).await.unwrap();
        node.checkpoint().await;
        for data in ["b", "c"] {
            node.produce(group, &[data]).await.unwrap();
        }
    });
    assert_eq!((site.entries().len() as u64, site.generations()[0].index), (LAST, 2));
    site
}

/// Writes the checksum of `bytes[..end]`, seeded with `seed`, behind them.
fn seal(bytes: &mut [u8], end: usize, seed: &[u8]) {
    let crc = crc32fast::hash(&[seed, &bytes[..end]].concat());
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}

impl Site {
    /// Changes the header of an entry, and makes its checksum right again.
    pub(super) fn change_entry(&self, index: u64, change: impl FnOnce(&mut [u8])) {
        let (file, position) = Self::place(self.entry(index).address);
        let mut header = self.read(&file, position, ENTRY_HEADER_BYTES);
        change(&mut header);
        seal(&mut header, ENTRY_HEADER_BYTES - 4, &self.owner().cluster.to_be_bytes());
        self.write(&file, position, &header);
    }

    /// Changes the one part of an entry, and makes the entry's checksums right again.
    fn change_part(&self, index: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let (file, position) = Self::place(self.entry(index).address);
        let mut entry = self.entry_bytes(index);
        let end = ENTRY_HEADER_BYTES + self.entry(index).parts_bytes as usize;
        let mut parts = entry[ENTRY_HEADER_BYTES..end].to_vec();
        change(&mut parts);
        entry[ENTRY_HEADER_BYTES..end].copy_from_slice(&parts);
        entry[56..60].copy_from_slice(&crc32fast::hash(&parts).to_le_bytes());
        seal(&mut entry, ENTRY_HEADER_BYTES - 4, &self.owner().cluster.to_be_bytes());
        self.write(&file, position, &entry);
    }

    /// Changes the header of the frame that an entry holds.
    fn change_frame(&self, index: u64, change: impl FnOnce(&mut [u8])) {
        self.change_part(index, |part| {
            change(&mut part[8..]);
            seal(&mut part[8..], 60, &[]);
        });
    }

    /// Changes a file header, and what is checked together with it.
    fn change_file_header(&self, name: &str, change: impl FnOnce(&mut [u8])) {
        let mut header = self.read(name, 0, 128);
        change(&mut header);
        seal(&mut header, 60, &[]);
        if name.starts_with("state") {
            seal(&mut header, 124, &[]);
        }
        self.write(name, 0, &header);
    }

    /// Changes the first record of the newer state.
    fn change_record(&self, change: impl FnOnce(&mut [u8])) {
        let mut state = std::fs::read(self.path("state.a")).unwrap();
        let length = u64::from_le_bytes(state[112..120].try_into().unwrap()) as usize;
        change(&mut state[128..]);
        let crc = crc32fast::hash(&state[128..128 + length]);
        state[108..112].copy_from_slice(&crc.to_le_bytes());
        seal(&mut state, 124, &[]);
        self.write("state.a", 0, &state);
    }
}

type Change = fn(&Site);

/// What is changed, the file that is named, and what is said of it.
const NEWER: [(&str, Change, &str, &str); 15] = [
    ("the last entry", |site| site.change_entry(LAST, |entry| entry[4] = 2), "000.journal", "entry of version 2"),
    ("an entry in the middle", |site| site.change_entry(3, |entry| entry[4] = 2), "000.journal", "knows version 1"),
    (
        "an entry's feature",
        |site| site.change_entry(LAST, |entry| entry[6] = 4),
        "000.journal",
        "entry of version 1 with features 0x0004",
    ),
    ("an entry's kind", |site| site.change_entry(LAST, |entry| entry[5] = 9), "000.journal", "entry of kind 9"),
    (
        "an entry behind a damaged one",
        |site| {
            site.change_entry(LAST, |entry| entry[4] = 2);
            site.zero_entry(3);
        },
        "000.journal",
        "entry of version 2",
    ),
    ("a part's kind", |site| site.change_part(LAST, |part| part[0] = 99), "000.journal", "part of an entry of kind 99"),
    ("a frame", |site| site.change_frame(LAST, |frame| frame[4] = 2), "000.journal", "a frame of version 2"),
    (
        "a frame's feature",
        |site| site.change_frame(LAST, |frame| frame[6] = 0x80),
        "000.journal",
        "a frame of version 1 with features 0x0080",
    ),
    (
        "a frame's compression",
        |site| site.change_frame(LAST, |frame| frame[5] = 1),
        "000.journal",
        "a frame's compression of kind 1",
    ),
    (
        "the header of a journal file",
        |site| site.change_file_header("journal/002.journal", |header| header[4] = 2),
        "002.journal",
        "a file of version 2",
    ),
    (
        "the newer state",
        |site| site.change_file_header("state.a", |header| header[68] = 2),
        "state.a",
        "a state of version 2; this version of Eddyline knows version 1",
    ),
    (
        "the newer state's file",
        |site| site.change_file_header("state.a", |header| header[6] = 1),
        "state.a",
        "a file of version 1 with features 0x0001",
    ),
    (
        "the older state",
        |site| site.change_file_header("state.b", |header| header[68] = 7),
        "state.b",
        "a state of version 7",
    ),
    ("a record", |site| site.change_record(|record| record[0] = 99), "state.a", "a record of the state of kind 99"),
    (
        "a file's kind",
        |site| site.change_file_header("state.a", |header| header[5] = 12),
        "state.a",
        "a file of kind 12",
    ),
];

#[test]
fn what_only_a_newer_version_understands_is_refused_by_name() {
    for (name, change, file, found) in NEWER {
        let site = filled();
        let before = site.copy();
        change(&site);
        for _ in 0..2 {
            let refused = site.start(true, async |_| ()).unwrap_err().to_string();
            assert!(refused.contains(file) && refused.contains(found), "{name}: {refused}");
            assert!(refused.contains("start the newer version") && !refused.contains('\n'), "{name}: {refused}");
        }
        for file in ["state.a", "state.b"] {
            site.write(file, 0, &std::fs::read(before.path(file)).unwrap());
        }
        for slot in 0..RING.files {
            site.write(&journal_file(slot), 0, &std::fs::read(before.path(&journal_file(slot))).unwrap());
        }
        let (found, seen) = site.look(async |node| node.data(1).await);
        assert_eq!((seen.concat().as_str(), found.warnings.len()), ("abc", 0), "{name}: the refusal changed nothing");
    }
}

#[test]
fn a_newer_thing_that_does_not_count_stops_no_start() {
    let cases: [(&str, Change, &str); 4] = [
        (
            "its checksum is wrong",
            |site| {
                let (file, position) = Site::place(site.entry(LAST).address);
                site.write(&file, position + 4, &[2]);
            },
            "ab",
        ),
        (
            "it stands at another address",
            |site| {
                let (file, position) = Site::place(site.entry(LAST).address + BLOCK);
                let mut entry = site.entry_bytes(LAST);
                entry[4] = 2;
                seal(&mut entry, ENTRY_HEADER_BYTES - 4, &site.owner().cluster.to_be_bytes());
                site.write(&file, position, &entry);
            },
            "abc",
        ),
        ("it is contained in the state already", |site| site.change_entry(2, |entry| entry[4] = 2), "abc"),
        ("its feature may be passed over", |site| site.change_entry(LAST, |entry| entry[7] = 0x40), "abc"),
    ];
    for (name, change, remain) in cases {
        let site = filled();
        change(&site);
        let (_, seen) = site.look(async |node| node.data(1).await);
        assert_eq!(seen.concat(), remain, "{name}");
    }
}
