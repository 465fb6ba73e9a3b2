//! Cuts input into batches: lines of stdin, or the values of the command line. With a producer's name the cut depends
//! on the input alone, so that the same input gives the same requests again; without one, a batch does not wait for
//! lines that are slow to come.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::failure::Failure;

/// Events of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// One event a line.
    pub(super) body: Vec<u8>,
    /// How many.
    pub(super) events: u64,
    /// First and last line of the input, counted from 1.
    pub(super) lines: (u64, u64),
}

/// A batch is sent when its body has this many bytes, whatever `--batch` says. Part of what makes the same input give
/// the same requests: never to be changed.
const BATCH_BYTES: usize = 4 << 20;
/// How long a batch without a producer's name waits for its next line.
const LINGER: Duration = Duration::from_millis(50);
/// Lines read ahead.
const AHEAD: usize = 4096;

struct Line {
    number: u64,
    bytes: Vec<u8>,
}

/// Batches of what is read.
pub(super) struct Batches {
    lines: Receiver<Result<Line, String>>,
    events: u64,
    exact: bool,
    /// Why the input ends early.
    fault: Option<String>,
}

impl Batches {
    /// Batches of `events` lines of `input`. `exact`: wait for full ones.
    pub(super) fn new(mut input: impl BufRead + Send + 'static, events: u64, exact: bool) -> Self {
        let (sender, lines) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            for number in 1.. {
                let line = match next_line(&mut input, number) {
                    Ok(Some(bytes)) if bytes.is_empty() => continue,
                    Ok(Some(bytes)) => Ok(Line { number, bytes }),
                    Ok(None) => break,
                    Err(why) => Err(why),
                };
                let last = line.is_err();
                if sender.send(line).is_err() || last {
                    break;
                }
            }
        });
        Self { lines, events, exact, fault: None }
    }

    /// The next batch, or `None` at the end of the input. What comes before a bad line is given first, unless the
    /// batches are exact: a batch without that line would not be the same when the line is mended.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, Failure> {
        let mut batch = Batch::default();
        while batch.events < self.events && batch.body.len() < BATCH_BYTES {
            let line = if batch.events == 0 || self.exact {
                self.lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.lines.recv_timeout(LINGER)
            };
            match line {
                Ok(Ok(line)) => batch.push(&line),
                Ok(Err(why)) => {
                    self.fault = Some(why);
                    break;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        match self.fault.take_if(|_| self.exact || batch.events == 0) {
            Some(why) => Err(Failure::failed(why)),
            None => Ok((batch.events > 0).then_some(batch)),
        }
    }
}

impl Batch {
    fn push(&mut self, line: &Line) {
        if self.events == 0 {
            self.lines.0 = line.number;
        }
        self.lines.1 = line.number;
        self.events += 1;
        self.body.extend_from_slice(&line.bytes);
        self.body.push(b'\n');
    }
}

/// A line without its end, `\n` or `\r\n`.
fn next_line(input: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    let read = input.read_until(b'\n', &mut bytes).map_err(|error| format!("cannot read the input: {error}"))?;
    if read == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) => Err(format!("line {number} of the input is not UTF-8 (byte {})", error.valid_up_to() + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor, Read};
    use std::sync::mpsc::Sender;

    /// A batch as text, and its lines.
    type Seen = (String, (u64, u64));

    /// Each batch, and how it ended.
    fn cut(input: &[u8], events: u64, exact: bool) -> (Vec<Seen>, Result<(), String>) {
        let mut batches = Batches::new(Cursor::new(input.to_vec()), events, exact);
        let mut cut = Vec::new();
        loop {
            match batches.next() {
                Ok(Some(batch)) => {
                    assert_eq!(batch.events, batch.body.iter().filter(|byte| **byte == b'\n').count() as u64);
                    cut.push((String::from_utf8(batch.body).unwrap(), batch.lines));
                }
                Ok(None) => return (cut, Ok(())),
                Err(failure) => return (cut, Err(failure.message)),
            }
        }
    }

    fn batch(body: &str, lines: (u64, u64)) -> Seen {
        (body.to_owned(), lines)
    }

    #[test]
    fn lines_are_cut_into_batches_with_their_numbers() {
        let (cut_up, end) = cut(b"a\nb\r\n\n \nc d\n\r\nlast", 2, true);
        assert_eq!(cut_up, [batch("a\nb\n", (1, 2)), batch(" \nc d\n", (4, 5)), batch("last\n", (7, 7))]);
        assert_eq!(end, Ok(()));
        assert_eq!(cut(b"", 2, true), (vec![], Ok(())));
        assert_eq!(cut(b"\n\n", 2, false), (vec![], Ok(())));
    }

    #[test]
    fn a_bad_line_ends_the_input_by_its_number() {
        let why = Err("line 4 of the input is not UTF-8 (byte 2)".to_owned());
        let input = b"a\nb\nc\nd\xff\ne\n";
        assert_eq!(cut(input, 2, false), (vec![batch("a\nb\n", (1, 2)), batch("c\n", (3, 3))], why.clone()));
        assert_eq!(cut(input, 2, true), (vec![batch("a\nb\n", (1, 2))], why));
    }

    #[test]
    fn large_lines_make_small_batches() {
        let line = format!("{}\n", "x".repeat(BATCH_BYTES / 2));
        let (cut_up, _) = cut(line.repeat(3).as_bytes(), 500, true);
        let lines: Vec<(u64, u64)> = cut_up.iter().map(|(_, lines)| *lines).collect();
        assert_eq!(lines, [(1, 2), (3, 3)]);
    }

    /// An input that gives what the test sends.
    struct Slow(Receiver<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Ok(bytes) = self.0.recv() else {
                return Ok(0);
            };
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn slow(exact: bool) -> (Sender<Vec<u8>>, Batches) {
        let (sender, receiver) = std::sync::mpsc::channel();
        (sender, Batches::new(BufReader::new(Slow(receiver)), 3, exact))
    }

    #[test]
    fn a_batch_does_not_wait_for_slow_lines_unless_it_must_be_exact() {
        let (sender, mut batches) = slow(false);
        sender.send(b"a\nb\n".to_vec()).unwrap();
        assert_eq!(batches.next().unwrap().unwrap().lines, (1, 2));

        let (sender, mut batches) = slow(true);
        sender.send(b"a\nb\n".to_vec()).unwrap();
        let late = std::thread::spawn(move || {
            std::thread::sleep(LINGER * 3);
            sender.send(b"c\nd\n".to_vec()).unwrap();
        });
        assert_eq!(batches.next().unwrap().unwrap().lines, (1, 3));
        late.join().unwrap();
        assert_eq!(batches.next().unwrap().unwrap().lines, (4, 4));
    }
}
