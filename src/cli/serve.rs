//! `eddyline serve` and the part it shares with `dev`: from sources to a configuration, to a running broker.

use std::path::PathBuf;

use super::failure::Failure;
use super::flags::Flags;
use super::{logging, startup};
use crate::config::{self, Config, Loaded, Sources};
use crate::server::{self, Ready, Start};

const EXAMPLES: &str = "\
EXAMPLES
  eddyline serve                                    on 127.0.0.1:4437, data in the default directory
  eddyline serve -c /etc/eddyline.toml
  eddyline serve --data /srv/eddyline --cores 2 --log-format json
  EDDYLINE_LISTEN=127.0.0.1:8000 eddyline serve

A flag wins over its EDDYLINE_… variable, that over the file, that over the default.
`eddyline config init` prints a file with every setting; --help lists all flags.";

/// Run the broker
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    #[command(flatten)]
    given: Given,
}

/// A configuration file and flags over it.
#[derive(Debug, clap::Args)]
pub(super) struct Given {
    /// Configuration file (TOML)
    #[arg(short = 'c', long = "config", env = "EDDYLINE_CONFIG", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl Given {
    /// What the broker would run with.
    pub(super) fn load(self) -> Result<Loaded, Failure> {
        load(&Sources {
            base: Config::default(),
            data: default_data(),
            // An empty variable names no file.
            file: self.file.filter(|file| !file.as_os_str().is_empty()),
            variables: config::environment(),
            flags: self.flags.0,
        })
    }
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        broker(self.given.load()?.config, |_| {})
    }
}

/// The data directory of this user when nobody names one.
pub(super) fn default_data() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let root = rustix::process::geteuid().is_root();
    config::default_data(root, variable("XDG_DATA_HOME").as_deref(), variable("HOME").as_deref())
}

/// Loads a configuration; what is wrong with it becomes one failure.
pub(super) fn load(sources: &Sources) -> Result<Loaded, Failure> {
    config::load(sources).map_err(|problems| {
        Failure::usage(format!("the configuration cannot be used\n{problems}"))
            .hint("`eddyline config init` prints a file with every setting, `eddyline serve --help` every flag")
    })
}

/// Runs a broker until it is told to end. `also` is done when it is ready, after that was announced.
pub(super) fn broker(config: Config, also: impl FnOnce(&Ready) + Send + 'static) -> Result<(), Failure> {
    let style = logging::start(&config.log)?;
    let on_ready = Box::new(move |ready: &Ready| {
        startup::announce(ready, style);
        also(ready);
    });
    server::run(config, Start { on_ready }).map_err(|error| Failure::failed(error.to_string()))
}
