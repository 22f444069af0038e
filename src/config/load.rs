//! `--config` and `--set` → one tree with every reference expanded.

use std::{cell::RefCell, sync::Arc};

use super::{
    Diagnostics, Node, Origin, Sources, Value,
    environment::{Environment, Noting, Stamp},
    expand::expand,
    legacy::modernise,
    merge::{SEPARATOR, merge, split_paths},
    yaml,
};

/// One thing to load, in the order in which later ones win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// What stands after `--config`: a path, `file:path`, `env:VARIABLE`, `yaml:key::sub: value`.
    Uri(String),
    /// What stands after `--set`: `a.b=value` or `a::b=value`.
    Set(String),
    /// A text with a name of its own: the embedded default.
    Text { name: String, text: String },
}

/// What loading gave. `node` is a map even where nothing could be read; look at `found` first.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub node: Node,
    pub sources: Sources,
    pub found: Diagnostics,
    /// The files it was made of, those that could not be read among them, as they were before they were read.
    pub files: Vec<(String, Option<Stamp>)>,
}

/// Reads, merges and expands. Every problem of every source is in `found`.
pub fn load(inputs: &[Input], environment: &dyn Environment) -> Loaded {
    load_some(inputs, environment, true)
}

/// As [`load`], with every `${…}` left as it was written: for a file that is to be printed as a file again.
pub fn load_unexpanded(inputs: &[Input], environment: &dyn Environment) -> Loaded {
    load_some(inputs, environment, false)
}

fn load_some(inputs: &[Input], environment: &dyn Environment, expands: bool) -> Loaded {
    let noting = Noting { inner: environment, files: RefCell::default() };
    let environment: &dyn Environment = &noting;
    let mut loading = Loading { environment, sources: Sources::default(), found: Diagnostics::default() };
    let mut whole = Node { value: Value::Map(Vec::new()), origin: Origin::default(), text: None };
    // `--set` wins over every `--config`, wherever it stands.
    let (sets, configs): (Vec<&Input>, Vec<&Input>) = inputs.iter().partition(|input| matches!(input, Input::Set(_)));
    for input in configs.into_iter().chain(sets) {
        let Some((name, text)) = loading.text(input) else { continue };
        if let Some(node) = loading.tree(name, &text) {
            merge(&mut whole, node);
        }
    }
    let expanded = if expands { split_paths(expand(whole, environment, &mut loading.found)) } else { whole };
    let mut node = match expanded.value {
        Value::Map(_) => expanded,
        _ => Node { value: Value::Map(Vec::new()), ..expanded },
    };
    modernise(&mut node, &mut loading.found);
    let Loading { sources, found, .. } = loading;
    Loaded { node, sources, found, files: noting.files.into_inner() }
}

struct Loading<'e> {
    environment: &'e dyn Environment,
    sources: Sources,
    found: Diagnostics,
}

impl Loading<'_> {
    /// The name and the text of an input; a problem is recorded at the words of the command line.
    fn text(&mut self, input: &Input) -> Option<(String, String)> {
        match input {
            Input::Text { name, text } => Some((name.clone(), text.clone())),
            Input::Set(flag) => self.set(flag),
            Input::Uri(uri) => self.uri(uri),
        }
    }

    fn set(&mut self, flag: &str) -> Option<(String, String)> {
        let Some((key, value)) = flag.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            self.refuse(
                "--set",
                flag,
                "`--set` takes a key, `=` and a value".to_owned(),
                Some("`--set processors.batch.timeout=2s`".to_owned()),
            );
            return None;
        };
        // The value may be a secret, and the name is shown.
        Some((format!("--set {}", key.trim()), format!("{}: {}", key.trim().replace('.', SEPARATOR), value.trim())))
    }

    fn uri(&mut self, uri: &str) -> Option<(String, String)> {
        let (scheme, rest) = split_scheme(uri);
        match scheme {
            None | Some("file") => match self.environment.file(rest) {
                Ok(bytes) => {
                    let text = decode(bytes);
                    if text.is_none() {
                        self.unread(uri, format!("`{rest}` is not text in UTF-8"));
                    }
                    text.map(|text| (rest.to_owned(), text))
                }
                Err(error) => {
                    self.unread(uri, format!("cannot read `{rest}`: {error}"));
                    None
                }
            },
            Some("env") => {
                let (name, default) = rest.split_once(":-").map_or((rest, None), |(name, default)| (name, Some(default)));
                let text = self.environment.variable(name).or_else(|| default.map(str::to_owned));
                if text.is_none() {
                    self.refuse("--config", uri, format!("the environment variable `{name}` is not set"), None);
                }
                text.map(|text| (format!("environment variable {name}"), text))
            }
            Some("yaml") => Some(("--config yaml:".to_owned(), rest.to_owned())),
            Some("http" | "https") => {
                self.refuse(
                    "--config",
                    uri,
                    "weir does not fetch configuration over the network".to_owned(),
                    Some("download it first and give the path of the file".to_owned()),
                );
                None
            }
            Some(other) => {
                let help = "the schemes are `file:`, `env:` and `yaml:`; a path alone is a file".to_owned();
                self.refuse("--config", uri, format!("`{other}` is not a scheme of configurations"), Some(help));
                None
            }
        }
    }

    /// A file has no text to point into.
    fn unread(&mut self, uri: &str, message: String) {
        let source = self.sources.add(uri, "");
        self.found.error(Origin { source, start: 0, end: 0 }, message, None);
    }

    fn refuse(&mut self, flag: &str, written: &str, message: String, help: Option<String>) {
        let source = self.sources.add(flag, written);
        let end = u32::try_from(written.len()).unwrap_or(u32::MAX);
        self.found.error(Origin { source, start: 0, end }, message, help);
    }

    /// Parses one text; `None` where it holds nothing or is wrong.
    fn tree(&mut self, name: String, text: &str) -> Option<Node> {
        let text: Arc<str> = Arc::from(text);
        let source = self.sources.add(name, text.clone());
        match yaml::parse(&text, source, &mut self.found) {
            Ok(node) => match node.value {
                Value::Map(_) => Some(split_paths(node)),
                Value::Null => None,
                _ => {
                    let help = "a configuration is a map: `receivers:`, `exporters:`, `service:`".to_owned();
                    self.found.error(node.origin, format!("{} is not a configuration", node.kind()), Some(help));
                    None
                }
            },
            Err(wrong) => {
                self.found.error(wrong.origin, wrong.message, wrong.help);
                None
            }
        }
    }
}

/// Schemes have two letters at least, so that a drive letter is not one.
fn split_scheme(uri: &str) -> (Option<&str>, &str) {
    match uri.split_once(':') {
        Some((scheme, rest))
            if scheme.len() >= 2
                && scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
                && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+.-".contains(letter)) =>
        {
            (Some(scheme), rest)
        }
        _ => (None, uri),
    }
}

/// UTF-8, with or without a byte order mark, or UTF-16 with one.
fn decode(bytes: Vec<u8>) -> Option<String> {
    let units = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok()).map(read).collect();
        String::from_utf16(&units).ok()
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
        // The mark is no part of the text: it would move every place of the first line.
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes).ok(),
    }
}
