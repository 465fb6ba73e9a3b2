//! A broker for tests: answers what the test wrote down, in that order, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use clap::{CommandFactory, FromArgMatches, Parser};

use super::client::{Client, Connection};

/// What was asked of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Method and target.
    pub(super) line: String,
    /// Headers with names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// A broker that answers with `script` and then is gone.
pub(super) struct Fake {
    pub(super) url: String,
    asked: Receiver<Asked>,
}

impl Fake {
    /// Answers each request with the next text of `script`: a status line, headers and a body, sent as they are. After
    /// each the connection is closed.
    pub(super) fn new(script: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, asked) = channel();
        let script = script.to_vec();
        std::thread::spawn(move || {
            for answer in script {
                let (mut stream, _) = listener.accept().unwrap();
                sender.send(read_request(&mut stream)).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, asked }
    }

    pub(super) fn client(&self) -> Client {
        client(&self.url)
    }

    /// The next request that came.
    pub(super) fn asked(&self) -> Asked {
        self.asked.recv().unwrap()
    }
}

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    connection: Connection,
}

/// The connection that a command with `line` would use, whatever the variables of whoever runs the test.
pub(super) fn connection(line: &[&str]) -> Connection {
    let command = Only::command().mut_args(|arg| arg.env(None::<&str>));
    let matches = command.get_matches_from([&["test"], line].concat());
    Only::from_arg_matches(&matches).unwrap().connection
}

/// A client of the broker at `url`.
pub(super) fn client(url: &str) -> Client {
    connection(&["--url", url]).client().unwrap()
}

/// An answer with a body.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

fn read_request(stream: &mut TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    Asked { line: lines[0].clone(), headers, body: String::from_utf8(body).unwrap() }
}
