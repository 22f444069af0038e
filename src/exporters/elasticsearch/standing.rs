//! What an answer means for a document: taken, to be sent again, or refused for good.
//!
//! | said of a document | it is |
//! |---|---|
//! | 200, 201; 409 (it is there already) | taken |
//! | 429, 503, circuit breakers | sent again, as often as that is said |
//! | other 5xx | sent again |
//! | 401, 403, 404, a block of an index or the cluster, too many shards, no template, no pipeline | sent again, when someone has acted |
//! | 400 and all others | refused: a dead letter |

use super::answer::Said;
use crate::component::RetryCause;

/// Reasons that are told apart in one answer; beyond them only their kinds are.
const REASONS_MAX: usize = 64;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Taken,
    /// It was there already.
    Duplicate,
    Again(Wait),
    /// With the number of its reason.
    Refused(usize),
}

/// What it waits for; the worse the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wait {
    Passing,
    TimedOut,
    Unreached,
    Busy,
    Blocked,
}

impl Wait {
    pub(super) const fn cause(self) -> RetryCause {
        match self {
            Self::Passing => RetryCause::Passing,
            Self::TimedOut => RetryCause::Timeout,
            Self::Unreached => RetryCause::Unreached,
            Self::Busy => RetryCause::Busy,
            Self::Blocked => RetryCause::Blocked,
        }
    }
}

/// What is said of one document.
pub(super) fn of(said: &Said, also_again: &[u16], reasons: &mut Reasons) -> Standing {
    let wait = match said.status {
        200 | 201 => return Standing::Taken,
        409 => return Standing::Duplicate,
        _ if is_blocked(said) => Wait::Blocked,
        429 | 503 => Wait::Busy,
        status if status >= 500 || status == 0 || also_again.contains(&status) => Wait::Passing,
        _ => return Standing::Refused(reasons.number(said)),
    };
    reasons.waits(wait, said);
    Standing::Again(wait)
}

/// Whether it is the state of the cluster that someone has to change, and the document is not at fault.
pub(super) fn is_blocked(said: &Said) -> bool {
    let says = |words: &str| said.reason.contains(words) || said.cause.contains(words);
    matches!(said.status, 401 | 403 | 404)
        || matches!(
            said.kind.as_str(),
            "cluster_block_exception"
                | "index_not_found_exception"
                | "index_closed_exception"
                | "security_exception"
                | "index_create_block_exception"
        )
        || (says("maximum") && says("shards open"))
        || says("no matching index template")
        || says("only write ops with an op_type of create are allowed in data streams")
        || (says("pipeline with id") && says("does not exist"))
}

/// The reasons of one answer.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    pub(super) texts: Vec<String>,
    /// Of the worst wait.
    worst: Option<(Wait, String)>,
}

impl Reasons {
    fn number(&mut self, said: &Said) -> usize {
        let mut text = text(said);
        if self.texts.len() >= REASONS_MAX && !self.texts.contains(&text) {
            text = format!("{} {}", said.status, kind(said));
        }
        self.number_of(text)
    }

    /// Of a text that is ours.
    pub(super) fn number_of(&mut self, mut text: String) -> usize {
        // Kinds are few, unless someone makes them up.
        if self.texts.len() >= 2 * REASONS_MAX {
            "refused".clone_into(&mut text);
        }
        self.texts.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.texts.push(text);
            self.texts.len() - 1
        })
    }

    fn waits(&mut self, wait: Wait, said: &Said) {
        if self.worst.as_ref().is_none_or(|(worst, _)| wait > *worst) {
            self.worst = Some((wait, format!("{}{}", text(said), help(said))));
        }
    }

    /// Notes why documents wait that nothing was said of.
    pub(super) fn waits_for(&mut self, wait: Wait, reason: &str) {
        if self.worst.as_ref().is_none_or(|(worst, _)| wait > *worst) {
            self.worst = Some((wait, reason.to_owned()));
        }
    }

    pub(super) fn worst(&self) -> Option<&(Wait, String)> {
        self.worst.as_ref()
    }
}

fn kind(said: &Said) -> &str {
    if said.kind.is_empty() { "error" } else { cut(&said.kind, 100) }
}

