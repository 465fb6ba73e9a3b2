//! `eddyline token`: the tokens of a broker, listed, made and revoked over HTTP; and the first one, made in a data
//! directory while no broker runs there. A new token is the one line on stdout.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::{Client, Connection, encoded};
use super::failure::Failure;
use super::output::{self, Output, Side};
use super::serve;
use crate::config::{self, Config, Sources};
use crate::server::offline;
use crate::units::parse_span;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline token create --admin --data /var/lib/eddyline > admin.token   while no broker runs there
  eddyline token create --scope produce --group orders --group web-* --token-file admin.token
  eddyline token create --scope produce --group clicks --origin https://app.example.org --rate 20/s
  eddyline token ls
  eddyline token revoke 6445941642240a1b";

/// List, create and revoke tokens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Token {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List tokens; their secrets are known to nobody but their holders
    #[command(visible_alias = "list", after_help = "EXAMPLES\n  eddyline token ls\n  eddyline token ls -o json")]
    Ls {
        /// How to write them
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Create a token and print it, this once
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<Create>),
    /// Revoke tokens; readers who use them are sent away
    #[command(visible_alias = "rm", after_help = "EXAMPLES\n  eddyline token revoke 6445941642240a1b")]
    Revoke {
        /// Ids, as `token ls` shows them
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

const CREATE_EXAMPLES: &str = "\
EXAMPLES
  eddyline token create --admin --data /var/lib/eddyline > admin.token
  eddyline token create --scope query --group '*' --expires 30d --name dashboard
  eddyline token create --scope produce --group clicks --origin https://app.example.org --rate 20/s

With --data no broker is asked: the token is made in the directory, while no broker runs on it.
One that is not there is made, as `eddyline serve` with the same configuration would make it.";

/// What the new token allows.
#[derive(Debug, clap::Args)]
struct Create {
    /// Everything, everywhere
    #[arg(long, conflicts_with_all = ["scope", "group"], required_unless_present = "scope")]
    admin: bool,
    /// What may be done: produce, consume, query, manage
    #[arg(long, value_delimiter = ',', requires = "group")]
    scope: Vec<String>,
    /// In which group; a * at the end means all that begin so
    #[arg(long, value_name = "NAME", requires = "scope")]
    group: Vec<String>,
    /// Until when: a duration from now (30d), or a time (2026-11-23T10:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<String>,
    /// Only from pages of this origin
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// At most so many requests a second
    #[arg(long, value_name = "N/s")]
    rate: Option<String>,
    /// What to call it
    #[arg(long)]
    name: Option<String>,
    /// Make it in this data directory, while no broker runs there
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file of the broker that will run there
    #[arg(short = 'c', long, value_name = "FILE", requires = "data")]
    config: Option<PathBuf>,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// A moment as the broker takes it.
pub(super) fn expiry(text: &str) -> Result<String, String> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(format!("{moment:.6}"));
    }
    let span = parse_span(text).map_err(|_| "expected a duration (30d), or a time with its zone".to_owned())?;
    let moment = jiff::Timestamp::now().checked_add(span).map_err(|error| error.to_string())?;
    Ok(format!("{moment:.6}"))
}

impl Create {
    /// The body that `POST /v1/tokens` takes.
    fn body(&self) -> Value {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (scopes, groups) = match self.admin {
            true => (all(&["produce", "consume", "query", "manage"]), all(&["*"])),
            false => (self.scope.clone(), self.group.clone()),
        };
        let mut body = json!({ "scopes": scopes, "groups": groups });
        for (member, text) in [("expires", &self.expires), ("rate", &self.rate), ("name", &self.name)] {
            if let Some(text) = text {
                body[member] = text.as_str().into();
            }
        }
        if !self.origin.is_empty() {
            body["origins"] = self.origin.clone().into();
        }
        body
    }
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Create(create) => {
                let (id, token) = match &create.data {
                    Some(directory) => offline(&create, directory)?,
                    None => online(&self.connection.client()?, &create)?,
                };
                output::say(&format!("token {id}: keep it well, it is not shown again"));
                output::line(&match create.output {
                    Output::Text => token,
                    Output::Json => json!({ "id": id, "token": token }).to_string(),
                })
            }
            Action::Ls { output } => list(&self.connection.client()?, output),
            Action::Revoke { ids } => {
                let client = self.connection.client()?;
                for id in ids {
                    client.send(&Method::DELETE, &format!("/v1/tokens/{}", encoded(&id)), &[], None)?;
                    output::say(&format!("{id}: revoked"));
                }
                Ok(())
            }
        }
    }
}

/// Id and text of a token that the broker makes.
fn online(client: &Client, create: &Create) -> Result<(String, String), Failure> {
    #[derive(Deserialize)]
    struct Made {
        id: String,
        token: String,
    }
    let body = create.body().to_string();
    let headers = [("Accept", "application/json")];
    let answer = client.send(&Method::POST, "/v1/tokens", &headers, Some(("application/json", body.as_bytes())))?;
    let Made { id, token } = answer.json()?;
    Ok((id, token))
}

