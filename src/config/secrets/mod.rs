//! What is secret, told by its key: for a text must not show it whichever component reads it.
//!
//! - a key that ends in `password`, `secret`, `token`, `api_key` and the like ([`SECRET_ENDS`]; case and dashes do not matter);
//! - `key` by itself, unless the keys beside it say that it names an attribute or a header;
//! - `tokens` and `cookies`, with everything inside;
//! - `inline` inside `htpasswd`;
//! - every value of `headers`, `response_headers` and `http_headers`, as a map or as a list of `value`s;
//! - in any URL, what stands before the `@`, and parameters with such names.
//!
//! Keys that end in `_file` name a place and stay.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

use super::{Node, Value};

/// What stands for a secret.
pub const REDACTED: &str = "[REDACTED]";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    Open,
    /// The values of this map, or the `value`s of this list of maps, are secret.
    Headers,
    /// Everything from here down.
    All,
}

const SECRET_ENDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "accountkey",
    "appkey",
    "applicationkey",
    "encryptionkey",
    "ingestkey",
    "ingestionkey",
    "instrumentationkey",
    "privatekey",
    "secretkey",
    "sharedkey",
    "signingkey",
    "writekey",
    "keypem",
    "credentials",
    "authorization",
    "connectionstring",
    "cookie",
    "dsn",
    "licensekey",
];

/// Keys beside `key` that say it is the name of something.
const NAMES_BESIDE: &[&str] = &[
    "action",
    "value",
    "values",
    "from",
    "from_context",
    "from_attribute",
    "value_file",
    "default_value",
    "tag_name",
    "name",
    "min_value",
    "max_value",
    "pattern",
    "operator",
    "type",
    "default",
];

fn folded(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// What a key makes of its value. `parent` is the key of the map it stands in, `beside` are the other keys of that map.
pub(super) fn below<'k>(parent: &str, key: &str, mut beside: impl Iterator<Item = &'k str>, outer: Secrecy) -> Secrecy {
    if outer == Secrecy::All {
        return outer;
    }
    let folded = folded(key);
    let ends = folded != "htpasswd" && SECRET_ENDS.iter().any(|end| folded.ends_with(end));
    let is_key = folded == "key" && !beside.any(|other| NAMES_BESIDE.contains(&other));
    if ends || is_key || matches!(folded.as_str(), "tokens" | "cookies") || (folded == "inline" && parent == "htpasswd") {
        Secrecy::All
    } else if is_headers(&folded) {
        Secrecy::Headers
    } else {
        Secrecy::Open
    }
}

fn is_headers(folded: &str) -> bool {
    matches!(folded, "headers" | "responseheaders" | "httpheaders")
}

/// What the entry `key` of a map makes of its value, given what the map is.
pub(super) fn of_entry(parent: &str, key: &str, entries: &[(Node, Node)], outer: Secrecy) -> Secrecy {
    match outer {
        // `headers: {name: value}`, or one item of `headers: [{name, value}]`.
        Secrecy::Headers if !names_a_header(key, entries) => Secrecy::All,
        Secrecy::Headers => Secrecy::Open,
        outer => {
            let words = entries.iter().filter_map(|(key, _)| key.word()).map(|word| &**word);
            below(parent, key, words.filter(|word| *word != key), outer)
        }
    }
}

/// Keys beside `value` in a list of headers say which header, and are no secret.
fn names_a_header(name: &str, entries: &[(Node, Node)]) -> bool {
    let has = |wanted: &str| entries.iter().any(|(key, _)| key.word().is_some_and(|word| &**word == wanted));
    let is_item = (has("value") || has("from_context") || has("from_attribute")) && (has("key") || has("name"));
    is_item && matches!(name, "key" | "name" | "from_context" | "from_attribute" | "action")
}

/// The value at a path of entry numbers, if something on the way there is secret.
pub(super) fn secret_at<'n>(root: &'n Node, path: &[u32]) -> Option<&'n Node> {
    let (mut node, mut secrecy, mut parent) = (root, Secrecy::Open, "");
    for step in path {
        match &node.value {
            Value::Map(entries) => {
                let (key, value) = entries.get(*step as usize)?;
                let name = key.word().map_or("", |word| word);
                secrecy = of_entry(parent, name, entries, secrecy);
                (node, parent) = (value, name);
            }
            Value::List(items) => node = items.get(*step as usize)?,
            _ => break,
        }
    }
    (secrecy != Secrecy::Open).then_some(node)
}

