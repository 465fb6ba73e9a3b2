//! Tokens and the audit log over a start: what was answered holds, and every change is told once.

use super::*;
use crate::auth::secret::{Secret, TokenId};
use crate::auth::token::{Token, Tokens};
use crate::auth::{Scope, directory};
use crate::limits::AUDIT_PENDING_BYTES_MAX;
use crate::shard::audit::AUDIT_GROUP;
use crate::shard::outbox::{AuditEvent, Outbox};
use crate::shard::tokens::Issued;

fn token(id: u64) -> Token {
    Token {
        id: TokenId(id),
        digest: Secret::new().unwrap().digest(),
        scopes: [Scope::Produce, Scope::Query].into_iter().collect(),
        groups: ["orders", "web-*"].map(Box::from).into(),
        expires_us: Some(id),
        origins: ["https://a.example"].map(Box::from).into(),
        rate: Some(5),
        consumer: None,
        name: Some("the till".into()),
        created_us: 7,
    }
}

impl Node {
    async fn issue(&self, token: &Token, most: usize) -> Result<Issued, Fault> {
        let audit = format!("{{\"made\":\"{}\"}}", token.id).into_bytes();
        self.shards.issue_token(&self.tokens, token.clone(), most, audit).await
    }

    async fn revoke(&self, id: u64) -> Result<bool, Fault> {
        let audit = format!("{{\"revoked\":\"{}\"}}", TokenId(id)).into_bytes();
        self.shards.revoke_token(&self.tokens, TokenId(id), audit).await
    }

    /// Brings to the log what waits, as the task of a running broker does.
    async fn tell(&self) {
        let events = self.shard.untold().await;
        let group = self.shard.audit_group(&self.directory).await.unwrap();
        self.shard.store_audit(group, 0, &events).await.unwrap();
        self.shard.told(events.last().unwrap().seq);
    }

    fn waiting(&self) -> Vec<String> {
        let events = self.shard.state.borrow().outbox.batch(u64::MAX, usize::MAX);
        texts(&events)
    }

    /// What stands in the log.
    async fn log(&self) -> Vec<String> {
        let number =
            self.shard.table_groups().iter().find(|group| &*group.name == AUDIT_GROUP).map(|group| group.number);
        match number {
            Some(number) => self.data(number).await,
            None => Vec::new(),
        }
    }
}

fn texts(events: &[AuditEvent]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8(event.json.to_vec()).unwrap()).collect()
}

fn table(tokens: &[&Token]) -> Tokens {
    tokens.iter().map(|token| (token.id, Arc::new((*token).clone()))).collect()
}

#[test]
fn tokens_and_revocations_survive() {
    for checkpoint in [false, true] {
        let site = Site::new();
        let made = [token(1), token(2), token(3)];
        let kept = [made[0].clone(), made[2].clone()];
        site.run(async move |node| {
            for token in &made {
                assert_eq!(node.issue(token, 3).await, Ok(Issued::Done));
                assert!(node.tokens.get(token.id).is_some(), "in force when it is answered");
            }
            assert_eq!(node.issue(&made[0], 9).await, Ok(Issued::Taken));
            assert_eq!(node.issue(&token(4), 3).await, Ok(Issued::Full));
            if checkpoint {
                node.checkpoint().await;
            }
            assert_eq!((node.revoke(2).await, node.revoke(2).await), (Ok(true), Ok(false)));
            assert!(node.tokens.get(TokenId(2)).is_none(), "out of force when it is answered");
            if checkpoint {
                node.checkpoint().await;
            }
        });
        let (_, found) = site.look(async |node| node.shard.tokens());
        assert_eq!(found, table(&[&kept[0], &kept[1]]), "{checkpoint}");
    }
}

#[test]
fn a_change_and_what_is_told_of_it_are_one_entry() {
    let site = Site::new();
    site.run(async |node| {
        node.issue(&token(1), 9).await.unwrap();
        node.revoke(1).await.unwrap();
        let wanted = |name: &str| NewGroup {
            name: name.into(),
            config: GroupConfig::default(),
            shard: None,
            most: 9,
            audit: Some(b"{\"group\":\"made\"}".to_vec()),
        };
        let group = node.shards.create_group(&node.directory, wanted("orders")).await.unwrap().unwrap().into_group();
        node.shards.create_group(&node.directory, wanted("orders")).await.unwrap().unwrap();
        let entry = crate::shard::directory::Entry { table: group.clone(), config: GroupConfig::default() };
        let told = || Some(b"{\"group\":\"changed\"}".to_vec());
        node.shards.configure_group(&node.directory, &entry, small_segments(), told()).await.unwrap();
        node.shards.remove_group(&node.directory, &group, told()).await.unwrap();
    });
    let kinds = |index| site.parts(index).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    let expected = [
        vec![PartKind::TokenCreated, PartKind::Audit],
        vec![PartKind::TokenRevoked, PartKind::Audit],
        vec![PartKind::GroupRegistered, PartKind::Audit],
        // Asking for a group that is there changes nothing and tells nothing.
        vec![PartKind::GroupConfigured, PartKind::Audit],
        vec![PartKind::GroupClosed, PartKind::Audit],
        vec![PartKind::GroupRemoved],
    ];
    assert_eq!((1..=6).map(kinds).collect::<Vec<_>>(), expected);
}

