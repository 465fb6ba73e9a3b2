//! Making a token while no broker runs: how the first one comes to be.
//!
//! It goes the way of any other change: shard 0 is recovered, the token becomes part of an entry of its journal, and a
//! checkpoint ends it, on a ring of its own. The directory's lock keeps brokers away meanwhile.

use super::core::shard_settings;
use super::{StartError, open_directory};
use crate::api::audit::told;
use crate::api::auth::now_us;
use crate::api::tokens::{NewToken, shape};
use crate::config::Config;
use crate::io::{ring, system};
use crate::shard::recover::{Recovered, recover};
use crate::shard::tokens::Issued;
use crate::shard::{Fault, Shard};
use crate::stats::Stats;
use serde_json::json;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Longest wait for the checkpoint at the end; without one the next start replays a little.
const CHECKPOINT_TIME: Duration = Duration::from_secs(10);

/// A token that was made, to be shown once.
pub struct Made {
    /// Its id.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Whether its data directory was made for it.
    pub new_directory: bool,
    /// What else should be told of the directory.
    pub warnings: Vec<String>,
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// What was asked for is no token.
    #[error("{0}")]
    Wanted(String),
    /// The directory cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Shard 0 did not take it.
    #[error("{0}")]
    Shard(#[from] Fault),
    /// There are as many as there may be.
    #[error("there are {0} tokens (limits.tokens)")]
    Full(usize),
}

/// Makes a token in the data directory of a broker that does not run. `wanted` is what `POST /v1/tokens` takes.
///
/// # Errors
/// Why there is none.
pub fn create_token(config: &Config, wanted: &[u8]) -> Result<Made, OfflineError> {
    let wanted = NewToken::parse(wanted, now_us()).map_err(|bad| OfflineError::Wanted(bad.detail.into_owned()))?;
    ring::probe().map_err(StartError::from)?;
    let (cpus, mask) = system::cpus().map_err(StartError::from)?;
    let directory = open_directory(config, if config.cores == 0 { cpus.len() } else { config.cores })?;
    let layout = &directory.layout;
    let stats = Stats::default().shard(0);
    let recovered = recover(layout, 0, shard_settings(config, layout, 0), None, &mask, stats);
    let (shard, Recovered { warnings, .. }) = recovered.map_err(StartError::from)?;
    let made = ring::run(add(shard, wanted, config.limits.tokens)).map_err(StartError::from)?;
    let (id, text) = made?;
    Ok(Made { id, text, new_directory: directory.new, warnings })
}

async fn add(shard: Rc<Shard>, wanted: NewToken, most: usize) -> Result<(String, String), OfflineError> {
    shard.start();
    let made = loop {
        let (token, secret) = wanted.make(now_us()).map_err(StartError::from)?;
        let (id, token) = (token.id, Arc::new(token));
        let audit = told("token.created", "command line", None, "local", json!({ "token": shape(&token) }));
        match shard.issue(token, most, &audit).await {
            Ok(Issued::Done) => break Ok((id.to_string(), secret.text(id))),
            Ok(Issued::Full) => break Err(OfflineError::Full(most)),
            Ok(Issued::Taken) => {}
            Err(fault) => break Err(fault.into()),
        }
    };
    shard.close().await;
    shard.final_checkpoint(Instant::now() + CHECKPOINT_TIME).await;
    made
}