/// `400 mapper_parsing_exception: failed to parse field [a] of type [long]`, without what the document says.
pub(super) fn text(said: &Said) -> String {
    let mut text = format!("{} {}", said.status, kind(said));
    for (before, part) in [(": ", &said.reason), ("; because: ", &said.cause)] {
        if !part.is_empty() {
            text.push_str(before);
            text.push_str(cut(&without_values(part), REASON_BYTES_MAX / 2));
        }
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// Reasons quote what the document says, and name the document: neither belongs into a log, and both make every reason another.
fn without_values(reason: &str) -> String {
    let mut text = reason.to_owned();
    for (before, end) in [
        (" in document with id '", "'"),
        ("Preview of field's value: '", "'"),
        ("For input string: \"", "\""),
        ("failed to parse date field [", "]"),
    ] {
        let Some(start) = text.find(before) else { continue };
        let value = start + before.len();
        let close = text.get(value..).and_then(|rest| rest.find(end)).map_or(text.len(), |at| value + at);
        text.replace_range(value..close, "…");
    }
    text
}

/// What to do about it.
fn help(said: &Said) -> &'static str {
    let says = |words: &str| said.reason.contains(words);
    if says("shards open") {
        " (fewer or larger indices, or a higher cluster.max_shards_per_node)"
    } else if said.kind == "index_not_found_exception" || says("no matching index template") {
        " (`weir elasticsearch setup` installs the templates)"
    } else if said.kind == "cluster_block_exception" && says("flood-stage") {
        " (the disk of a node is full: the block goes when there is room again)"
    } else if said.status == 403 && said.kind == "security_exception" {
        " (the user or API key needs the index privileges create_doc and auto_configure)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, kind: &str, reason: &str) -> Said {
        Said { status, kind: kind.to_owned(), reason: reason.to_owned(), ..Said::default() }
    }

    #[test]
    fn the_table() {
        use Standing::{Again, Duplicate, Refused, Taken};
        let rows = [
            (said(200, "", ""), Taken),
            (said(201, "", ""), Taken),
            (said(409, "version_conflict_engine_exception", "document already exists"), Duplicate),
            (said(429, "es_rejected_execution_exception", "queue"), Again(Wait::Busy)),
            (said(429, "circuit_breaking_exception", "[parent] Data too large"), Again(Wait::Busy)),
            (said(503, "unavailable_shards_exception", ""), Again(Wait::Busy)),
            (said(500, "null_pointer_exception", ""), Again(Wait::Passing)),
            (said(429, "cluster_block_exception", "disk usage exceeded flood-stage watermark"), Again(Wait::Blocked)),
            (
                said(403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)];"),
                Again(Wait::Blocked),
            ),
            (said(404, "index_not_found_exception", "no such index [x]"), Again(Wait::Blocked)),
            (said(401, "security_exception", ""), Again(Wait::Blocked)),
            (
                said(
                    400,
                    "validation_exception",
                    "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;",
                ),
                Again(Wait::Blocked),
            ),
            (said(400, "illegal_argument_exception", "pipeline with id [p] does not exist"), Again(Wait::Blocked)),
            (said(400, "document_parsing_exception", "failed to parse"), Refused(0)),
            (said(400, "strict_dynamic_mapping_exception", "mapping set to strict"), Refused(0)),
            (said(413, "", "too large"), Refused(0)),
        ];
        for (said, wanted) in rows {
            assert_eq!(of(&said, &[], &mut Reasons::default()), wanted, "{said:?}");
        }
        assert_eq!(of(&said(400, "x", ""), &[400], &mut Reasons::default()), Again(Wait::Passing));
    }

    #[test]
    fn reasons_have_no_values_and_their_number_is_bounded() {
        let mut reasons = Reasons::default();
        for n in 0..10_000 {
            let one = said(
                400,
                "mapper_parsing_exception",
                &format!(
                    "failed to parse field [a] of type [long] in document with id '{n}'. Preview of field's value: 'secret {n}'"
                ),
            );
            assert_eq!(of(&one, &[], &mut reasons), Standing::Refused(0));
        }
        assert_eq!(
            reasons.texts,
            [
                "400 mapper_parsing_exception: failed to parse field [a] of type [long] in document with id '…'. Preview of field's value: '…'"
            ]
        );
        for n in 0..10_000 {
            of(&said(400, &format!("kind{n}"), &format!("{n}")), &[], &mut reasons);
        }
        assert!(reasons.texts.len() <= 2 * REASONS_MAX + 1);
    }
}