#[test]
fn whatever_moment_a_crash_picks_every_change_is_told_once() {
    for checkpoint in [false, true] {
        let site = Site::new();
        let note = move |node: &Node| {
            if checkpoint {
                node.shard.want_checkpoint();
            }
        };
        // Durable, and nothing told.
        site.run(async move |node| {
            node.issue(&token(1), 9).await.unwrap();
            node.issue(&token(2), 9).await.unwrap();
            note(node);
        });
        // The log is made, and has nothing yet.
        let (_, waiting) = site.run(async move |node| {
            node.shard.audit_group(&node.directory).await.unwrap();
            note(node);
            node.waiting()
        });
        assert_eq!(waiting, ["{\"made\":\"0000000000000001\"}", "{\"made\":\"0000000000000002\"}"], "{checkpoint}");
        // Told; the next change is not.
        site.run(async move |node| {
            node.tell().await;
            assert!(node.waiting().is_empty());
            node.revoke(1).await.unwrap();
            note(node);
        });
        let (_, (log, waiting)) = site.run(async move |node| (node.log().await, node.waiting()));
        assert_eq!((log.len(), waiting.len()), (2, 1), "{checkpoint}");
        site.run(async |node| node.tell().await);
        let (_, (log, waiting)) = site.look(async |node| (node.log().await, node.waiting()));
        assert!(waiting.is_empty(), "{checkpoint}");
        assert_eq!(
            log,
            [
                "{\"made\":\"0000000000000001\"}",
                "{\"made\":\"0000000000000002\"}",
                "{\"revoked\":\"0000000000000001\"}"
            ],
            "{checkpoint}"
        );
    }
}

#[test]
fn what_another_shard_brings_twice_is_stored_once() {
    for checkpoint in [false, true] {
        let site = Site::new();
        let mut other = Outbox::default();
        for (json, now_us) in [(&b"\"a\""[..], 5), (b"\"b\"", 5), (b"\"c\"", 9)] {
            other.add(json, 0, now_us);
        }
        let events = other.batch(0, usize::MAX);
        let (first, all) = (events[..2].to_vec(), events);
        site.run(async move |node| {
            let group = node.shard.audit_group(&node.directory).await.unwrap();
            node.shard.store_audit(group, 7, &first).await.unwrap();
            if checkpoint {
                node.checkpoint().await;
            }
        });
        let again = all.clone();
        site.run(async move |node| {
            let group = node.shard.audit_group(&node.directory).await.unwrap();
            node.shard.store_audit(group, 7, &again).await.unwrap();
            node.shard.store_audit(group, 7, &again).await.unwrap();
            // The same numbers of another shard are other events.
            node.shard.store_audit(group, 8, &again[..1]).await.unwrap();
        });
        let (_, log) = site.look(async |node| node.log().await);
        assert_eq!(log, ["\"a\"", "\"b\"", "\"c\"", "\"a\""], "{checkpoint}");
    }
}

#[test]
fn a_change_while_a_checkpoint_is_taken_is_not_part_of_it() {
    let site = Site::new();
    site.run(async |node| {
        node.issue(&token(1), 9).await.unwrap();
        let begun = node.shard.state.borrow().durable_index;
        // It begins here and has not looked at anything yet.
        node.shard.want_checkpoint();
        let changes = async {
            node.issue(&token(2), 9).await.unwrap();
            node.revoke(1).await.unwrap();
            node.tell().await;
        };
        changes.await;
        while node.shard.state.borrow().checkpoint.index < begun {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let (found, (tokens, log, waiting)) =
        site.look(async |node| (node.shard.tokens(), node.log().await, node.waiting()));
    assert!(found.entries > 0, "the changes are replayed over the checkpoint");
    assert_eq!(tokens.keys().map(|id| id.0).collect::<Vec<_>>(), [2]);
    assert_eq!((log.len(), waiting.len()), (3, 0));
}

#[test]
fn with_too_much_to_tell_nothing_is_changed() {
    let site = Site::new();
    site.run(async |node| {
        let long = vec![b'x'; 20_000];
        // The ring of these tests is small, so that some have to come again.
        while node.shard.state.borrow().outbox.waiting_bytes() + long.len() <= AUDIT_PENDING_BYTES_MAX {
            if node.shard.tell(&long).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        node.checkpoint().await;
        let refused = node.shards.issue_token(&node.tokens, token(1), 9, long).await;
        assert_eq!(refused, Err(Fault::Overloaded));
        assert!(node.shard.tokens().is_empty());
        while node.issue(&token(1), 9).await == Err(Fault::Overloaded) {
            node.tell().await;
        }
        assert_eq!(node.shard.tokens().len(), 1, "there is room again");
    });
}

#[test]
fn a_core_that_starts_knows_the_tokens() {
    let site = Site::new();
    let secret = Secret::new().unwrap();
    let (text, digest) = (secret.text(TokenId(9)), secret.digest());
    site.run(async move |node| node.issue(&Token { digest, ..token(9) }, 9).await.unwrap());
    site.look(async move |node| {
        let tokens = Arc::new(directory::Directory::default());
        node.shard.tokens().into_values().for_each(|token| tokens.publish(token));
        assert!(directory::Lookup::new(tokens).find(text.as_bytes()).is_some());
    });
}