// === URLs ===

/// `user:password@`, or anything between `://` and `@`.
static LOGIN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"://([^\s/@"']+)@|([^\s"'/,{}\[\]@]+:[^\s"'/,{}\[\]@]+)@"#).expect("the pattern is right"));
static PARAMETER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"[?&;]([A-Za-z0-9_.\-]+)=([^\s&;"'#,}\]]+)"#).expect("the pattern is right"));

/// A text with whatever is secret in a URL in it replaced by `hidden`.
fn without_logins(text: &str, hidden: impl Fn(&str) -> String) -> Cow<'_, str> {
    let replace = |found: &Captures<'_>, secret: Option<regex::Match<'_>>| {
        let whole = found.get(0).map_or("", |whole| whole.as_str());
        let (Some(secret), Some(start)) = (secret, found.get(0).map(|whole| whole.start())) else { return whole.to_owned() };
        let (head, tail) = (whole.get(..secret.start() - start), whole.get(secret.end() - start..));
        format!("{}{}{}", head.unwrap_or_default(), hidden(secret.as_str()), tail.unwrap_or_default())
    };
    if !text.contains(['@', '=']) {
        return Cow::Borrowed(text);
    }
    let text = LOGIN.replace_all(text, |found: &Captures<'_>| replace(found, found.get(1).or_else(|| found.get(2))));
    let parameters = PARAMETER.replace_all(&text, |found: &Captures<'_>| {
        let name = found.get(1).map_or("", |name| name.as_str());
        let folded = folded(name);
        let secret = below("", name, std::iter::empty(), Secrecy::Open) != Secrecy::Open
            || matches!(folded.as_str(), "sig" | "signature" | "auth" | "pass" | "pwd" | "code");
        if secret { replace(found, found.get(2)) } else { replace(found, None) }
    });
    Cow::Owned(parameters.into_owned())
}

/// A URL, or a text with URLs in it, without passwords and tokens.
pub fn shown_url(text: &str) -> Cow<'_, str> {
    without_logins(text, |login| match login.split_once(':') {
        Some((user, _)) => format!("{user}:{REDACTED}"),
        None => REDACTED.to_owned(),
    })
}

// === excerpts ===

/// A configuration's text with its secrets replaced by stars, byte for byte, so that places stay right. The text need not be right.
pub(super) fn veiled(text: &str) -> String {
    let mut veil = Veil { out: String::with_capacity(text.len()), block: None, open: 0 };
    for line in text.split_inclusive('\n') {
        let body = line.trim_end_matches(['\n', '\r']);
        veil.line(body);
        veil.out.push_str(line.get(body.len()..).unwrap_or_default());
    }
    without_logins(&veil.out, stars).into_owned()
}

fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

struct Veil {
    out: String,
    /// The column of a secret key: lines further in belong to it.
    block: Option<(usize, Secrecy)>,
    /// Brackets of a secret value that are not closed yet.
    open: usize,
}

impl Veil {
    fn line(&mut self, line: &str) {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        let mut rest = line;
        if self.open > 0 {
            let Some(behind) = self.hide_flow(line) else { return };
            rest = behind;
        } else if let Some((column, secrecy)) = self.block
            && !content.is_empty()
        {
            if indent > column || (indent == column && content.starts_with('-')) {
                self.hide_inside(line, secrecy);
                return;
            }
            self.block = None;
        }
        let column = line.len() - line.trim_start_matches([' ', '-']).len();
        let mut first = true;
        while let Some(behind) = self.hide_next(rest, column, first) {
            rest = behind;
            first = false;
        }
    }

    /// A line of a secret block: of headers the names stay.
    fn hide_inside(&mut self, line: &str, secrecy: Secrecy) {
        let shown = match secrecy {
            Secrecy::Headers => line.find(": ").map(|at| at + 2).or_else(|| line.ends_with(':').then_some(line.len())),
            _ => None,
        };
        let shown = shown.unwrap_or(line.len() - line.trim_start_matches([' ', '-']).len());
        let (head, tail) = line.split_at_checked(shown).unwrap_or(("", line));
        self.out.push_str(head);
        self.hide(tail);
    }

