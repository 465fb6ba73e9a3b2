//! Bodies, good and bad, as tables; what must hold for all of them as properties.

use proptest::prelude::*;

use super::*;

const NDJSON: Format = Format::Lines { must_be_json: true };
const TEXT: Format = Format::Lines { must_be_json: false };
const MAX: usize = 64;

fn events<'b>(format: Format, body: &'b [u8], key_path: Option<&str>) -> Result<Vec<Piece<'b>>, SplitFault> {
    let key_path = key_path.map(|pointer| KeyPath::parse(pointer).expect(pointer));
    let mut pieces = Vec::new();
    split(format, body, key_path.as_ref(), MAX, |piece| pieces.push(piece)).map(|()| pieces)
}

/// One frame as a client writes it.
fn frame(key: Option<&[u8]>, content_type: Option<&[u8]>, data: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(data.len()).expect("short").to_le_bytes().to_vec();
    bytes.push(u8::from(key.is_some()) | u8::from(content_type.is_some()) << 1);
    for field in [key, content_type].into_iter().flatten() {
        bytes.extend_from_slice(&u16::try_from(field.len()).expect("short").to_le_bytes());
        bytes.extend_from_slice(field);
    }
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn an_event_is_json_only_if_it_is_one_value_that_any_answer_can_hold() {
    for (data, encoding) in [
        (&b"{\"a\":1}"[..], Encoding::Json),
        (b" [1, 2]\t", Encoding::Json),
        (b"null", Encoding::Json),
        (b"\"\\n\"", Encoding::Json),
        ("\"\u{e9}\"".as_bytes(), Encoding::Json),
        (b"", Encoding::Text),
        (b" ", Encoding::Text),
        (b"hello", Encoding::Text),
        (b"1 2", Encoding::Text),
        (b"{\"a\":1}\n", Encoding::Text),
        (b"\r1", Encoding::Text),
        (b"{\n\"a\":1}", Encoding::Text),
        (b"{\"a\":\"\n\"}", Encoding::Text),
        (b"\"\\ud83d\\ude00\"", Encoding::Json),
        (b"\"\\ud83d\"", Encoding::Text),
        (b"{\"\\uDE00\":1}", Encoding::Text),
        ("\u{e9}".as_bytes(), Encoding::Text),
        (b"\0", Encoding::Text),
        (b"\"\xff\"", Encoding::Bytes),
        (b"\xc3", Encoding::Bytes),
    ] {
        assert_eq!(classify(data), encoding, "{}", data.escape_ascii());
    }
}

#[test]
fn bodies_are_split_and_classified() {
    use Encoding::{Json, Text};
    for (format, body, expected) in [
        (Format::Json, "[1]", &[("1", Json)][..]),
        (
            Format::Json,
            " [\n {\"a\": [1, 2]} ,\t\"x\",null\r\n] ",
            &[("{\"a\": [1, 2]}", Json), ("\"x\"", Json), ("null", Json)],
        ),
        (Format::Json, "[{\n\"a\": 1}, {\r}, {}]", &[("{\n\"a\": 1}", Text), ("{\r}", Text), ("{}", Json)]),
        (NDJSON, "1", &[("1", Json)]),
        (NDJSON, "\n{\"a\":1}\r\n \t\n\r\n [2] \n", &[("{\"a\":1}", Json), (" [2] ", Json)]),
        (NDJSON, "[1,\r2]\r\n3", &[("[1,\r2]", Text), ("3", Json)]),
        (NDJSON, "[\"\\ud800\"]\n3", &[("[\"\\ud800\"]", Text), ("3", Json)]),
        (Format::Json, "[3,{\"a\":\"\\udfff\"}]", &[("3", Json), ("{\"a\":\"\\udfff\"}", Text)]),
        (TEXT, "\"\\ud800\"", &[("\"\\ud800\"", Text)]),
        (TEXT, "a b\n\n7\r\n  {\nx\r\r\n", &[("a b", Text), ("7", Json), ("  {", Text), ("x\r", Text)]),
    ] {
        let found = events(format, body.as_bytes(), None).expect(body);
        let found: Vec<_> =
            found.iter().map(|piece| (str::from_utf8(piece.data).expect("text"), piece.encoding)).collect();
        assert_eq!(found, expected, "{body:?}");
    }
}

#[test]
fn frames_carry_keys_types_and_any_bytes() {
    let frames = [
        (None, None, &b"plain"[..], Encoding::Text),
        (Some("k\0\u{e9}".as_bytes()), None, b"{\"a\":1}", Encoding::Json),
        (None, Some(&b"text/csv; header=absent"[..]), b"a,b\r\n", Encoding::Text),
        (Some(b""), Some(b"x"), b"", Encoding::Text),
        (None, None, b"\xff\0", Encoding::Bytes),
    ];
    let body = frames.map(|(key, content_type, data, _)| frame(key, content_type, data)).concat();
    let found = events(Format::Binary, &body, None).expect("good frames");
    let expected = frames.map(|(key, content_type, data, encoding)| {
        let key = key.map(Cow::Borrowed);
        Piece { data, key, content_type, encoding }
    });
    assert_eq!(found, expected);

    let ends: Vec<usize> = frames
        .iter()
        .scan(0, |end, (key, content_type, data, _)| {
            *end += frame(*key, *content_type, data).len();
            Some(*end)
        })
        .collect();
    for cut in 1..body.len() {
        let result = events(Format::Binary, &body[..cut], None);
        match ends.iter().position(|end| *end == cut) {
            Some(last) => assert_eq!(result.map(|pieces| pieces.len()), Ok(last + 1)),
            None => assert_eq!(result.expect_err("cut off").code, "bad_frame", "cut at {cut}"),
        }
    }
}

#[test]
fn keys_are_found_by_their_path() {
    let keys = |format, body: &'static str, path| {
        let pieces = events(format, body.as_bytes(), Some(path)).expect(body);
        pieces.into_iter().map(|piece| piece.key.expect("a key").into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(Format::Json, "[{\"o\":\"a\"},{\"o\":7}]", "/o"), [&b"a"[..], b"7"]);
    assert_eq!(keys(NDJSON, "{\"o\":\"\\u00e9\"}\r\n\n {\"o\":true}\n", "/o"), ["\u{e9}".as_bytes(), b"true"]);
    assert_eq!(keys(TEXT, "[1, {\"x\": false}]\n", "/1/x"), [b"false"]);
}

/// A body that is refused: the code and the place.
fn refusal(format: Format, body: &[u8], path: Option<&str>) -> (&'static str, Option<Place>) {
    match events(format, body, path) {
        Err(fault) => (fault.code, fault.place),
        Ok(found) => panic!("{}: {found:?}", body.escape_ascii()),
    }
}

#[test]
fn faults_of_an_array_name_the_event() {
    let long = format!("[1,\"{}\"]", "x".repeat(MAX - 1));
    for (body, path, code, event) in [
        ("", None, "bad_json", None),
        ("{}", None, "bad_json", None),
        ("[", None, "bad_json", Some(0)),
        ("[1", None, "bad_json", Some(0)),
        ("[1,]", None, "bad_json", Some(1)),
        ("[1 2]", None, "bad_json", Some(0)),
        ("[1,{]", None, "bad_json", Some(1)),
        ("[1] 2", None, "bad_json", None),
        ("[1]]", None, "bad_json", None),
        (" [ ] ", None, "empty_batch", None),
        (&long, None, "event_too_large", Some(1)),
        ("[{\"o\":1},{}]", Some("/o"), "bad_key", Some(1)),
    ] {
        let expected = (code, event.map(Place::Event));
        assert_eq!(refusal(Format::Json, body.as_bytes(), path), expected, "{body}");
    }
}

#[test]
fn faults_of_lines_name_the_line() {
    let long = format!("1\n{}\n", "1".repeat(MAX + 1));
    for (body, path, code, line) in [
        ("", None, "empty_batch", None),
        ("\r\n \n\n", None, "empty_batch", None),
        (&long, None, "event_too_large", Some(2)),
        ("{\"o\":1}\n{\"o\":null}", Some("/o"), "bad_key", Some(2)),
        ("{\"o\":[]}", Some("/o"), "bad_key", Some(1)),
        ("{\"o\":{}}", Some("/o"), "bad_key", Some(1)),
        ("{\"o\":\"\\ud800\"}", Some("/o"), "bad_key", Some(1)),
        ("{\"o\":1}\n\nx", Some("/o"), "bad_line", Some(3)),
    ] {
        for format in [NDJSON, TEXT] {
            let expected = (code, line.map(Place::Line));
            assert_eq!(refusal(format, body.as_bytes(), path), expected, "{body:?}");
        }
    }
    for (body, line) in [("1\n\nx\n2", 3), ("1\n{\n}\n", 2), ("1 2\n", 1)] {
        let expected = ("bad_line", Some(Place::Line(line)));
        assert_eq!(refusal(NDJSON, body.as_bytes(), None), expected, "{body:?}");
    }
    for format in [Format::Json, NDJSON, TEXT] {
        for (body, line) in [(&b"1\n2\n\xc3\n"[..], 3), (b"[1,\n\"\xff\"]", 2), (b"\xff", 1)] {
            assert_eq!(refusal(format, body, None), ("not_utf8", Some(Place::Line(line))));
        }
    }
}

#[test]
fn faults_of_frames_name_the_event() {
    let good = frame(None, None, b"a");
    for (bad, code) in [
        (b"\x01\0\0".to_vec(), "bad_frame"),
        (vec![0, 0, 0, 0, 4], "bad_frame"),
        (vec![255, 255, 255, 255, 0, b'x'], "bad_frame"),
        (frame(None, None, &[b'x'; MAX + 1]), "event_too_large"),
        (frame(Some(&[0; KEY_BYTES_MAX + 1]), None, b""), "key_too_long"),
        (frame(Some(b"k\xff"), None, b""), "bad_key"),
        (frame(None, Some(b""), b""), "bad_content_type"),
        (frame(None, Some(b"a\r\nb"), b""), "bad_content_type"),
        (frame(None, Some(&[b'a'; CONTENT_TYPE_BYTES_MAX + 1]), b""), "bad_content_type"),
    ] {
        assert_eq!(refusal(Format::Binary, &bad, None), (code, Some(Place::Event(0))));
        let second = [&good[..], &bad, &good].concat();
        assert_eq!(refusal(Format::Binary, &second, None), (code, Some(Place::Event(1))));
    }
    assert_eq!(refusal(Format::Binary, b"", None), ("empty_batch", None));
    assert_eq!(refusal(Format::Binary, &good, Some("/o")), ("bad_key_path", None));
}

#[test]
fn limits_are_reached_exactly() {
    let body = frame(Some(&[0; KEY_BYTES_MAX]), Some(&[b'a'; CONTENT_TYPE_BYTES_MAX]), &[b'x'; MAX]);
    assert_eq!(events(Format::Binary, &body, None).map(|pieces| pieces.len()), Ok(1));
    let most = "1\n".repeat(EVENTS_PER_BATCH_MAX);
    assert_eq!(events(NDJSON, most.as_bytes(), None).map(|pieces| pieces.len()), Ok(EVENTS_PER_BATCH_MAX));
    let fault = events(NDJSON, format!("{most}\n1").as_bytes(), None).expect_err("one more");
    assert_eq!((fault.code, fault.place), ("too_many_events", Some(Place::Line(EVENTS_PER_BATCH_MAX as u64 + 2))));

    let path = KeyPath::parse("").expect("the empty pointer");
    let key = |bytes| format!("\"{}\"", "k".repeat(bytes));
    assert_eq!(split(NDJSON, key(KEY_BYTES_MAX).as_bytes(), Some(&path), usize::MAX, drop), Ok(()));
    let long = key(KEY_BYTES_MAX + 1);
    let fault = split(NDJSON, long.as_bytes(), Some(&path), usize::MAX, drop).expect_err("too long");
    assert_eq!(fault.code, "key_too_long");
}

proptest! {
    #[test]
    fn values_come_back_out_of_arrays_and_lines(
        values in prop::collection::vec((any::<Option<i32>>(), "[ -~é\"\\\\\\n]{0,12}", any::<bool>()), 1..8),
    ) {
        let values: Vec<_> = values.iter().map(|(number, text, flag)| serde_json::json!({text: [number, flag]})).collect();
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        let array = serde_json::Value::from(values.clone());
        let read = |piece: &Piece<'_>| serde_json::from_slice::<serde_json::Value>(piece.data).expect("JSON");
        let compact = array.to_string();
        let found = events(Format::Json, compact.as_bytes(), None).expect("an array");
        prop_assert!(found.iter().map(|piece| piece.data).eq(texts.iter().map(String::as_bytes)));
        prop_assert!(found.iter().all(|piece| piece.encoding == Encoding::Json));
        let pretty = format!("{array:#}");
        let found = split_all(Format::Json, pretty.as_bytes());
        prop_assert!(found.iter().map(read).eq(values));
        prop_assert!(found.iter().all(|piece| piece.encoding == Encoding::Text));
        let lines = texts.join("\r\n");
        let found = events(NDJSON, lines.as_bytes(), None).expect("lines");
        prop_assert!(found.iter().map(|piece| piece.data).eq(texts.iter().map(String::as_bytes)));
    }

    #[test]
    fn noise_never_panics_and_pieces_keep_their_promise(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            prop::collection::vec(prop::sample::select(&b"[]{},:\"\\ \r\n\t01-.eEtrufalsn\0\x01\x02\x03\xc3\xa9"[..]), 0..24),
        ],
        path in prop::sample::select(vec![None, Some(""), Some("/0"), Some("/a/0")]),
    ) {
        for format in [Format::Json, NDJSON, TEXT, Format::Binary] {
            for piece in events(format, &body, path).unwrap_or_default() {
                prop_assert!(body.as_ptr_range().contains(&piece.data.as_ptr()) || piece.data.is_empty());
                prop_assert_eq!(piece.encoding, classify(piece.data));
                prop_assert!(path.is_none() || piece.key.is_some());
            }
        }
    }
}

fn split_all(format: Format, body: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    split(format, body, None, usize::MAX, |piece| pieces.push(piece)).expect("good");
    pieces
}
