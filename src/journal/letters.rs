//! Dead letters: what a consumer refused for good, with who refused it, where it came from, and why.

use std::sync::Arc;

use crate::signal::{Batch, UnixNanos};

/// Why a consumer does not take data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The backend says that the data is wrong.
    Rejected,
    /// The backend refused it with a status that need not be about the data.
    Refused,
    /// A single item is larger than the backend takes.
    TooLarge,
    /// The backend took a request but for some of its items, and did not say which: the letter holds all of them.
    Partial,
    /// It failed again and again while others were taken.
    GivenUp,
    /// The credentials that came with it are refused.
    Denied,
    /// A component panicked on it.
    Panic,
}

impl Refusal {
    pub const ALL: [Self; 7] =
        [Self::Rejected, Self::Refused, Self::TooLarge, Self::Partial, Self::GivenUp, Self::Denied, Self::Panic];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Partial => "partial",
            Self::GivenUp => "given_up",
            Self::Denied => "denied",
            Self::Panic => "panic",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// The record that a letter comes from; by name, because numbers of topics are those of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub topic: Arc<str>,
    pub shard: u16,
    pub offset: u64,
}

/// What is known of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `otlp_grpc/eu in pipeline traces`, as its place in the journal is named.
    pub consumer: Arc<str>,
    pub origin: Origin,
    pub refused: UnixNanos,
    pub reason: Refusal,
    /// Status and words of the backend, cut to [`MESSAGE_BYTES_MAX`].
    pub message: String,
    /// Of this data, over all its replays.
    pub attempts: u32,
    /// Whether it is what the pipeline's processors made of the record; otherwise they are still to be run.
    pub is_processed: bool,
}

/// Words of a peer are cut to this many bytes before they reach the disk.
pub const MESSAGE_BYTES_MAX: usize = 1024;

impl Note {
    /// Cuts the words where they are too long.
    pub fn bounded(message: &str) -> String {
        message.get(..message.floor_char_boundary(MESSAGE_BYTES_MAX)).unwrap_or_default().to_owned()
    }
}

/// Data that was refused for good.
#[derive(Debug, Clone)]
pub struct Letter {
    pub note: Note,
    /// When the record that it comes from was received.
    pub received: UnixNanos,
    pub batch: Batch,
}

/// A letter in the journal: its offset, and what it adds to the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterRef {
    pub offset: u64,
    pub items: u64,
    pub bytes: u64,
}

/// Whether a consumer goes by this name: its own, or that of its component.
fn is_of(consumer: &str, name: &str) -> bool {
    consumer.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(" in pipeline "))
}

/// Which letters are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    pub consumer: Option<String>,
    pub reason: Option<Refusal>,
    /// Refused then or later.
    pub since: Option<UnixNanos>,
}

impl LetterFilter {
    pub fn takes(&self, note: &Note) -> bool {
        self.consumer.as_ref().is_none_or(|consumer| is_of(&note.consumer, consumer))
            && self.reason.is_none_or(|reason| reason == note.reason)
            && self.since.is_none_or(|since| note.refused >= since)
    }

    /// As [`Self::takes`], for a replay: a letter that holds what the backend took, too, is meant only by its reason's name.
    pub fn replays(&self, note: &Note) -> bool {
        self.takes(note) && (note.reason != Refusal::Partial || self.reason.is_some())
    }
}

/// What a person asked to be delivered once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    pub filter: LetterFilter,
    /// Letters before this offset.
    pub to: u64,
    /// Letters refused by then: one that comes back is not sent again.
    pub asked: UnixNanos,
}

impl ReplayRequest {
    pub fn takes(&self, offset: u64, note: &Note) -> bool {
        offset < self.to && note.refused <= self.asked && self.filter.replays(note)
    }
}
