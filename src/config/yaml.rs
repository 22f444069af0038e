//! YAML text → [`Node`] tree. The only file that knows the YAML parser.
//!
//! Aliases and merge keys (`<<`) are resolved here. Everything is bounded: text, depth, and the number of nodes after aliases are
//! copied in, so that a short file cannot become a large tree.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag};

use super::{Diagnostics, Node, Origin, Value, scalar};

/// Longest text that is read, in bytes.
pub(super) const TEXT_MAX: usize = 16 << 20;
/// Deepest nesting of maps and lists.
pub(super) const DEPTH_MAX: usize = 100;
/// Most values in one document, aliases counted as often as they are used.
pub(super) const NODES_MAX: usize = 250_000;

/// Most keys written twice that are told of.
const TWICE_MAX: usize = 100;

/// A syntax error: where and what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) origin: Origin,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl SyntaxError {
    fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, message: message.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The first document of `text`; null for an empty one. Further documents are not read, and a warning says so.
pub(super) fn parse(text: &str, source: u32, found: &mut Diagnostics) -> Result<Node, SyntaxError> {
    if text.len() > TEXT_MAX {
        let message = format!("the text is longer than {} MiB", TEXT_MAX >> 20);
        return Err(SyntaxError::new(Origin { source, start: 0, end: 0 }, message));
    }
    // The parser takes a byte order mark as part of the text's start, yet counts it; hide it and keep the offsets right.
    let (body, skipped) = text.strip_prefix('\u{feff}').map_or((text, 0), |rest| (rest, '\u{feff}'.len_utf8()));
    if let Some(at) = body.bytes().position(|byte| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r') || byte == 0x7f) {
        let start = offset(at + skipped);
        let message = "control characters are not allowed in YAML";
        return Err(SyntaxError::new(Origin { source, start, end: start + 1 }, message));
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.block_nesting_limit = DEPTH_MAX * 2;
    options.flow_nesting_limit = DEPTH_MAX * 2;
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(body, options),
        body,
        skipped,
        source,
        anchors: HashMap::new(),
        nodes: 0,
        kept: 0,
        last: 0,
        twice: Vec::new(),
    };
    let document = builder.document(found);
    for twice in builder.twice {
        found.error(twice.origin, twice.message, twice.help);
    }
    document
}

