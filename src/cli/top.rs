//! `eddyline top`: a broker and its consumers, live. On a terminal it draws, elsewhere it prints a table or a JSON object
//! a tick. What is asked of the broker and how rates come of it is in `sample.rs`, how it looks in `view.rs`.

mod sample;
mod view;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::client::{Client, Connection};
use super::failure::Failure;
use super::output::{self, Output};
use super::{INTERRUPTED, interruptible};
use crate::units::parse_span;
use sample::{Sample, Tick};

const EXAMPLES: &str = "\
EXAMPLES
  eddyline top
  eddyline top --interval 5s
  eddyline top -n 1 -o json | jq .events_in

Keys: q, Esc or Ctrl-C ends it.";

/// Shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How soon a key or a signal is noticed.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Show a broker and its consumers, live
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Top {
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// End after so many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How to write them off a terminal; `json` does not draw on one either
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

fn interval(text: &str) -> Result<Duration, String> {
    let length = parse_span(text).map_err(|error| error.to_string())?;
    if length < INTERVAL_MIN { Err("at least 100ms".to_owned()) } else { Ok(length) }
}

/// What the thread that asks the broker found.
type Looks = Receiver<Result<Sample, Failure>>;

impl Top {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.connection.client()?;
        // Whoever cannot reach the broker is told so before anything is drawn.
        let first = Sample::take(&client)?;
        let looks = look(client.clone(), self.interval);
        let count = self.count.unwrap_or(u64::MAX);
        if self.output == Output::Text && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
            return draw(client.url(), first, &looks, count);
        }
        interruptible(|| print(first, &looks, count, self.output))
    }
}

/// Looks at the broker again and again, on a thread of its own, so that a broker that hangs does not hold up the keys.
fn look(client: Client, interval: Duration) -> Looks {
    let (sender, looks) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            if sender.send(Sample::take(&client)).is_err() {
                return;
            }
        }
    });
    looks
}

/// Prints a tick after each look.
fn print(first: Sample, looks: &Looks, count: u64, output: Output) -> Result<(), Failure> {
    let mut before = first;
    for printed in 0..count {
        let sample = looks.recv().map_err(|_| Failure::failed("nobody looks any more"))??;
        let tick = Tick::between(&before, &sample);
        match output {
            Output::Json => output::line(&tick.json().to_string())?,
            Output::Text => {
                let blank = (printed > 0).then(String::new);
                output::lines(&blank.into_iter().chain(view::plain(&tick)).collect::<Vec<_>>())?;
            }
        }
        before = sample;
    }
    Ok(())
}

/// Gives the terminal back, whatever happens.
struct Screen;

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Draws until a key, a signal or the count ends it.
fn draw(url: &str, first: Sample, looks: &Looks, count: u64) -> Result<(), Failure> {
    let signalled = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(&signalled), signal as usize)
            .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))?;
    }
    let broken = |error: std::io::Error| Failure::failed(format!("the terminal: {error}"));
    let mut terminal = ratatui::try_init().map_err(broken)?;
    let screen = Screen;
    let mut tick = Tick::alone(&first);
    let (mut before, mut away, mut drawn) = (first, None, 0);
    let coloured = output::coloured();
    let code = loop {
        terminal.draw(|frame| view::draw(frame, url, &tick, away.as_deref(), coloured)).map_err(broken)?;
        match signalled.load(Ordering::Relaxed) {
            0 => {}
            signal => break Some(128 + signal as i32),
        }
        match key(KEY_WAIT).map_err(broken)? {
            Some(Key::Quit) => break None,
            Some(Key::Interrupt) => break Some(INTERRUPTED),
            None => {}
        }
        match looks.try_recv() {
            Ok(Ok(sample)) => {
                // Counters of a broker that was away say nothing about a second.
                tick = if away.take().is_some() { Tick::alone(&sample) } else { Tick::between(&before, &sample) };
                before = sample;
                drawn += 1;
            }
            // The address stands beside it.
            Ok(Err(failure)) => {
                let message = failure.message;
                away = Some(message.strip_prefix(&format!("{url}: ")).unwrap_or(&message).to_owned());
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break None,
        }
        if drawn >= count {
            break None;
        }
    };
    drop(screen);
    match code {
        Some(code) => std::process::exit(code),
        None => Ok(()),
    }
}

enum Key {
    Quit,
    Interrupt,
}

/// Waits for a key that ends it.
fn key(wait: Duration) -> std::io::Result<Option<Key>> {
    if !event::poll(wait)? {
        return Ok(None);
    }
    let Event::Key(key) = event::read()? else { return Ok(None) };
    Ok(match key.code {
        _ if key.kind != KeyEventKind::Press => None,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Interrupt),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        _ => None,
    })
}
