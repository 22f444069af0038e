//! `${env:X}`, `${file:…}`, `${yaml:…}` → values, by the Collector's rules.
//!
//! A value that is exactly one reference may become anything: its text is read as YAML, and the text itself is kept beside it for fields
//! that want text. A reference inside other text is replaced by its text. What comes out is looked at again, at most [`ROUNDS_MAX`]
//! times. `$$` is a `$`; keys are not expanded.

use std::sync::Arc;

use super::{
    Diagnostics, Node, Origin, Value,
    environment::Environment,
    yaml::{self, DEPTH_MAX, NODES_MAX, TEXT_MAX},
};

/// How often one value is expanded again before it is taken for endless.
const ROUNDS_MAX: usize = 1000;

/// Problems are told of this many values at most.
const FOUND_MAX: usize = 100;

/// Expands every value of a tree. A value that cannot be expanded becomes null and an error.
pub(super) fn expand(node: Node, environment: &dyn Environment, found: &mut Diagnostics) -> Node {
    let mut expander = Expander { environment, found, nodes: 0, bytes: 0, origin: Origin::default(), told: 0 };
    expander.walk(node, 0, false)
}

struct Expander<'e> {
    environment: &'e dyn Environment,
    found: &'e mut Diagnostics,
    /// Nodes made by expansion.
    nodes: usize,
    /// Bytes of text made by expansion.
    bytes: usize,
    /// Where the reference at work was written.
    origin: Origin,
    told: usize,
}

/// Why a value could not be expanded.
struct Failed {
    message: String,
    help: Option<String>,
}

impl Failed {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }
}