/// Whether a text is one YAML document, and which.
pub(super) fn parse_value(text: &str) -> Option<Node> {
    let mut found = Diagnostics::default();
    parse(text, 0, &mut found).ok().filter(|_| !found.has_errors())
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    body: &'t str,
    /// Bytes of the text before `body`.
    skipped: usize,
    source: u32,
    /// Finished anchors: the node, and how many nodes it holds.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    /// Nodes kept for anchors.
    kept: usize,
    /// Where in `body` the last event ended.
    last: usize,
    /// Keys that are written twice: the first one counts, and reading goes on.
    twice: Vec<SyntaxError>,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(next)) => {
                self.last = next.1.byte_range().map_or(self.last, |range| range.end);
                Ok(next)
            }
            Some(Err(error)) if error.info().contains("quoted scalar") => {
                // What is wrong stands where the text goes on as if the quote were closed; the quote is what a person has to see.
                let at =
                    self.body.get(self.last..).and_then(|rest| rest.find(['"', '\''])).map_or(self.last, |at| self.last + at);
                let start = offset(at + self.skipped);
                let origin = Origin { source: self.source, start, end: start + 1 };
                let message =
                    format!("this is not valid YAML: the quote that opens here is not closed as it should be ({})", error.info());
                Err(SyntaxError::new(origin, message))
            }
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or_else(|| {
                    self.body.char_indices().nth(error.marker().index()).map_or(self.body.len(), |(at, _)| at)
                });
                let at = at.min(self.body.len());
                let width = self.body.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
                let start = offset(at + self.skipped);
                let origin = Origin { source: self.source, start, end: start + offset(width) };
                let mut wrong = SyntaxError::new(origin, format!("this is not valid YAML: {}", error.info()));
                if self
                    .body
                    .get(..at)
                    .and_then(|before| before.lines().last())
                    .is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'))
                    || self.body.get(at..).is_some_and(|rest| rest.starts_with('\t'))
                {
                    wrong = wrong.help("indent with spaces: YAML does not allow tabs there");
                }
                Err(wrong)
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self, found: &mut Diagnostics) -> Result<Node, SyntaxError> {
        let root = loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd | Event::DocumentEnd => {
                    return Ok(Node { value: Value::Null, origin: self.origin(&span), text: None });
                }
                event => break self.node(event, &span, 0, None)?,
            }
        };
        // What follows the first document is not part of the configuration; an error in it is none of ours.
        while let Ok((event, span)) = self.next() {
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    found.warning(
                        self.origin(&span),
                        "only the first YAML document of a file is read",
                        Some("remove what follows, or give it as a file of its own with another `--config`".to_owned()),
                    );
                    break;
                }
                _ => {}
            }
        }
        Ok(root)
    }

    fn origin(&self, span: &Span) -> Origin {
        let range = span.byte_range().unwrap_or(0..0);
        Origin { source: self.source, start: offset(range.start + self.skipped), end: offset(range.end + self.skipped) }
    }

    fn count(&mut self, more: usize, origin: Origin) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > NODES_MAX {
            return Err(SyntaxError::new(
                origin,
                format!("the document holds more than {NODES_MAX} values (aliases counted as often as used)"),
            ));
        }
        Ok(())
    }

    /// The node that `event` starts. `key` is where the key of it was written: a map, a list or an absent value is shown there.
    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize, key: Option<Origin>) -> Result<Node, SyntaxError> {
        let written = self.origin(span);
        if depth > DEPTH_MAX {
            return Err(SyntaxError::new(written, format!("maps and lists are nested deeper than {DEPTH_MAX}")));
        }
        let before = self.nodes;
        self.count(1, written)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = Self::scalar(text, style, tag.as_deref(), written)?;
                let origin = if written.start == written.end { key.unwrap_or(written) } else { written };
                (Node { value, origin, text: None }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let items = self.list(depth)?;
                (Node { value: Value::List(items), origin: key.unwrap_or(written), text: None }, anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                let entries = self.map(depth)?;
                (Node { value: Value::Map(entries), origin: key.unwrap_or(written), text: None }, anchor)
            }
            Event::Alias(id) => {
                // Counted before it is copied.
                let size = self.anchors.get(&id).map_or(0, |(_, size)| *size);
                self.count(size, written)?;
                let Some((node, _)) = self.anchors.get(&id).cloned() else {
                    return Err(SyntaxError::new(written, "the value of an anchor contains itself"));
                };
                if depth + height(&node) > DEPTH_MAX {
                    return Err(SyntaxError::new(written, format!("maps and lists are nested deeper than {DEPTH_MAX}")));
                }
                (node, 0)
            }
            _ => return Err(SyntaxError::new(written, "this is not valid YAML: a value was expected")),
        };
        if anchor != 0 {
            let size = self.nodes.saturating_sub(before);
            self.kept = self.kept.saturating_add(size);
            if self.kept > NODES_MAX {
                return Err(SyntaxError::new(written, format!("anchors hold more than {NODES_MAX} values")));
            }
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                return Ok(items);
            }
            items.push(self.node(event, &span, depth + 1, None)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, SyntaxError> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut merged: Option<(Origin, Node)> = None;
        let mut names: HashSet<Arc<str>> = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                break;
            }
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, tag) if text == "<<" && tag.as_ref().is_none_or(|tag| tag.is_yaml_core_schema_tag("merge")));
            let key = self.node(event, &span, depth + 1, None)?;
            let key = Node { value: Value::String(Self::key_text(&key)?), ..key };
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1, Some(key.origin))?;
            let Value::String(name) = &key.value else { continue };
            if !names.insert(if merges { Arc::from("<< (merge)") } else { name.clone() }) {
                let first = entries.iter().find(|(known, _)| known.value == key.value).map(|(known, _)| known.origin);
                let line = first.and_then(|origin| self.line(origin));
                let message = line.map_or_else(
                    || format!("the key `{name}` is written twice in one map"),
                    |line| format!("the key `{name}` is written twice in one map, first in line {line}"),
                );
                if self.twice.len() < TWICE_MAX {
                    self.twice.push(
                        SyntaxError::new(key.origin, message).help("remove one of the two, or give one of them another name"),
                    );
                }
                continue;
            }
            if merges {
                merged = Some((key.origin, value));
            } else {
                entries.push((key, value));
            }
        }
        if let Some((origin, value)) = merged {
            merge_in(&mut entries, &mut names, origin, value)?;
        }
        Ok(entries)
    }

    fn line(&self, origin: Origin) -> Option<usize> {
        let at = (origin.start as usize).checked_sub(self.skipped)?;
        Some(self.body.get(..at)?.bytes().filter(|&byte| byte == b'\n').count() + 1)
    }

    /// Keys are text; the Collector turns other scalars into it.
    fn key_text(key: &Node) -> Result<Arc<str>, SyntaxError> {
        match &key.value {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Ok(Arc::from("<nil>")),
            Value::Bool(value) => Ok(Arc::from(value.to_string())),
            Value::Int(number) => Ok(Arc::from(number.to_string())),
            Value::Float(number) => Ok(Arc::from(number.to_string())),
            Value::List(_) | Value::Map(_) => Err(SyntaxError::new(key.origin, "a key must be a word, not a list or a map")),
        }
    }

    fn scalar(text: Cow<'t, str>, style: ScalarStyle, tag: Option<&Tag>, origin: Origin) -> Result<Value, SyntaxError> {
        let string = |text: Cow<'t, str>| Value::String(Arc::from(text));
        let Some(kind) = tag.and_then(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:")) else {
            // `! word` and tags of other schemas leave text as text.
            let typed = style == ScalarStyle::Plain && tag.is_none();
            return Ok(if typed { scalar::plain(&text) } else { string(text) });
        };
        let wrong = || SyntaxError::new(origin, format!("this is not a value of the type `!!{kind}`"));
        match &*kind {
            "null" => Ok(Value::Null),
            "bool" => match scalar::plain(&text) {
                value @ Value::Bool(_) => Ok(value),
                _ => Err(wrong()),
            },
            "int" => match scalar::number(&text) {
                Some(value @ Value::Int(_)) => Ok(value),
                _ => Err(wrong()),
            },
            "float" => match scalar::plain(&text) {
                Value::Int(number) => Ok(Value::Float(number as f64)),
                value @ Value::Float(_) => Ok(value),
                _ => Err(wrong()),
            },
            "binary" => {
                use base64::Engine as _;
                let packed: String = text.split_whitespace().collect();
                let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| wrong())?;
                String::from_utf8(bytes).map(|text| Value::String(Arc::from(text))).map_err(|_| wrong())
            }
            _ => Ok(string(text)),
        }
    }
}

/// `<<: *map` and `<<: [*one, *two]`: keys that stand in the map itself win, and earlier merged maps win over later ones.
fn merge_in(
    entries: &mut Vec<(Node, Node)>,
    names: &mut HashSet<Arc<str>>,
    origin: Origin,
    value: Node,
) -> Result<(), SyntaxError> {
    let maps = match value.value {
        Value::List(items) => items.into_iter().map(|item| item.value).collect(),
        other => vec![other],
    };
    for map in maps {
        let Value::Map(more) = map else {
            return Err(SyntaxError::new(origin, "`<<` takes a map or a list of maps"));
        };
        for (key, value) in more {
            if let Value::String(name) = &key.value
                && names.insert(name.clone())
            {
                entries.push((key, value));
            }
        }
    }
    Ok(())
}

/// Levels of maps and lists below and including this node.
pub(super) fn height(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, value)| height(value)).max().unwrap_or(0),
        _ => 0,
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
