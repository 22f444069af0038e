//! The answer to a bulk request, read as it comes: what it says of each document, and nothing else is kept.
//!
//! Memory is bounded by the documents that were sent: an answer may be as long, as deep or as broken as it likes. What it does not say of a document is
//! not known.

use smallvec::SmallVec;

/// Containers inside containers.
const DEPTH_MAX: usize = 32;
/// Bytes kept of a text; the rest is passed over.
const TEXT_BYTES_MAX: usize = 1024;

/// What was said of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: u16,
    /// Of the error; empty where there is none.
    pub(super) kind: String,
    pub(super) reason: String,
    /// What is behind it, where that is said.
    pub(super) cause: String,
    /// `used`, `failed`, …
    pub(super) failure_store: String,
}

/// Keys that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Key {
    #[default]
    Other,
    Items,
    Status,
    Error,
    Kind,
    Reason,
    CausedBy,
    FailureStore,
}

impl Key {
    fn of(text: &[u8]) -> Self {
        match text {
            b"items" => Self::Items,
            b"status" => Self::Status,
            b"error" => Self::Error,
            b"type" => Self::Kind,
            b"reason" => Self::Reason,
            b"caused_by" => Self::CausedBy,
            b"failure_store" => Self::FailureStore,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    is_array: bool,
    /// Of the value that is being read, in an object.
    key: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    /// A value, or the end of the array.
    FirstValue,
    Key,
    /// A key, or the end of the object.
    FirstKey,
    Colon,
    AfterValue,
    Text {
        is_key: bool,
    },
    Escape {
        is_key: bool,
    },
    /// So many digits of a `\u` are to come.
    Unicode {
        is_key: bool,
        left: u8,
    },
    /// A number or a word.
    Word,
    End,
    Wrong,
}

/// Reads an answer in pieces.
#[derive(Debug)]
pub(super) struct Answer {
    state: State,
    levels: SmallVec<[Level; 8]>,
    text: Vec<u8>,
    code_point: u32,
    current: Said,
    /// What is said of the request as a whole.
    whole: Said,
    /// Documents that were spoken of.
    pub(super) count: usize,
    /// Documents that were sent.
    sent: usize,
}

impl Answer {
    pub(super) fn new(sent: usize) -> Self {
        Self {
            state: State::Value,
            levels: SmallVec::new(),
            text: Vec::new(),
            code_point: 0,
            current: Said::default(),
            whole: Said::default(),
            count: 0,
            sent,
        }
    }

    /// What it says of the request as a whole: an error, where it is one.
    pub(super) fn whole(&self) -> &Said {
        &self.whole
    }

    /// Whether it is JSON as far as it came.
    pub(super) fn is_json(&self) -> bool {
        self.state != State::Wrong
    }

    /// Takes what came; calls `each` with the number of a document and what is said of it, in order. `false`: no more is wanted.
    pub(super) fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(usize, &Said)) -> bool {
        let mut rest = bytes;
        while let Some((byte, tail)) = rest.split_first() {
            // Most of an answer is in texts.
            if let State::Text { is_key } = self.state {
                let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len());
                self.keep(rest.get(..plain).unwrap_or_default());
                rest = rest.get(plain..).unwrap_or_default();
                let Some((byte, tail)) = rest.split_first() else { break };
                rest = tail;
                if *byte == b'"' {
                    self.text_ended(is_key);
                } else {
                    self.state = State::Escape { is_key };
                }
                continue;
            }
            rest = tail;
            self.step(*byte, each);
            if matches!(self.state, State::End | State::Wrong) {
                return false;
            }
        }
        // More answers than documents: whatever this is, it has no end that matters.
        self.count <= self.sent
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = TEXT_BYTES_MAX.saturating_sub(self.text.len());
        self.text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn step(&mut self, byte: u8, each: &mut dyn FnMut(usize, &Said)) {
        match self.state {
            State::Escape { is_key } => {
                self.state = State::Text { is_key };
                match byte {
                    b'n' | b'r' | b't' | b'b' | b'f' => self.keep(b" "),
                    b'u' => {
                        self.code_point = 0;
                        self.state = State::Unicode { is_key, left: 4 };
                    }
                    b'"' | b'\\' | b'/' => self.keep(&[byte]),
                    _ => self.state = State::Wrong,
                }
            }
            State::Unicode { is_key, left } => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    self.state = State::Wrong;
                    return;
                };
                self.code_point = self.code_point << 4 | digit;
                if left > 1 {
                    self.state = State::Unicode { is_key, left: left - 1 };
                    return;
                }
                // Halves of a pair are of no use to a reader of errors.
                let c = char::from_u32(self.code_point).filter(|c| !c.is_control()).unwrap_or('\u{fffd}');
                self.keep(c.encode_utf8(&mut [0; 4]).as_bytes());
                self.state = State::Text { is_key };
            }
            State::Word => match byte {
                b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' => {
                    self.scalar();
                    self.state = State::AfterValue;
                    self.step(byte, each);
                }
                _ => self.keep(&[byte]),
            },
            _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => {}
            State::Value | State::FirstValue => self.value(byte, each),
            State::Key | State::FirstKey => match byte {
                b'"' => {
                    self.text.clear();
                    self.state = State::Text { is_key: true };
                }
                b'}' if self.state == State::FirstKey => self.close(false, each),
                _ => self.state = State::Wrong,
            },
            State::Colon => self.state = if byte == b':' { State::Value } else { State::Wrong },
            State::AfterValue => match (byte, self.levels.last().map(|level| level.is_array)) {
                (b',', Some(true)) => self.state = State::Value,
                (b',', Some(false)) => self.state = State::Key,
                (b']', Some(true)) => self.close(true, each),
                (b'}', Some(false)) => self.close(false, each),
                _ => self.state = State::Wrong,
            },
            State::Text { .. } | State::End | State::Wrong => {}
        }
    }

    fn value(&mut self, byte: u8, each: &mut dyn FnMut(usize, &Said)) {
        match byte {
            b'{' | b'[' => {
                if self.levels.len() >= DEPTH_MAX {
                    self.state = State::Wrong;
                    return;
                }
                if self.is_item() {
                    self.current = Said::default();
                }
                let is_array = byte == b'[';
                self.levels.push(Level { is_array, key: Key::Other });
                self.state = if is_array { State::FirstValue } else { State::FirstKey };
            }
            b']' if self.state == State::FirstValue => self.close(true, each),
            b'"' => {
                self.text.clear();
                self.state = State::Text { is_key: false };
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.text.clear();
                self.text.push(byte);
                self.state = State::Word;
            }
            _ => self.state = State::Wrong,
        }
    }

    fn text_ended(&mut self, is_key: bool) {
        if is_key {
            let key = Key::of(&self.text);
            if let Some(level) = self.levels.last_mut() {
                level.key = key;
            }
            self.state = State::Colon;
        } else {
            self.scalar();
            self.state = if self.levels.is_empty() { State::End } else { State::AfterValue };
        }
    }

    /// Whether what begins here is one of the `items`.
    fn is_item(&self) -> bool {
        matches!(self.levels.as_slice(), [Level { is_array: false, key: Key::Items }, Level { is_array: true, .. }])
    }

    fn close(&mut self, is_array: bool, each: &mut dyn FnMut(usize, &Said)) {
        if self.levels.pop().is_none_or(|level| level.is_array != is_array) {
            self.state = State::Wrong;
            return;
        }
        if !is_array && self.is_item() {
            if self.count < self.sent {
                each(self.count, &self.current);
            }
            self.count += 1;
        }
        self.state = if self.levels.is_empty() { State::End } else { State::AfterValue };
    }

    fn scalar(&mut self) {
        use Key::{CausedBy, Error, FailureStore, Items, Kind, Reason, Status};
        let keys: SmallVec<[Key; 8]> = self.levels.iter().map(|level| level.key).collect();
        let text = || String::from_utf8_lossy(&self.text).into_owned();
        let (said, path) = match keys.as_slice() {
            // An item is an object of one action, which is an object.
            [Items, _, _, path @ ..] => (&mut self.current, path),
            path => (&mut self.whole, path),
        };
        let place = match path {
            [Status] => {
                said.status = std::str::from_utf8(&self.text).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                return;
            }
            [Error, Kind] => &mut said.kind,
            [Error, Reason] | [Error] => &mut said.reason,
            [Error, CausedBy, Reason] => &mut said.cause,
            [FailureStore] => &mut said.failure_store,
            _ => return,
        };
        *place = text();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = r#"{"took":30,"errors":true,"items":[
        {"create":{"_index":"a","status":201}},
        {"create":{"_index":"a","_id":"1","status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse \"x\" \u00e9",
          "root_cause":[{"type":"no","reason":"no"}],"caused_by":{"type":"t","reason":"For input string: \"a\""}}}},
        {"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"queue"},"failure_store":"not_enabled"}}
    ],"ingest_took":1}"#;

    fn read(pieces: &[&[u8]], sent: usize) -> (Vec<(usize, Said)>, Answer) {
        let (mut said, mut answer) = (Vec::new(), Answer::new(sent));
        for piece in pieces {
            answer.take(piece, &mut |at, one| said.push((at, one.clone())));
        }
        (said, answer)
    }

    #[test]
    fn says_what_became_of_each_document() {
        let (said, answer) = read(&[ANSWER.as_bytes()], 3);
        assert_eq!(said.len(), 3);
        assert_eq!(said[0], (0, Said { status: 201, ..Said::default() }));
        let wrong = Said {
            status: 400,
            kind: "mapper_parsing_exception".to_owned(),
            reason: "failed to parse \"x\" é".to_owned(),
            cause: "For input string: \"a\"".to_owned(),
            failure_store: String::new(),
        };
        assert_eq!(said[1], (1, wrong));
        assert_eq!((said[2].1.status, &*said[2].1.failure_store), (429, "not_enabled"));
        assert!(answer.is_json());
    }

    #[test]
    fn an_error_of_the_whole_request_is_told_from_those_of_items() {
        let text =
            r#"{"error":{"root_cause":[{"type":"x","reason":"y"}],"type":"security_exception","reason":"no"},"status":403}"#;
        let (said, answer) = read(&[text.as_bytes()], 3);
        assert!(said.is_empty());
        assert_eq!((answer.whole().status, &*answer.whole().kind, &*answer.whole().reason), (403, "security_exception", "no"));
        let (_, answer) = read(&[br#"{"error":"Incorrect HTTP method","status":405}"#], 3);
        assert_eq!(answer.whole().reason, "Incorrect HTTP method");
    }

    #[test]
    fn an_answer_without_end_grows_nothing() {
        let mut answer = Answer::new(2);
        let mut told = 0;
        assert!(answer.take(br#"{"items":[{"create":{"status":201,"error":{"reason":""#, &mut |_, _| told += 1));
        for _ in 0..1000 {
            assert!(answer.take(&vec![b'x'; 64 * 1024], &mut |_, _| told += 1));
        }
        assert!(answer.text.capacity() <= 4 * TEXT_BYTES_MAX);
        // Items that were not asked for are passed over.
        let mut answer = Answer::new(2);
        answer.take(b"{\"items\":[", &mut |_, _| told += 1);
        for _ in 0..10_000 {
            answer.take(b"{\"create\":{\"status\":201}},", &mut |_, _| told += 1);
        }
        assert_eq!((told, answer.count), (2, 10_000));
        // And nothing is as deep as one likes.
        assert!(!Answer::new(1).take(&vec![b'['; 100_000], &mut |_, _| {}));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cut in 0..ANSWER.len(), other in 0..ANSWER.len()) {
            let (a, b) = (cut.min(other), cut.max(other));
            let bytes = ANSWER.as_bytes();
            let (said, _) = read(&[&bytes[..a], &bytes[a..b], &bytes[b..]], 3);
            prop_assert_eq!(said, read(&[bytes], 3).0);
        }

        #[test]
        fn nothing_that_comes_in_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), sent in 0_usize..5) {
            read(&[&bytes], sent);
        }

        #[test]
        fn broken_answers_say_what_they_said_before(at in 0..ANSWER.len(), byte: u8) {
            let mut bytes = ANSWER.as_bytes().to_vec();
            bytes[at] = byte;
            let (said, _) = read(&[&bytes], 3);
            prop_assert!(said.len() <= 3);
        }
    }
}
