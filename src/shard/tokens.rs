//! Making and revoking tokens: shard 0 owns the table, each by one entry of its journal.

use super::peers::Shards;
use super::{Fault, Shard};
use crate::auth::directory::Directory;
use crate::auth::secret::TokenId;
use crate::auth::token::{Token, Tokens};
use crate::log::entry::PartKind;
use std::rc::Rc;
use std::sync::Arc;

/// What became of a request to make a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// It is in force.
    Done,
    /// There are as many as there may be.
    Full,
    /// Another one has that id.
    Taken,
}

impl Shard {
    /// Adds a token to the table (shard 0), with what is to be told of it. Durable when it returns.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn issue(&self, token: Arc<Token>, most: usize, audit: &[u8]) -> Result<Issued, Fault> {
        let entry = {
            let state = &mut *self.state.borrow_mut();
            if state.tokens.len() >= most {
                return Ok(Issued::Full);
            }
            if state.tokens.contains_key(&token.id) {
                return Ok(Issued::Taken);
            }
            let mut part = Vec::new();
            token.encode(&mut part);
            state.takes_change(part.len(), Some(audit), self.entry_bytes_max)?;
            state.tokens_mut().insert(token.id, token);
            state.add_part(PartKind::TokenCreated, part);
            self.add_audit(state, audit)
        };
        self.commit_turn.notify_one();
        self.durable(entry).await?;
        Ok(Issued::Done)
    }

    /// Takes a token out of the table (shard 0); false if it is not there. Durable when it returns.
    async fn revoke(&self, id: TokenId, audit: &[u8]) -> Result<bool, Fault> {
        let (found, entry) = {
            let state = &mut *self.state.borrow_mut();
            if state.tokens.contains_key(&id) {
                let part = id.0.to_le_bytes().to_vec();
                state.takes_change(part.len(), Some(audit), self.entry_bytes_max)?;
                state.tokens_mut().remove(&id);
                state.add_part(PartKind::TokenRevoked, part);
                (true, self.add_audit(state, audit))
            } else {
                // Whoever revoked it may still be waiting for the disk.
                (false, state.newest_change())
            }
        };
        self.commit_turn.notify_one();
        self.durable(entry).await?;
        Ok(found)
    }

    /// The table (shard 0).
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        self.state.borrow().tokens.clone()
    }
}

impl Shards {
    /// Makes a token. Durable and in force on all cores when it returns.
    ///
    /// # Errors
    /// Why shard 0 did not do it.
    pub async fn issue_token(
        &self,
        directory: &Directory,
        token: Token,
        most: usize,
        audit: Vec<u8>,
    ) -> Result<Issued, Fault> {
        let token = Arc::new(token);
        let added = Arc::clone(&token);
        let issue = move |shard: Rc<Shard>| -> super::peers::Work<_> {
            Box::pin(async move { shard.issue(added, most, &audit).await })
        };
        let issued = self.on(0, issue).await?;
        if issued == Issued::Done {
            directory.publish(token);
        }
        Ok(issued)
    }

    /// Revokes a token; false if there is none of that id. Durable and out of force when it returns.
    ///
    /// # Errors
    /// Why shard 0 did not do it.
    pub async fn revoke_token(&self, directory: &Directory, id: TokenId, audit: Vec<u8>) -> Result<bool, Fault> {
        let revoke = move |shard: Rc<Shard>| -> super::peers::Work<_> {
            Box::pin(async move { shard.revoke(id, &audit).await })
        };
        let found = self.on(0, revoke).await?;
        directory.withdraw(id);
        Ok(found)
    }
}
