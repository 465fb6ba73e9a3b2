//! What the broker says on stderr: one line an event, as text on a terminal and as JSON elsewhere. An event carries
//! all it needs in its own fields; spans are not printed. Control characters never reach a terminal or begin a line.

use std::fmt;
use std::io::IsTerminal;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{self as subscriber, FmtContext};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use super::escape::one_line;
use super::failure::Failure;
use crate::config::{Log, LogFormat};

/// Variable with filters by module, such as `info,eddyline::shard=debug`; it takes the place of `log.level`.
const FILTER_VARIABLE: &str = "EDDYLINE_LOG";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For a person.
    Text,
    /// For a machine.
    Json,
}

impl Style {
    /// The style that `format` asks for when stderr is a terminal or not.
    fn of(format: LogFormat, terminal: bool) -> Self {
        match format {
            LogFormat::Auto if terminal => Self::Text,
            LogFormat::Text => Self::Text,
            LogFormat::Auto | LogFormat::Json => Self::Json,
        }
    }
}

/// Starts logging to stderr for the rest of the process.
///
/// # Errors
/// When the filter variable cannot be understood.
pub(super) fn start(log: &Log) -> Result<Style, Failure> {
    let filters = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = filter(filters.as_deref(), log)?;
    let style = Style::of(log.format, std::io::stderr().is_terminal());
    let layer = subscriber::layer().with_writer(std::io::stderr).event_format(Lines(style));
    // A subscriber that is there already belongs to whoever uses this as a library; it is kept.
    let _ = Registry::default().with(filter).with(layer).try_init();
    Ok(style)
}

fn filter(filters: Option<&str>, log: &Log) -> Result<EnvFilter, Failure> {
    let text = filters.unwrap_or(log.level.name());
    EnvFilter::try_new(text).map_err(|error| {
        Failure::usage(format!("{FILTER_VARIABLE}: `{text}` is not a log filter: {error}"))
            .hint("expected for example `debug` or `info,eddyline::shard=debug`")
    })
}

/// The moment of a log line, with always six decimals.
pub(super) fn timestamp() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// Names and values of one event, in the order they were given.
pub(super) type FieldList = Vec<(String, Value)>;

struct Lines(Style);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        match self.0 {
            Style::Text => writeln!(writer, "{}", text_line(&timestamp(), level, &fields.0)),
            Style::Json => writeln!(writer, "{}", json_line(&timestamp(), level, target, &fields.0)),
        }
    }
}

fn text_line(timestamp: &str, level: &str, fields: &FieldList) -> String {
    let mut line = format!("{timestamp} {level:>5}");
    if let Some((_, Value::String(message))) = fields.iter().find(|(name, _)| name == "message") {
        line.push(' ');
        line.push_str(&one_line(message));
    }
    for (name, value) in fields.iter().filter(|(name, _)| name != "message") {
        line.push_str(&match value {
            Value::String(text) if is_plain(text) => format!(" {name}={text}"),
            Value::String(text) => format!(" {name}=\"{}\"", one_line(&text.replace('"', "\\\""))),
            other => format!(" {name}={other}"),
        });
    }
    line
}

/// Whether a value can stand in a line without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '"' && c != '=')
}

/// One event as a JSON object on a line; timestamp, level and target are never replaced by fields of those names.
pub(super) fn json_line(timestamp: &str, level: &str, target: &str, fields: &FieldList) -> String {
    const OWN: [&str; 3] = ["timestamp", "level", "target"];
    let own = OWN.into_iter().zip([timestamp, level, target].map(Value::from));
    let given = fields.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    let entries: Vec<String> = own
        .map(|(name, value)| format!("{}:{value}", Value::from(name)))
        .chain(given.map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))))
        .collect();
    // JSON escapes C0 controls only; the others would still reach a terminal.
    let mut line = String::from("{");
    for c in entries.join(",").chars() {
        if c.is_control() {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line.push('}');
    line
}

/// The fields of one event.
struct Fields(FieldList);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name().to_owned(), value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, LogLevel};
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `say` logs in `style`, without the timestamp of text lines.
    fn logged(style: Style, say: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = subscriber::layer().with_writer(move || writer.clone()).event_format(Lines(style));
        let filter = filter(None, &Config::default().log).unwrap();
        tracing::subscriber::with_default(Registry::default().with(filter).with(layer), say);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_text_line_stays_one_line_whatever_is_in_it() {
        let text = logged(Style::Text, || {
            tracing::warn!(group = "a\nb\u{1b}[31m", peer = "127.0.0.1:5", n = 3, said = "a \"b\"", "bad\u{9b} \nname");
            tracing::debug!("not at this level");
        });
        let (moment, rest) = text.split_at(27);
        assert!(moment.parse::<jiff::Timestamp>().is_ok(), "{moment}");
        assert_eq!(
            rest,
            "  WARN bad\\u{9b} \\nname group=\"a\\nb\\u{1b}[31m\" peer=127.0.0.1:5 n=3 said=\"a \\\"b\\\"\"\n"
        );
    }

    #[test]
    fn a_json_line_is_an_object_without_control_characters() {
        let text = logged(Style::Json, || {
            tracing::info!(level = "forged", group = "a\n\u{1b}\u{9b}\u{7f}", ok = true, "ready");
        });
        assert!(text.trim_end_matches('\n').chars().all(|c| !c.is_control()), "{text:?}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "ready");
        assert_eq!(line["group"], "a\n\u{1b}\u{9b}\u{7f}");
        assert_eq!(line["ok"], true);
    }

    #[test]
    fn the_style_follows_the_setting_and_then_the_terminal() {
        let table = [
            (LogFormat::Auto, true, Style::Text),
            (LogFormat::Auto, false, Style::Json),
            (LogFormat::Text, false, Style::Text),
            (LogFormat::Json, true, Style::Json),
        ];
        for (format, terminal, style) in table {
            assert_eq!(Style::of(format, terminal), style, "{format:?} {terminal}");
        }
    }

    #[test]
    fn the_variable_takes_the_place_of_the_level() {
        let log = Log { format: LogFormat::Auto, level: LogLevel::Warn };
        assert_eq!(filter(None, &log).unwrap().to_string(), "warn");
        let finer = filter(Some("info,eddyline::shard=debug"), &log).unwrap().to_string();
        assert!(finer.contains("eddyline::shard=debug") && finer.contains("info"), "{finer}");
        let failure = filter(Some("eddyline=loud"), &log).unwrap_err();
        assert!(failure.message.starts_with("EDDYLINE_LOG: `eddyline=loud` is not a log filter"), "{failure:?}");
    }
}
