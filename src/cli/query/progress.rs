//! What a person sees while a query runs: how far it is, as far as the broker tells.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::super::client::Client;
use super::super::trouble::Trouble;
use super::running::Listing;
use crate::units::rough_count;

/// How long a query runs before it is shown that it does.
const QUIET: Duration = Duration::from_secs(1);
/// How often the broker is asked how far it is.
const EVERY: Duration = Duration::from_millis(500);
/// How often it is drawn.
const REDRAWN: Duration = Duration::from_millis(100);

const SPINNER: &str = "{spinner} the query runs, {elapsed}";
const BAR: &str = "{bar:30} {percent}% of {human_len} events, {rate}, {eta} left";

/// Shows how far a query is, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    bar: ProgressBar,
    /// Its end is what the thread waits for.
    _under_way: Sender<()>,
}

impl Watch {
    /// Watches the query of that id, which is about to be asked.
    pub(super) fn begin(client: Client, id: String, target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        let (under_way, end) = channel();
        let shown = bar.clone();
        std::thread::spawn(move || watch(&client, &id, &shown, &end));
        Self { bar, _under_way: under_way }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread may be about to draw: a bar that was cleared shows nothing more.
        self.bar.finish_and_clear();
    }
}

/// Asks for the query's figures again and again, on a connection of its own.
fn watch(client: &Client, id: &str, bar: &ProgressBar, end: &Receiver<()>) {
    let over_within = |time| end.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
    if over_within(QUIET) {
        return;
    }
    bar.set_style(style(SPINNER));
    bar.enable_steady_tick(REDRAWN);
    let mut known = false;
    loop {
        match figures(client, id) {
            Ok(Some((done, total))) => {
                // In this order: what is drawn first of the bar has both, and its speed.
                bar.set_position(done);
                if !known {
                    bar.set_style(style(BAR));
                    known = true;
                }
                bar.set_length(total);
            }
            Ok(None) => {}
            // The broker knows of no list, or shows it to others: it is not asked again.
            Err(_) => return bar.set_style(style(SPINNER)),
        }
        if over_within(EVERY) {
            return;
        }
    }
}

/// How many events of how many the query has dealt with, if the broker knows that.
fn figures(client: &Client, id: &str) -> Result<Option<(u64, u64)>, Trouble> {
    let listing: Listing = client.get_json("/v1/queries")?;
    Ok(listing.queries.iter().find(|query| query.id == id).and_then(|query| query.events_done.zip(query.events_total)))
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("a template");
    style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{}/s", rough_count(state.per_sec()));
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{Fake, answer, client};
    use super::*;
    use indicatif::TermLike;
    use std::io;
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    /// A terminal that keeps all that was written to it; `|` stands for a line that was cleared.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn target(&self) -> ProgressDrawTarget {
            ProgressDrawTarget::term_like(Box::new(self.clone()))
        }

        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }

        fn until(&self, part: &str) -> String {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !self.text().contains(part) {
                assert!(Instant::now() < deadline, "no {part:?} in {:?}", self.text());
                std::thread::sleep(Duration::from_millis(5));
            }
            self.text()
        }

        fn put(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.put(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.put(text)
        }

        fn clear_line(&self) -> io::Result<()> {
            self.put("|")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A list with another query, and with this one as far as that.
    fn listing(done: &str, total: &str) -> String {
        let query = |id: &str, done: &str, total: &str| {
            format!(
                r#"{{"id":"{id}","group":"g","caller":"c","query":"q","ms":1.5,"events_done":{done},"events_total":{total}}}"#
            )
        };
        let queries = [query("other", "9", "10"), query("this", done, total)].join(",");
        answer("200 OK", "", &format!("{{\"queries\":[{queries}]}}"))
    }

    #[test]
    fn a_bar_shows_how_far_the_query_is_and_is_gone_at_its_end() {
        let fake = Fake::new(&[listing("null", "null"), listing("500000", "2000000"), listing("1000000", "2000000")]);
        let screen = Screen::default();
        let watch = Watch::begin(fake.client(), "this".to_owned(), screen.target());
        screen.until("the query runs");
        let text = screen.until("25% of 2,000,000 events, ");
        assert!(text.contains("/s, ") && text.contains(" left"), "{text}");
        screen.until("50% of 2,000,000 events, ");
        assert_eq!(fake.asked().line, "GET /v1/queries HTTP/1.1");
        drop(watch);
        let ended = screen.text();
        assert!(ended.trim_end().ends_with('|'), "the line is cleared: {ended:?}");
        std::thread::sleep(EVERY * 2);
        assert_eq!(screen.text(), ended, "nothing is drawn behind the end");
    }

    #[test]
    fn where_the_broker_does_not_tell_only_the_time_is_shown() {
        let fake = Fake::new(&[listing("5", "10"), answer("404 Not Found", "", "{}")]);
        let screen = Screen::default();
        let _watch = Watch::begin(fake.client(), "this".to_owned(), screen.target());
        let before = screen.until("50% of 10 events, ").rfind("events").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !screen.text()[before..].contains("the query runs") {
            assert!(Instant::now() < deadline, "{:?}", screen.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn of_a_short_query_nothing_is_shown_or_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = client(&format!("http://{}", listener.local_addr().unwrap()));
        let screen = Screen::default();
        drop(Watch::begin(client, "this".to_owned(), screen.target()));
        std::thread::sleep(QUIET + EVERY);
        assert_eq!(screen.text().replace('|', ""), "");
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
