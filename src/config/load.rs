//! Reads the sources of a configuration in the order of what wins, last one strongest, and notes where each value
//! came from. Every mistake is collected before anything is refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, Problems, Spot};
use super::settings::{SETTINGS, Setting, nearest};
use super::value::Given;
use super::{Config, check};

/// Where values may come from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// What holds when nobody says otherwise.
    pub base: Config,
    /// The data directory when nobody names one; see [`super::default_data`].
    pub data: Option<PathBuf>,
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Variables whose names begin with `EDDYLINE_`.
    pub variables: Vec<(String, OsString)>,
    /// Flags: the key of the setting and the text.
    pub flags: Vec<(&'static str, String)>,
}

/// Where a value came from.
pub type Origin = Place;

/// A configuration, and where its values came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What to run with.
    pub config: Config,
    /// By key, the settings that somebody set.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// Variables of the command line, which set nothing here.
const CLIENT_VARIABLES: [&str; 5] =
    ["EDDYLINE_URL", "EDDYLINE_TOKEN", "EDDYLINE_TOKEN_FILE", "EDDYLINE_LOG", "EDDYLINE_CONFIG"];

/// The variables of this process that may set something.
#[must_use]
pub fn environment() -> Vec<(String, OsString)> {
    let mut variables: Vec<(String, OsString)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("EDDYLINE_"))
        .collect();
    variables.sort();
    variables
}

/// Reads all sources and checks the result.
///
/// # Errors
/// Everything that is wrong, in the order of the sources.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut reading =
        Reading { config: sources.base.clone(), origins: BTreeMap::new(), refused: Vec::new(), problems: Vec::new() };
    if let Some(path) = &sources.file {
        reading.file(path);
    }
    for (name, value) in &sources.variables {
        reading.variable(name, value);
    }
    for (key, text) in &sources.flags {
        let setting = SETTINGS.iter().find(|setting| setting.key == *key);
        let setting = setting.expect("flags are made from the list of settings");
        reading.set(setting, Given::Text(text), Place::Flag(setting.flag()));
    }
    reading.finish(sources)
}

struct Reading {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    /// Keys whose value could not be read, so that nothing can be concluded from what they hold.
    refused: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Reading {
    fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into() });
    }

    fn set(&mut self, setting: &Setting, given: Given<'_>, place: Place) {
        match (setting.at)(&mut self.config).read(given) {
            Ok(()) => {
                self.origins.insert(setting.key, place);
            }
            Err(message) => {
                self.refused.push(setting.key);
                self.problem(place, format!("{}: {message}", setting.key));
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let source = match std::fs::read_to_string(path) {
            Ok(source) => source,
            Err(error) => {
                self.problem(
                    Place::WholeFile(path.to_path_buf()),
                    format!("cannot read the configuration file: {error}"),
                );
                return;
            }
        };
        match DeTable::parse(&source) {
            Ok(table) => {
                let first = self.problems.len();
                self.table("", table.get_ref(), path, &source);
                // Tables come sorted by name; a person reads a file from the top.
                self.problems[first..].sort_by_key(|problem| match &problem.place {
                    Place::File(spot) => (spot.line, spot.column),
                    _ => (0, 0),
                });
            }
            Err(error) => {
                let spot = Spot::new(path, &source, error.span().unwrap_or_default());
                self.problem(Place::File(spot), format!("not TOML: {}", error.message()));
            }
        }
    }

    fn table(&mut self, table: &str, entries: &DeTable<'_>, path: &Path, source: &str) {
        let place = |range: Range<usize>| Place::File(Spot::new(path, source, range));
        for (name, value) in entries {
            let key = name.get_ref();
            let full = if table.is_empty() { key.to_string() } else { format!("{table}.{key}") };
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == full) {
                self.set(setting, Given::Toml(value.get_ref()), place(value.span()));
            } else if table.is_empty() && tables().any(|known| known == key) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.table(key, inner, path, source),
                    other => self.problem(
                        place(value.span()),
                        format!("{key}: expected a table [{key}], not a value of type {}", other.type_str()),
                    ),
                }
            } else {
                self.problem(place(name.span()), unknown_key(table, key));
            }
        }
    }

    fn variable(&mut self, name: &str, value: &OsString) {
        if CLIENT_VARIABLES.contains(&name) || is_service_link(name, value) {
            return;
        }
        let place = Place::Variable(name.to_owned());
        let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) else {
            let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
            let near = nearest(name, known.iter().map(String::as_str).chain(CLIENT_VARIABLES));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            self.problem(place, format!("no setting has this variable{hint}"));
            return;
        };
        match value.to_str() {
            Some(text) => self.set(setting, Given::Text(text), place),
            None => self.problem(place, "the value is not UTF-8"),
        }
    }

    fn finish(mut self, sources: &Sources) -> Result<Loaded, Problems> {
        if self.config.data.as_os_str().is_empty() {
            match &sources.data {
                Some(data) => self.config.data.clone_from(data),
                None => self.problem(
                    Place::Default,
                    "data: there is no home directory to keep it in; set `data`, for example --data /srv/eddyline",
                ),
            }
        }
        let ring = ["journal.file_bytes", "journal.files"];
        self.config.journal.fixed |= ring.iter().any(|key| self.origins.contains_key(key));
        for fault in check::faults(&self.config) {
            if fault.keys.iter().any(|key| self.refused.contains(key)) {
                continue;
            }
            // The value that somebody set last is the one to look at.
            let place = fault.keys.iter().find_map(|key| self.origins.get(key));
            let place = place.cloned().unwrap_or(Place::Default);
            self.problem(place, format!("{}: {}", fault.keys[0], fault.message));
        }
        if self.problems.is_empty() {
            Ok(Loaded { config: self.config, origins: self.origins })
        } else {
            Err(Problems(self.problems))
        }
    }
}

/// The tables of a file, each once a setting.
fn tables() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(Setting::table).filter(|table| !table.is_empty())
}

/// What to say of a key nobody knows: the key nearest in its table, or the table it belongs to.
fn unknown_key(table: &str, key: &str) -> String {
    let within = if table.is_empty() { "at the top".to_owned() } else { format!("in [{table}]") };
    let of_table = SETTINGS.iter().filter(|setting| setting.table() == table).map(Setting::name);
    let near = if table.is_empty() { nearest(key, of_table.chain(tables())) } else { nearest(key, of_table) };
    let elsewhere = SETTINGS.iter().find(|setting| setting.name() == key);
    let hint = match (near, elsewhere) {
        (Some(near), _) => format!("; did you mean `{near}`?"),
        (None, Some(setting)) if setting.table().is_empty() => {
            format!("; `{key}` belongs at the top, above all tables")
        }
        (None, Some(setting)) => format!("; `{key}` belongs in [{}]", setting.table()),
        (None, None) => String::new(),
    };
    format!("unknown key `{key}` {within}{hint}")
}

/// Kubernetes sets such variables in every container beside a service named `eddyline`; they are nobody's mistake.
fn is_service_link(name: &str, value: &OsString) -> bool {
    let rest = name.strip_prefix("EDDYLINE_").unwrap_or_default();
    rest == "SERVICE_HOST"
        || rest.starts_with("SERVICE_PORT")
        || rest.starts_with("PORT_")
        || (rest == "PORT" && value.to_string_lossy().contains("://"))
}