    fn hide(&mut self, text: &str) {
        self.out.push_str(&stars(text));
    }

    /// The first `length` bytes; what is behind them comes back.
    fn hide_first<'l>(&mut self, text: &'l str, length: usize) -> &'l str {
        let (hidden, rest) = text.split_at_checked(length).unwrap_or((text, ""));
        self.hide(hidden);
        rest
    }

    /// The rest of a value in brackets; what is behind it comes back, if it ends in this line.
    fn hide_flow<'l>(&mut self, text: &'l str) -> Option<&'l str> {
        let mut quote = None;
        for (at, letter) in text.char_indices() {
            match (quote, letter) {
                (Some(open), letter) if open == letter => quote = None,
                (None, '"' | '\'') => quote = Some(letter),
                (None, '{' | '[') => self.open += 1,
                (None, '}' | ']') => {
                    self.open = self.open.saturating_sub(1);
                    if self.open == 0 {
                        return Some(self.hide_first(text, at));
                    }
                }
                _ => {}
            }
        }
        self.hide(text);
        None
    }

    /// Passes one key and, if that is secret, its value; what is behind them comes back. `column` is where the line's first key stands.
    fn hide_next<'l>(&mut self, line: &'l str, column: usize, first: bool) -> Option<&'l str> {
        let Some((colon, key)) = next_key(line) else {
            self.out.push_str(line);
            return None;
        };
        let (head, rest) = line.split_at_checked(colon + 1)?;
        self.out.push_str(head);
        let secrecy = secrecy_of(key);
        if secrecy == Secrecy::Open {
            return Some(rest);
        }
        let value = rest.trim_start_matches([' ', '\t']);
        self.out.push_str(rest.get(..rest.len() - value.len())?);
        let alone = first && !head.contains(['{', '[', ',']);
        match value.chars().next() {
            None | Some('#' | '&' | '!' | '|' | '>') => {
                self.block = Some((column, secrecy));
                self.hide(value);
                None
            }
            Some(bracket @ ('{' | '[')) => {
                self.out.push(bracket);
                self.open = 1;
                self.hide_flow(value.get(1..)?)
            }
            Some(quote @ ('"' | '\'')) if value.get(1..).is_some_and(|text| text.contains(quote)) => {
                let end = value.get(1..).and_then(|text| text.find(quote)).unwrap_or_default();
                Some(self.hide_first(value, end + 2))
            }
            Some(letter) if !alone && !matches!(letter, '"' | '\'') => {
                Some(self.hide_first(value, value.find([',', '}', ']']).unwrap_or(value.len())))
            }
            // It goes on to the end of the line, and may go on behind it.
            Some(_) => {
                self.hide(value);
                self.block = Some((column, Secrecy::All));
                None
            }
        }
    }
}

/// The next `key:` of a line: where its colon is, and the key without quotes.
fn next_key(line: &str) -> Option<(usize, &str)> {
    let bytes = line.as_bytes();
    for (colon, _) in line.match_indices(':') {
        let after = bytes.get(colon + 1);
        let before = colon.checked_sub(1).and_then(|at| bytes.get(at));
        if matches!(after, None | Some(b' ' | b'\t')) || matches!(before, Some(b'"' | b'\'')) {
            let head = line.get(..colon)?;
            let key = head.get(head.rfind(['{', ',', '[']).map_or(0, |at| at + 1)..)?;
            return Some((colon, key.trim_start_matches([' ', '\t', '-', '?']).trim().trim_matches(['"', '\''])));
        }
    }
    None
}

/// Of a key as it stands in a text, which may be a path: `exporters::otlp::headers::x`.
fn secrecy_of(key: &str) -> Secrecy {
    let (path, last) = key.rsplit_once(['.', ':']).unwrap_or(("", key));
    if path.split(['.', ':']).any(|step| is_headers(&folded(step)) || step == "tokens") {
        return Secrecy::All;
    }
    match folded(last).as_str() {
        // Whatever stands beside it: a text that is not right has no map to look into, and hiding a name does no harm.
        "inline" | "defaultvalue" => Secrecy::All,
        _ => below("", last, std::iter::empty(), Secrecy::Open),
    }
}

#[cfg(test)]
mod tests;