/// Id and text of a token that is made in a directory.
fn offline(create: &Create, directory: &Path) -> Result<(String, String), Failure> {
    let loaded = serve::load(&Sources {
        base: Config::default(),
        data: Some(directory.to_owned()),
        file: create.config.clone(),
        variables: config::environment(),
        flags: vec![("data", directory.display().to_string())],
    })?;
    let made = offline::create_token(&loaded.config, create.body().to_string().as_bytes());
    let made = made.map_err(|error| {
        Failure::failed(error.to_string())
            .hint("while a broker runs, it makes tokens: --url and --token-file, no --data")
    })?;
    if made.new_directory {
        output::say(&format!("{} is a new data directory", loaded.config.data.display()));
    }
    made.warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
    Ok((made.id, made.text))
}

/// All tokens, page by page.
fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    #[derive(Deserialize)]
    struct Page {
        tokens: Vec<Value>,
        next: Option<String>,
    }
    let mut tokens = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let path = after.as_ref().map_or_else(String::new, |after| format!("&after={}", encoded(after)));
        let page: Page = client.get_json(&format!("/v1/tokens?limit=1000{path}"))?;
        tokens.extend(page.tokens);
        // A page that goes on where it began would never end.
        if page.next.is_none() || page.next == after {
            return Ok(tokens);
        }
        after = page.next;
    }
}

/// Columns of the list; those that no token has anything in are left out.
const COLUMNS: [(&str, &str, Side); 9] = [
    ("id", "ID", Side::Left),
    ("name", "NAME", Side::Left),
    ("scopes", "SCOPES", Side::Left),
    ("groups", "GROUPS", Side::Left),
    ("consumer", "CONSUMER", Side::Left),
    ("origins", "ORIGINS", Side::Left),
    ("rate", "RATE", Side::Right),
    ("expires", "EXPIRES", Side::Left),
    ("created", "CREATED", Side::Left),
];

fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let tokens = all(client)?;
    if output == Output::Json {
        let all = Map::from_iter([("tokens".to_owned(), tokens.into())]);
        return output::line(&Value::Object(all).to_string());
    }
    if tokens.is_empty() {
        output::say("no tokens; `eddyline token create` makes one");
        return Ok(());
    }
    output::lines(&table_of(&tokens))
}

fn table_of(tokens: &[Value]) -> Vec<String> {
    let columns: Vec<_> =
        COLUMNS.iter().filter(|(name, ..)| tokens.iter().any(|token| token.get(name).is_some())).collect();
    let titles: Vec<(&str, Side)> = columns.iter().map(|(_, title, side)| (*title, *side)).collect();
    let cell = |token: &Value, name: &str| match token.get(name) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    };
    let row = |token| columns.iter().map(|(name, ..)| cell(token, name)).collect();
    output::table(&titles, &tokens.iter().map(row).collect::<Vec<Vec<String>>>())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, answer};
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        create: Create,
    }

    fn parsed(line: &[&str]) -> Result<Create, clap::Error> {
        Only::try_parse_from([&["create"], line].concat()).map(|only| only.create)
    }

    #[test]
    fn flags_become_what_the_broker_takes() {
        for (line, expected) in [
            (&["--admin"][..], json!({ "scopes": ["produce", "consume", "query", "manage"], "groups": ["*"] })),
            (
                &["--scope", "produce,query", "--group", "a", "--group", "b-*"],
                json!({ "scopes": ["produce", "query"], "groups": ["a", "b-*"] }),
            ),
            (
                &["--scope", "produce", "--group", "a", "--origin", "https://a", "--rate", "5/s", "--name", "till"],
                json!({ "scopes": ["produce"], "groups": ["a"], "origins": ["https://a"], "rate": "5/s", "name": "till" }),
            ),
            (
                &["--admin", "--expires", "2030-01-02T03:04:05+01:00"],
                json!({
                    "scopes": ["produce", "consume", "query", "manage"], "groups": ["*"],
                    "expires": "2030-01-02T02:04:05.000000Z",
                }),
            ),
        ] {
            assert_eq!(parsed(line).unwrap().body(), expected, "{line:?}");
        }
        for line in [
            &[][..],
            &["--scope", "query"],
            &["--group", "a"],
            &["--admin", "--group", "a"],
            &["--admin", "--expires", "soon"],
            &["--admin", "--config", "x"],
        ] {
            assert!(parsed(line).is_err(), "{line:?}");
        }
        let soon = parsed(&["--admin", "--expires", "1h"]).unwrap().expires.unwrap();
        assert!(soon.parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::now(), "{soon}");
    }

    #[test]
    fn the_list_comes_in_pages_and_shows_what_there_is() {
        let page = |tokens: &str, next: &str| answer("200 OK", "", &format!("{{\"tokens\":[{tokens}]{next}}}"));
        let one = r#"{"id":"01","scopes":["produce","query"],"groups":["a","b*"],"rate":"5/s","created":"then"}"#;
        let two = r#"{"id":"02","scopes":["manage"],"groups":["*"],"name":"x\u001b","created":"later"}"#;
        let fake = Fake::new(&[page(one, r#","next":"01""#), page(two, "")]);
        let tokens = all(&fake.client()).unwrap();
        assert_eq!(fake.asked().line, "GET /v1/tokens?limit=1000 HTTP/1.1");
        assert_eq!(fake.asked().line, "GET /v1/tokens?limit=1000&after=01 HTTP/1.1");
        assert_eq!(
            table_of(&tokens),
            [
                "ID  NAME     SCOPES         GROUPS  RATE  CREATED",
                "01           produce,query  a,b*     5/s  then",
                "02  x\\u{1b}  manage         *             later",
            ]
        );
    }
}
