//! Every fixed bound of the broker, with its reason, proved against each other at compile time.
//!
//! What an operator may want to change is in `config`; what stands here is part of a format or keeps memory bounded.

// ---- the journal

/// Unit of direct writes; entries begin on a fresh one and are padded to it.
pub const BLOCK_BYTES: usize = 4096;
/// Smallest file of the journal ring.
pub const JOURNAL_FILE_BYTES_MIN: u64 = 1 << 20;
/// Fewest files of a ring: one being written, one linked after a cut, and two that wait for a checkpoint.
pub const JOURNAL_FILES_MIN: u64 = 4;
/// Commits of a shard that may be on their way to the disk at once; recovery relies on it being 2.
pub const COMMITS_IN_FLIGHT_MAX: usize = 2;
/// Largest entry, header and padding included: what one commit may gather, and the memory of one write.
pub const ENTRY_BYTES_MAX: usize = 20 << 20;

// ---- frames

/// A frame takes no further request beyond this, so that a reader checks and decodes small pieces.
pub const FRAME_BYTES_SOFT_MAX: usize = 256 << 10;
/// Largest body of a batch that a configuration may allow.
pub const BATCH_BYTES_LIMIT: u64 = 16 << 20;
/// Events in one batch.
pub const EVENTS_PER_BATCH_MAX: usize = 100_000;
/// Key of an event.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Content type of an event.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// All headers of an event together, encoded.
pub const EVENT_HEADERS_BYTES_MAX: usize = 8 << 10;
/// Name that a producer gives itself.
pub const PRODUCER_ID_BYTES_MAX: usize = 128;

// ---- groups

/// Name of a group as a caller may choose it; `.dead` still fits behind it in 128.
pub const GROUP_NAME_BYTES_MAX: usize = 120;
/// Producers remembered per group; the one that was quiet longest is forgotten first.
pub const PRODUCERS_PER_GROUP_MAX: usize = 100_000;
/// Answers remembered per producer for its repeated requests.
pub const ANSWERS_PER_PRODUCER: usize = 64;
/// A producer that was quiet for longer is forgotten.
pub const PRODUCER_IDLE_US: u64 = 7 * 24 * 3600 * 1_000_000;

// ---- consumers

/// Name of a consumer.
pub const CONSUMER_NAME_BYTES_MAX: usize = 120;
/// Consumers of a group that retention may spare.
pub const PROTECTED_MAX: usize = 64;
/// Events that may be delivered to a consumer and not acked, unless its approval says otherwise.
pub const CONSUMER_EVENTS_DEFAULT: u64 = 10_000;
/// Bytes of such events.
pub const CONSUMER_BYTES_DEFAULT: u64 = 64 << 20;
/// Ranges that wait to be delivered to a consumer again.
pub const CONSUMER_REPLAYS_MAX: usize = 1_000;
/// What a consumer may say of a failure.
pub const REASON_BYTES_MAX: usize = 1 << 10;
/// Where a consumer asks to begin, as text.
pub const START_BYTES_MAX: usize = 128;
/// A consumer as it is stored; what any change of one needs room for.
pub const CONSUMER_RECORD_BYTES_MAX: usize = 512 + REASON_BYTES_MAX + START_BYTES_MAX + 16 * CONSUMER_REPLAYS_MAX;
/// Events of one answer to a consumer when it does not say.
pub const NEXT_EVENTS_DEFAULT: u64 = 500;
/// Consumers on one page of a list.
pub const CONSUMERS_PER_PAGE_MAX: usize = 1_000;

// ---- segments

/// First allocation of a segment; it doubles as the group grows, so that a quiet group costs kilobytes.
pub const SEGMENT_FIRST_BYTES: u64 = 16 << 10;
/// Smallest `segment.max_bytes` that a group may ask for.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Largest `segment.max_bytes`: places within a segment fit in 32 bits with room to spare.
pub const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;
/// One index entry per this many bytes of a segment.
pub const INDEX_STRIDE_BYTES: u64 = 64 << 10;
/// A group's tail is moved to its segment once this much is pending.
pub const FLUSH_BYTES: usize = 256 << 10;
/// A flush is written out in pieces of this size, so that commits get the disk in between.
pub const PACE_BYTES: u64 = 1 << 20;

// ---- reading

/// Bytes read from a segment, and sent to a reader, at once.
pub const READ_PIECE_BYTES: usize = 256 << 10;
/// Bytes of a finite answer that are held while its end is looked for; what lies beyond is read again to be sent.
pub const HELD_BYTES: usize = 2 << 20;
/// Answers that a core holds at the same time; of any more only the first piece is held.
pub const HELD_ANSWERS_MAX: usize = 16;
/// Events of one finite answer.
pub const READ_EVENTS_MAX: u64 = 100_000;
/// Events of one that goes down from its end: all of them are read before the first is sent.
pub const DESCENDING_EVENTS_MAX: u64 = 10_000;
/// Events of one finite answer when the caller does not say.
pub const READ_EVENTS_DEFAULT: u64 = 1_000;
/// Bytes of one finite answer.
pub const READ_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one finite answer when the caller does not say.
pub const READ_BYTES_DEFAULT: u64 = 1 << 20;
/// Encoded events that a core keeps for the next reader.
pub const PIECES_BYTES_MAX: usize = 8 << 20;
/// Longest wait of a long poll.
pub const WAIT_SECONDS_MAX: u64 = 60;
/// Groups on one page of a list.
pub const GROUPS_PER_PAGE_MAX: usize = 1_000;

