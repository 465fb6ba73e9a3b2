//! A flag for every setting of the broker, made from the list of settings. `-h` shows the common ones, `--help` all.

use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Config, SETTINGS, Setting};

/// The settings given as flags: key and text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags(pub(super) Vec<(&'static str, String)>);

/// Flag and variable of each setting; clap wants names that live as long as the process.
static NAMES: LazyLock<Vec<(String, String)>> =
    LazyLock::new(|| SETTINGS.iter().map(|setting| (setting.flag(), setting.variable())).collect());

fn flag(setting: &Setting, (name, variable): &'static (String, String)) -> Arg {
    let mut defaults = Config::default();
    let value = (setting.at)(&mut defaults);
    let about = setting.about.replace('\n', " ");
    let default = setting.default_toml();
    let help = match default.trim_matches(['[', ']', '"']) {
        "" => format!("{about} [env: {variable}]"),
        default => format!("{about} [default: {default}] [env: {variable}]"),
    };
    let arg = Arg::new(setting.key)
        .long(name.as_str())
        .value_name(value.placeholder())
        .action(ArgAction::Set)
        .help(help)
        .help_heading("Settings")
        .hide_short_help(!setting.common);
    if value.is_switch() { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().zip(NAMES.iter()).map(|(setting, names)| flag(setting, names)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given =
            SETTINGS.iter().filter_map(|setting| Some((setting.key, matches.get_one::<String>(setting.key)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn parsed(line: &[&str]) -> Result<Vec<(&'static str, String)>, clap::Error> {
        let command = Flags::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(line)?;
        Ok(Flags::from_arg_matches(&matches)?.0)
    }

    #[test]
    fn every_setting_has_its_flag() {
        for setting in SETTINGS {
            let given = parsed(&[&format!("--{}=1", setting.flag())]).unwrap();
            assert_eq!(given, [(setting.key, "1".to_owned())]);
        }
        assert!(parsed(&[]).unwrap().is_empty(), "a flag that is not given sets nothing");
    }

    #[test]
    fn switches_need_no_value() {
        type Row = (&'static [&'static str], &'static [(&'static str, &'static str)]);
        let table: &[Row] = &[
            (&["--auto-create"], &[("auto_create", "true")]),
            (&["--auto-create=false"], &[("auto_create", "false")]),
            (&["--insecure-no-auth", "--cores", "2"], &[("cores", "2"), ("insecure_no_auth", "true")]),
        ];
        for (line, expected) in table {
            let given = parsed(line).unwrap();
            let given: Vec<(&str, &str)> = given.iter().map(|(key, text)| (*key, text.as_str())).collect();
            assert_eq!(&given, expected, "{line:?}");
        }
        assert!(parsed(&["--cores"]).is_err(), "others do");
    }
}
