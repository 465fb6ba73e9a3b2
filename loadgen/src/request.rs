//! Request bytes. All that never changes about a group's requests is rendered once; what is left for each request is the
//! body, its length and, if asked for, the producer's sequence number.

use crate::plan::{Framing, Plan, Producer, RequestKey};

/// What a browser adds to a request that a page makes with `fetch`, in a current Chromium's words.
const BROWSER: &str = "Connection: keep-alive\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\n\
    sec-ch-ua: \"Not:A-Brand\";v=\"8\", \"Chromium\";v=\"156\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    Accept: */*\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\n";

/// Renders the requests of a plan; shared by all workers.
#[derive(Debug)]
pub struct Requests<'p> {
    plan: &'p Plan,
    /// What never changes of the heads, by group.
    heads: Vec<Head>,
}

/// A head up to and including the last CRLF before what varies. With a producer, its connection's number stands between
/// the first two parts, and its sequence between the last two; without, the first is all.
#[derive(Debug, Default)]
struct Head {
    start: Vec<u8>,
    middle: Vec<u8>,
    end: Vec<u8>,
}

impl<'p> Requests<'p> {
    /// Prepares the templates.
    pub fn new(plan: &'p Plan) -> Requests<'p> {
        let heads = plan.groups.iter().map(|group| head(plan, group)).collect();
        Requests { plan, heads }
    }

    /// Appends one whole request; the same bytes whenever it is called with the same key.
    pub fn render(&self, key: RequestKey, out: &mut Vec<u8>) {
        let length = self.body_length(key);
        let head = &self.heads[self.plan.group_of(key)];
        out.reserve(head.start.len() + length + 128);
        out.extend_from_slice(&head.start);
        let mut number = itoa::Buffer::new();
        if self.plan.producer.is_some() {
            out.extend_from_slice(number.format(key.connection).as_bytes());
            out.extend_from_slice(&head.middle);
            out.extend_from_slice(number.format(self.plan.producer_sequence(key)).as_bytes());
            out.extend_from_slice(&head.end);
        }
        if let Some(keys) = &self.plan.keys
            && self.plan.framing != Framing::Binary
        {
            out.extend_from_slice(b"Eddyline-Key: ");
            keys.append(self.plan.keyed_by(key, 0), out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(number.format(length).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        let body_start = out.len();
        self.append_body(key, out);
        debug_assert_eq!(out.len() - body_start, length);
    }

    /// Bytes of the events in a request, without framing and headers.
    pub fn event_bytes(&self, key: RequestKey) -> usize {
        match self.plan.payload.fixed_length() {
            Some(length) => length * self.plan.count_of(key) as usize,
            None => self.plan.events(key).map(|event| self.plan.payload.length(event)).sum(),
        }
    }

    fn body_length(&self, key: RequestKey) -> usize {
        let count = self.plan.count_of(key) as usize;
        let around = match self.plan.framing {
            Framing::Single => 0,
            // Two brackets, and commas between.
            Framing::Json => 1 + count,
            Framing::Ndjson | Framing::Text => count,
            Framing::Binary => 5 * count + self.key_bytes(key),
        };
        around + self.event_bytes(key)
    }

    /// Bytes of the keys in frames, their lengths included.
    fn key_bytes(&self, key: RequestKey) -> usize {
        let Some(keys) = &self.plan.keys else { return 0 };
        let digits = |event| keys.rank(event).checked_ilog10().unwrap_or(0) as usize + 1;
        self.plan.events(key).map(|event| 2 + "k".len() + digits(event)).sum()
    }

    fn append_body(&self, key: RequestKey, out: &mut Vec<u8>) {
        let payload = &self.plan.payload;
        match self.plan.framing {
            Framing::Single => payload.append(self.plan.event(key, 0), out),
            Framing::Json => {
                let mut mark = b'[';
                for event in self.plan.events(key) {
                    out.push(mark);
                    payload.append(event, out);
                    mark = b',';
                }
                out.push(b']');
            }
            Framing::Ndjson | Framing::Text => {
                for event in self.plan.events(key) {
                    payload.append(event, out);
                    out.push(b'\n');
                }
            }
            Framing::Binary => {
                for event in self.plan.events(key) {
                    // The plan keeps an event's length within u32. Flag 0 is the key, no other is set.
                    out.extend_from_slice(&(payload.length(event) as u32).to_le_bytes());
                    out.push(u8::from(self.plan.keys.is_some()));
                    if let Some(keys) = &self.plan.keys {
                        let length_at = out.len();
                        out.extend_from_slice(&[0; 2]);
                        keys.append(event, out);
                        let length = (out.len() - length_at - 2) as u16;
                        out[length_at..length_at + 2].copy_from_slice(&length.to_le_bytes());
                    }
                    payload.append(event, out);
                }
            }
        }
    }
}

fn head(plan: &Plan, group: &str) -> Head {
    let resource = if plan.framing == Framing::Single { "events" } else { "batch" };
    let line = format!("POST {}/v1/groups/{group}/{resource}", plan.target.prefix);
    let mut headers = format!("Host: {}\r\n", plan.target.authority);
    match (&plan.browser, &plan.token) {
        (Some(origin), _) => {
            let site =
                if *origin == format!("http://{}", plan.target.authority) { "same-origin" } else { "cross-site" };
            headers += BROWSER;
            headers += &format!("Origin: {origin}\r\nSec-Fetch-Site: {site}\r\nReferer: {origin}/\r\n");
        }
        (None, Some(token)) => headers += &format!("Authorization: Bearer {token}\r\n"),
        (None, None) => {}
    }
    headers += match plan.framing {
        Framing::Single => "",
        Framing::Json => "Content-Type: application/json\r\n",
        Framing::Ndjson => "Content-Type: application/x-ndjson\r\n",
        Framing::Text if plan.browser.is_some() => "Content-Type: text/plain;charset=UTF-8\r\n",
        Framing::Text => "Content-Type: text/plain\r\n",
        Framing::Binary => "Content-Type: application/vnd.eddyline.batch\r\n",
    };
    if !plan.full_answers {
        headers += "Prefer: return=minimal\r\n";
    }
    let token = plan.token.as_ref().filter(|_| plan.browser.is_some()).map(|token| format!("token={token}&"));
    let query = format!("?{}", token.unwrap_or_default());
    let parts = match &plan.producer {
        None => [format!("{line}{} HTTP/1.1\r\n{headers}", query.trim_end_matches(['?', '&'])), "".into(), "".into()],
        Some(Producer { name, epoch }) if plan.browser.is_some() => [
            format!("{line}{query}producer={name}-"),
            format!("&epoch={epoch}&seq="),
            format!(" HTTP/1.1\r\n{headers}"),
        ],
        Some(Producer { name, epoch }) => [
            format!("{line} HTTP/1.1\r\n{headers}Producer-Id: {name}-"),
            format!("\r\nProducer-Epoch: {epoch}\r\nProducer-Seq: "),
            "\r\n".to_owned(),
        ],
    };
    let [start, middle, end] = parts.map(String::into_bytes);
    Head { start, middle, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Keys, Spread};
    use crate::payload::{Lines, Payload};
    use crate::plan::{Extent, tests::plan};

    fn rendered(plan: &Plan, connection: u32, request: u32) -> String {
        let mut bytes = Vec::new();
        Requests::new(plan).render(RequestKey { connection, request }, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn of_lines(text: &str, framing: Framing, batch: u32) -> Plan {
        let lines = Lines::new(text.into(), false).unwrap();
        Plan { extent: Extent::Events(lines.count()), payload: Payload::Lines(lines), framing, batch, ..plan() }
    }

    #[test]
    fn a_single_event_is_the_body_verbatim() {
        assert_eq!(
            rendered(&of_lines("hello\nyou", Framing::Single, 1), 0, 1),
            "POST /v1/groups/load/events HTTP/1.1\r\nHost: 127.0.0.1:4437\r\nPrefer: return=minimal\r\n\
             Content-Length: 3\r\n\r\nyou"
        );
    }

    #[test]
    fn batches_are_framed_as_their_media_type_says() {
        for (framing, media_type, body) in [
            (Framing::Json, "application/json", "[1,22,3]"),
            (Framing::Ndjson, "application/x-ndjson", "1\n22\n3\n"),
            (Framing::Text, "text/plain", "1\n22\n3\n"),
            (Framing::Binary, "application/vnd.eddyline.batch", "\x01\0\0\0\x001\x02\0\0\0\x0022\x01\0\0\0\x003"),
        ] {
            let text = rendered(&of_lines("1\n22\n3", framing, 3), 0, 0);
            let (head, found) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(found, body, "{framing:?}");
            assert!(head.starts_with("POST /v1/groups/load/batch HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Type: {media_type}\r\n")), "{head}");
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        }
    }

    #[test]
    fn token_prefix_producer_and_full_answers_show_in_the_head() {
        let plan = Plan {
            target: "http://proxy/at".parse().unwrap(),
            token: Some("edl_x".into()),
            groups: vec!["load-0".into(), "load-1".into()],
            connections: 8,
            producer: Some(Producer { name: "p".into(), epoch: 9 }),
            full_answers: true,
            extent: Extent::Events(1000),
            ..plan()
        };
        let text = rendered(&plan, 6, 5);
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            head,
            "POST /at/v1/groups/load-0/events HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer edl_x\r\n\
             Producer-Id: p-6\r\nProducer-Epoch: 9\r\nProducer-Seq: 2\r\nContent-Length: 64"
        );
    }

    #[test]
    fn a_browser_says_everything_in_the_query_and_needs_no_preflight() {
        let browser = Plan {
            browser: Some("https://shop.example".into()),
            full_answers: true,
            token: Some("edl_x".into()),
            producer: Some(Producer { name: "tab".into(), epoch: 9 }),
            connections: 3,
            ..of_lines("1\n22\n3\n4\n5\n6", Framing::Text, 2)
        };
        let site = "Origin: https://shop.example\r\nSec-Fetch-Site: cross-site\r\nReferer: https://shop.example/\r\n";
        assert_eq!(
            rendered(&browser, 2, 0),
            format!(
                "POST /v1/groups/load/batch?token=edl_x&producer=tab-2&epoch=9&seq=0 HTTP/1.1\r\n\
                 Host: 127.0.0.1:4437\r\n{BROWSER}{site}Content-Type: text/plain;charset=UTF-8\r\n\
                 Content-Length: 4\r\n\r\n5\n6\n"
            )
        );
        // Of these a page may send any without asking first: the Fetch standard's safelist and what the browser adds.
        let simple = ["accept", "accept-language", "content-type"];
        let own = ["host", "connection", "content-length", "origin", "referer", "user-agent", "accept-encoding"];
        let text = rendered(&browser, 0, 0);
        for line in text.split("\r\n\r\n").next().unwrap().lines().skip(1) {
            let name = line.split(':').next().unwrap().to_ascii_lowercase();
            let known = simple.contains(&&*name) || own.contains(&&*name);
            assert!(known || name.starts_with("sec-"), "{name} needs a preflight");
        }
        let served = Plan { browser: Some("http://127.0.0.1:4437".into()), ..of_lines("1", Framing::Text, 1) };
        assert!(rendered(&served, 0, 0).contains("\r\nSec-Fetch-Site: same-origin\r\n"));
        let nameless = Plan { producer: None, ..browser };
        assert!(rendered(&nameless, 0, 0).starts_with("POST /v1/groups/load/batch?token=edl_x HTTP/1.1\r\n"));
        let free = Plan { token: None, ..nameless };
        assert!(rendered(&free, 0, 0).starts_with("POST /v1/groups/load/batch HTTP/1.1\r\n"));
    }

    #[test]
    fn keys_go_into_frames_or_the_head() {
        let keys = Some(Keys::new(1, 1, Spread::Uniform));
        for (framing, head_has, body) in [
            (Framing::Single, true, "1"),
            (Framing::Ndjson, true, "1\n22\n"),
            (Framing::Binary, false, "\x01\0\0\0\x01\x02\0k01\x02\0\0\0\x01\x02\0k022"),
        ] {
            let batch = if framing == Framing::Single { 1 } else { 2 };
            let text = rendered(&Plan { keys: keys.clone(), ..of_lines("1\n22", framing, batch) }, 0, 0);
            let (head, found) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(found, body, "{framing:?}");
            assert_eq!(head.contains("\r\nEddyline-Key: k0\r\n"), head_has, "{head}");
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        }
        // Keys of several lengths are counted rightly, else rendering panics.
        let keys = Some(Keys::new(1, 1_000, Spread::Zipf));
        let plan = Plan { keys, framing: Framing::Binary, batch: 200, extent: Extent::Events(200), ..plan() };
        Requests::new(&plan).render(RequestKey { connection: 0, request: 0 }, &mut Vec::new());
    }
}