impl Expander<'_> {
    /// `inside`: the node came out of a reference, so its origin is that reference's.
    fn walk(&mut self, node: Node, depth: usize, inside: bool) -> Node {
        let Node { value, origin, text } = node;
        let origin = if inside { self.origin } else { origin };
        match value {
            Value::String(word) if word.contains('$') => {
                self.origin = origin;
                self.word(&word, depth)
            }
            Value::List(items) => {
                let items = items.into_iter().map(|item| self.walk(item, depth + 1, inside)).collect();
                Node { value: Value::List(items), origin, text }
            }
            Value::Map(entries) => {
                let entries = entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key = if inside { Node { origin, ..key } } else { key };
                        (key, self.walk(value, depth + 1, inside))
                    })
                    .collect();
                Node { value: Value::Map(entries), origin, text }
            }
            value => Node { value, origin, text },
        }
    }

    fn word(&mut self, word: &str, depth: usize) -> Node {
        let origin = self.origin;
        match self.expanded(word, depth) {
            Ok(node) => node,
            Err(failed) => {
                self.told += 1;
                if self.told <= FOUND_MAX {
                    self.found.error(origin, failed.message, failed.help);
                }
                Node { value: Value::Null, origin, text: None }
            }
        }
    }

    fn expanded(&mut self, word: &str, depth: usize) -> Result<Node, Failed> {
        let origin = self.origin;
        let mut text = word.to_owned();
        for _ in 0..ROUNDS_MAX {
            let Some(reference) = find(&text) else {
                return Ok(Node { value: Value::String(Arc::from(unescape(&text))), origin, text: None });
            };
            let content = self.content(reference)?;
            self.bytes = self.bytes.saturating_add(content.len());
            if reference.len() == text.len() {
                match yaml::parse_value(&content).map(|node| node.value) {
                    // Text stands as it was written, quotes and all.
                    None | Some(Value::String(_)) => text = content,
                    Some(value) => return self.typed(value, &content, depth),
                }
            } else {
                let times = text.matches(reference).count();
                self.bytes = self.bytes.saturating_add(content.len().saturating_mul(times));
                self.check()?;
                text = text.replace(reference, &content);
            }
            self.bytes = self.bytes.saturating_add(text.len());
            self.check()?;
        }
        Err(Failed::new(format!("this is still not expanded after {ROUNDS_MAX} rounds: a variable refers to itself")))
    }

    /// A whole value that is a number, a list, …: what is inside it is expanded in turn, and so is its text.
    fn typed(&mut self, value: Value, content: &str, depth: usize) -> Result<Node, Failed> {
        let origin = self.origin;
        let node = Node { value, origin, text: None };
        let (height, size) = (yaml::height(&node), count(&node));
        self.nodes = self.nodes.saturating_add(size);
        self.check()?;
        if depth + height > DEPTH_MAX {
            return Err(Failed::new(format!("maps and lists are nested deeper than {DEPTH_MAX}")));
        }
        let nested = matches!(node.value, Value::List(_) | Value::Map(_));
        let mut node = self.walk(node, depth, true);
        self.origin = origin;
        let text = if nested && content.contains('$') {
            // The text of a list is wanted only by a text field; where it cannot be expanded the list alone stands.
            match self.expanded_text(content) {
                Ok(text) => text,
                Err(_) => return Ok(node),
            }
        } else {
            unescape(content)
        };
        node.text = Some(Arc::from(text));
        node.origin = origin;
        Ok(node)
    }

    fn expanded_text(&mut self, content: &str) -> Result<String, Failed> {
        let mut text = content.to_owned();
        for _ in 0..ROUNDS_MAX {
            let Some(reference) = find(&text) else { return Ok(unescape(&text)) };
            let content = self.content(reference)?;
            let times = text.matches(reference).count();
            self.bytes = self.bytes.saturating_add(text.len()).saturating_add(content.len().saturating_mul(times));
            self.check()?;
            text = text.replace(reference, &content);
        }
        Err(Failed::new("endless"))
    }

    fn check(&self) -> Result<(), Failed> {
        if self.bytes > 4 * TEXT_MAX {
            return Err(Failed::new("the references of this configuration expand to more text than is read"));
        }
        if self.nodes > NODES_MAX {
            return Err(Failed::new(format!("the references of this configuration expand to more than {NODES_MAX} values")));
        }
        Ok(())
    }

    /// The text a reference (`${…}`, with its braces) stands for.
    fn content(&mut self, reference: &str) -> Result<String, Failed> {
        let inner = reference.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        let (scheme, rest) = match inner.split_once(':') {
            None => ("env", inner),
            Some((scheme, rest)) => (scheme, rest),
        };
        let shaped = scheme.len() >= 2
            && scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+.-".contains(letter));
        if !shaped && scheme != "env" {
            return Err(Failed::new(format!("`{reference}` is not a reference that weir or the Collector knows")));
        }
        if rest.contains('$') {
            return Err(Failed::new(format!("`{reference}` has a `$` in it that is not a reference")));
        }
        match scheme {
            "env" => self.variable(rest),
            "yaml" => Ok(rest.to_owned()),
            "file" => {
                let bytes = self.environment.file(rest).map_err(|error| Failed::new(format!("cannot read `{rest}`: {error}")))?;
                String::from_utf8(bytes).map_err(|_| Failed::new(format!("`{rest}` is not UTF-8 text")))
            }
            "http" | "https" => Err(Failed {
                message: "weir does not fetch configuration over the network".to_owned(),
                help: Some(format!("download `{inner}` first, then refer to it as `${{file:PATH}}`")),
            }),
            _ => Err(Failed {
                message: format!("`{scheme}` is not a scheme of references"),
                help: Some(if rest.starts_with('-') {
                    format!("a default value needs the scheme: `${{env:{inner}}}`")
                } else {
                    "the schemes are `env`, `file` and `yaml`; write `$${` for a literal `${`".to_owned()
                }),
            }),
        }
    }

    fn variable(&mut self, rest: &str) -> Result<String, Failed> {
        let (name, default) = match rest.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (rest, None),
        };
        let mut letters = name.chars();
        let head = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_');
        if !head || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(Failed {
                message: format!("`{name}` is not a name an environment variable can have"),
                help: Some("letters, digits and `_`, not beginning with a digit; write `$${` for a literal `${`".to_owned()),
            });
        }
        match (self.environment.variable(name), default) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => {
                self.told += 1;
                if self.told <= FOUND_MAX {
                    self.found.warning(
                        self.origin,
                        format!("the environment variable `{name}` is not set: the value is empty"),
                        Some(format!("set it, or write a default: `${{env:{name}:-value}}`")),
                    );
                }
                Ok(String::new())
            }
        }
    }
}

/// The first reference to expand: the innermost of the earliest closing brace. An escaped one (an odd number of `$` before it) ends the
/// search, as it does in the Collector.
fn find(text: &str) -> Option<&str> {
    let mut from = 0;
    loop {
        let close = from + text.get(from..)?.find('}')?;
        if let Some(open) = text.get(from..=close)?.rfind("${").map(|at| from + at) {
            let dollars = text.get(..open)?.bytes().rev().take_while(|&byte| byte == b'$').count();
            return if dollars % 2 == 1 { None } else { text.get(open..=close) };
        }
        from = close + 1;
    }
}

fn unescape(text: &str) -> String {
    text.replace("$$", "$")
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, value)| count(value)).sum::<usize>(),
        _ => 1,
    }
}
