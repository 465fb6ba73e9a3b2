//! `eddyline dev`: a broker to try things with. Everything it keeps is in a directory that goes away with it.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::failure::Failure;
use super::flags::Flags;
use super::{output, serve};
use crate::config::{self, Config, Sources};
use crate::server::Ready;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline dev                       then paste one of the lines it prints
  eddyline dev --listen 127.0.0.1:0  on a free port
  eddyline dev --data ./events       keep the events

Pages of localhost may call it, and producing creates groups.";

/// Run a throw-away broker on this machine, to try things with
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Dev {
    #[command(flatten)]
    flags: Flags,
}

/// What `dev` has instead of the broker's defaults. Temporary directories are small, so little is set aside.
fn base() -> Config {
    let mut config = Config { auto_create: true, ..Config::default() };
    config.http.cors = vec!["localhost".to_owned()];
    config.journal.file_bytes = 8 << 20;
    config.journal.files = 4;
    config.storage.reserve = 16 << 20;
    config
}

impl Dev {
    pub(super) fn run(self) -> Result<(), Failure> {
        let scratch = std::env::temp_dir().join(format!("eddyline-dev-{:016x}", fastrand::u64(..)));
        let loaded = serve::load(&Sources {
            base: base(),
            data: Some(scratch.clone()),
            file: None,
            variables: config::environment(),
            flags: self.flags.0,
        })?;
        let _scratch = if loaded.config.data == scratch { Some(Scratch::create(scratch)?) } else { None };
        serve::broker(loaded.config, |ready| {
            // Without a reader of the hints the broker is still of use.
            let _ = output::lines(&lines_to_paste(ready));
        })
    }
}

/// A directory that only this user may enter, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let refuse = |error: io::Error| {
            Failure::failed(format!("cannot make the temporary directory {}: {error}", path.display()))
                .hint("set TMPDIR to a directory that can be written, or name one with --data DIR")
        };
        // Not recursive: whatever is there already is not ours to remove.
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(refuse)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            output::say(&format!("cannot remove {}: {error}", self.0.display()));
        }
    }
}

/// Commands that produce and read, ready to paste into a shell, and a line for a page of localhost.
fn lines_to_paste(ready: &Ready) -> Vec<String> {
    let Some(address) = ready.listen.first() else {
        return Vec::new();
    };
    let events = format!("http://{address}/v1/groups/demo/events");
    vec![
        format!(r#"curl -H 'Content-Type: application/json' -d '{{"hello":"world"}}' {events}"#),
        format!("curl -N '{events}?from=earliest&live=ndjson'"),
        format!(
            r#"<script type="module">import {{ producer }} from 'http://{address}/producer.js'; producer('demo').send({{ hello: 'page' }})</script>"#
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_printed_lines_can_be_pasted() {
        let ready = Ready {
            listen: vec!["127.0.0.1:4437".parse().unwrap()],
            data: PathBuf::new(),
            facts: Vec::new(),
            warnings: Vec::new(),
            took: Duration::ZERO,
        };
        assert_eq!(
            lines_to_paste(&ready),
            [
                r#"curl -H 'Content-Type: application/json' -d '{"hello":"world"}' http://127.0.0.1:4437/v1/groups/demo/events"#,
                "curl -N 'http://127.0.0.1:4437/v1/groups/demo/events?from=earliest&live=ndjson'",
                "<script type=\"module\">import { producer } from 'http://127.0.0.1:4437/producer.js'; \
                 producer('demo').send({ hello: 'page' })</script>",
            ]
        );
    }

    #[test]
    fn the_base_of_dev_is_a_good_configuration() {
        let sources = Sources { base: base(), data: Some(PathBuf::from("/tmp/x")), ..Sources::default() };
        let config = config::load(&sources).unwrap().config;
        assert!(config.auto_create && config.listen[0].ip().is_loopback());
        assert_eq!((config.journal.file_bytes, config.journal.files), (8 << 20, 4));
        assert_eq!(config.http.cors, ["localhost"]);
    }

    #[test]
    fn the_scratch_directory_is_private_new_and_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("scratch");
        let scratch = Scratch::create(path.clone()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(Scratch::create(path.clone()).is_err(), "what is there already is left alone");
        std::fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
