//! Request bytes. All that never changes about a group's requests is rendered once; what is left for each request is the
//! body, its length and, if asked for, the producer's sequence number.

use crate::plan::{Framing, Plan, RequestKey};

/// Renders the requests of a plan; shared by all workers.
#[derive(Debug)]
pub struct Requests<'p> {
    plan: &'p Plan,
    /// Request line and constant headers by group, up to and including the last CRLF before what varies.
    heads: Vec<Vec<u8>>,
    /// `Producer-…` headers up to the sequence's digits; the connection's number belongs between the two.
    producer: Option<(Vec<u8>, Vec<u8>)>,
}

impl<'p> Requests<'p> {
    /// Prepares the templates.
    pub fn new(plan: &'p Plan) -> Requests<'p> {
        let heads = plan.groups.iter().map(|group| head(plan, group)).collect();
        let producer = plan.producer.as_ref().map(|producer| {
            let before = format!("Producer-Id: {}-", producer.name);
            let after = format!("\r\nProducer-Epoch: {}\r\nProducer-Seq: ", producer.epoch);
            (before.into_bytes(), after.into_bytes())
        });
        Requests { plan, heads, producer }
    }

    /// Appends one whole request; the same bytes whenever it is called with the same key.
    pub fn render(&self, key: RequestKey, out: &mut Vec<u8>) {
        let length = self.body_length(key);
        let head = &self.heads[self.plan.group_of(key)];
        out.reserve(head.len() + length + 128);
        out.extend_from_slice(head);
        let mut number = itoa::Buffer::new();
        if let Some((before, after)) = &self.producer {
            out.extend_from_slice(before);
            out.extend_from_slice(number.format(key.connection).as_bytes());
            out.extend_from_slice(after);
            out.extend_from_slice(number.format(self.plan.producer_sequence(key)).as_bytes());
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
            Framing::Binary => 5 * count,
        };
        around + self.event_bytes(key)
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
                    // The plan keeps an event's length within u32. Flags 0: no key, no content type.
                    out.extend_from_slice(&(payload.length(event) as u32).to_le_bytes());
                    out.push(0);
                    payload.append(event, out);
                }
            }
        }
    }
}

fn head(plan: &Plan, group: &str) -> Vec<u8> {
    let resource = if plan.framing == Framing::Single { "events" } else { "batch" };
    let mut head = format!(
        "POST {}/v1/groups/{group}/{resource} HTTP/1.1\r\nHost: {}\r\n",
        plan.target.prefix, plan.target.authority
    );
    if let Some(token) = &plan.token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    head += match plan.framing {
        Framing::Single => "",
        Framing::Json => "Content-Type: application/json\r\n",
        Framing::Ndjson => "Content-Type: application/x-ndjson\r\n",
        Framing::Text => "Content-Type: text/plain\r\n",
        Framing::Binary => "Content-Type: application/vnd.eddyline.batch\r\n",
    };
    if !plan.full_answers {
        head += "Prefer: return=minimal\r\n";
    }
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Lines, Payload};
    use crate::plan::{Extent, Producer, tests::plan};

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
}