// ---- requests

/// Head of a request, from its first byte to its empty line; trailers of a chunked body have the same room.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Target (path and query) of a request.
pub const TARGET_BYTES_MAX: usize = 8 << 10;
/// Header fields of a request.
pub const HEADERS_MAX: usize = 64;
/// Extensions of one chunk; nobody reads them.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 256;
/// Nesting of a JSON value: inside the three levels of an answer it stays below the 128 at which parsers give up.
pub const JSON_DEPTH_MAX: u32 = 120;

// ---- queries

/// Text of a query: it fits the body of a small request.
pub const QUERY_BYTES_MAX: usize = 32 << 10;
/// Items of a list in a query.
pub const QUERY_ITEMS_MAX: usize = 256;
/// Parentheses in one another.
pub const QUERY_DEPTH_MAX: usize = 32;
/// Characters of a LIKE pattern between two `%`, if `_` is among them: the bits of a word.
pub const QUERY_LIKE_PIECE_MAX: usize = u64::BITS as usize;
/// Steps of a path in an event's data.
pub const QUERY_PATH_STEPS_MAX: usize = 32;
/// Rows of one JSON answer when the query has no LIMIT; no more than may be.
pub const QUERY_ROWS_DEFAULT: u64 = 10_000;
/// Slices that the range of a query may be cut into.
pub const QUERY_SLICES_MAX: u64 = 1_000_000;
/// How long a query runs before others that wait for its thread have theirs.
pub const QUERY_TURN: std::time::Duration = std::time::Duration::from_millis(20);
/// Threads that queries run on; there are no more than CPUs.
pub const QUERY_THREADS_MAX: usize = 8;
/// Text of a query that runs, where those are listed.
pub const QUERY_SHOWN_BYTES_MAX: usize = 1 << 10;
/// Values up to which percentiles and distinct counts are exact.
pub const QUERY_EXACT_MAX: usize = 1_000;

// ---- tokens and the audit log

/// Names and prefixes of groups in one token.
pub const TOKEN_GROUPS_MAX: usize = 32;
/// Origins of one token.
pub const TOKEN_ORIGINS_MAX: usize = 8;
/// One of them: a host name has at most 253 characters.
pub const TOKEN_ORIGIN_BYTES_MAX: usize = 270;
/// What a token is called by people.
pub const TOKEN_NAME_BYTES_MAX: usize = 128;
/// Requests a second that a token may be limited to.
pub const TOKEN_RATE_MAX: u32 = 1_000_000;
/// Tokens on one page of a list.
pub const TOKENS_PER_PAGE_MAX: usize = 1_000;
/// Tokens whose secrets a core keeps verified; more are verified again when they are used.
pub const TOKENS_VERIFIED_MAX: usize = 1_024;
/// Bytes of audit events of a shard that are not in `_audit` yet; with more of them nothing is changed.
pub const AUDIT_PENDING_BYTES_MAX: usize = 1 << 20;
/// Bytes of audit events brought to `_audit` at once.
pub const AUDIT_BATCH_BYTES: usize = 64 << 10;

// ---- connections

/// Bytes received at once while requests are small.
pub const RECEIVE_BYTES: usize = 16 << 10;
/// Receive buffers kept for the next receive, per core.
pub const RECEIVE_BUFFERS_KEPT: usize = 256;
/// What a client still sends after a refusal is discarded up to here.
pub const LINGER_BYTES: usize = 1 << 20;
/// And for this long.
pub const LINGER_TIME: std::time::Duration = std::time::Duration::from_secs(1);

const _: () = {
    assert!(
        BATCH_BYTES_LIMIT as usize + EVENTS_PER_BATCH_MAX * 32 + 2 * BLOCK_BYTES <= ENTRY_BYTES_MAX,
        "a batch fits an entry"
    );
    assert!(SEGMENT_BYTES_LIMIT <= u32::MAX as u64 / 2, "a place in a segment fits 32 bits");
    assert!(FRAME_BYTES_SOFT_MAX <= READ_PIECE_BYTES, "an ordinary frame is read in one piece");
    assert!(SEGMENT_FIRST_BYTES <= SEGMENT_BYTES_MIN, "a segment can begin");
    assert!(EVENT_HEADERS_BYTES_MAX <= u16::MAX as usize, "an event's headers fit 16 bits");
    assert!(KEY_BYTES_MAX <= u16::MAX as usize, "a key fits 16 bits");
    assert!(PRODUCER_ID_BYTES_MAX <= u8::MAX as usize, "a producer's id fits 8 bits");
    assert!(
        CONSUMER_RECORD_BYTES_MAX as u64 + 2 * BLOCK_BYTES as u64 <= JOURNAL_FILE_BYTES_MIN,
        "a consumer fits an entry"
    );
    assert!(REASON_BYTES_MAX <= u16::MAX as usize, "a reason fits 16 bits");
    assert!(JOURNAL_FILE_BYTES_MIN.is_multiple_of(BLOCK_BYTES as u64), "files are whole blocks");
};
