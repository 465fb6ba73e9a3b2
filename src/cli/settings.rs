//! `eddyline config`: the configuration file, made, checked and shown.

use std::io::Write;
use std::path::PathBuf;

use super::failure::Failure;
use super::output;
use super::serve::Given;
use crate::config::Config;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline config init /etc/eddyline.toml       a file with every setting and its default
  eddyline config check -c /etc/eddyline.toml   before a restart
  eddyline config show -c /etc/eddyline.toml    what would be in force, and who set it";

/// Make, check or show the broker's configuration
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Settings {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a file with every setting and its default, to stdout or to FILE
    #[command(after_help = "EXAMPLES\n  eddyline config init\n  eddyline config init /etc/eddyline.toml")]
    Init {
        /// File to make; it must not be there yet
        file: Option<PathBuf>,
    },
    /// Say what is wrong with file, variables and flags together; exit code 2 if anything is
    #[command(after_help = "EXAMPLES\n  eddyline config check -c /etc/eddyline.toml")]
    Check(Given),
    /// Print what would be in force as TOML, and behind each value who set it
    #[command(after_help = "EXAMPLES\n  eddyline config show -c /etc/eddyline.toml --cores 2")]
    Show(Given),
}

impl Settings {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Init { file: None } => output::whole(&Config::example_toml()),
            Action::Init { file: Some(file) } => init(&file),
            Action::Check(given) => {
                given.load()?;
                output::say("the configuration is good");
                Ok(())
            }
            Action::Show(given) => output::whole(&given.load()?.to_toml()),
        }
    }
}

fn init(file: &PathBuf) -> Result<(), Failure> {
    let refuse = |error| Failure::failed(format!("cannot make {}: {error}", file.display()));
    let mut made = std::fs::OpenOptions::new().write(true).create_new(true).open(file).map_err(refuse)?;
    made.write_all(Config::example_toml().as_bytes()).map_err(refuse)?;
    output::say(&format!("wrote {}; use it with `eddyline serve -c {}`", file.display(), file.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_makes_a_file_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("eddyline.toml");
        init(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), Config::example_toml());
        std::fs::write(&file, "cores = 1").unwrap();
        assert!(init(&file).unwrap_err().message.contains("File exists"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "cores = 1");
    }
}
