//! Writes configurations: the example file with every default, and what is in force with where it came from.

use super::Config;
use super::load::Loaded;
use super::settings::SETTINGS;

impl Config {
    /// A file with every setting, its meaning and its default, all of them commented out.
    #[must_use]
    pub fn example_toml() -> String {
        let mut text = String::from(
            "# Eddyline. Every setting with its default; take the # away from those you change.\n\
             # A variable wins over this file, a flag over both: journal.file_bytes is also\n\
             # EDDYLINE_JOURNAL_FILE_BYTES and --journal-file-bytes.\n",
        );
        let mut table = "";
        for setting in SETTINGS {
            if setting.table() != table {
                table = setting.table();
                text.push_str(&format!("\n[{table}]\n"));
            } else if table.is_empty() {
                text.push('\n');
            }
            for line in setting.about.lines() {
                text.push_str(&format!("# {line}\n"));
            }
            text.push_str(&format!("#{} = {}\n", setting.name(), setting.default_toml()));
        }
        text
    }
}

impl Loaded {
    /// Everything in force as a TOML file; behind each value that is not a default stands its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for setting in SETTINGS {
            if setting.table() != table {
                table = setting.table();
                text.push_str(&format!("\n[{table}]\n"));
            }
            let line = format!("{} = {}", setting.name(), setting.toml(&self.config));
            match self.origins.get(setting.key) {
                Some(origin) => text.push_str(&format!("{line:<40} # {origin}\n")),
                None => text.push_str(&format!("{line}\n")),
            }
        }
        text
    }
}
