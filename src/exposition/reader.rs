//! A small, strict reader of text pages, written from the format's description and not from the writer.

use std::collections::{BTreeMap, HashSet};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
    pub(crate) time: Option<f64>,
    pub(crate) exemplar: Option<(BTreeMap<String, String>, f64, Option<f64>)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Read {
    /// (name, type) in page order.
    pub(crate) types: Vec<(String, String)>,
    pub(crate) help: BTreeMap<String, String>,
    pub(crate) unit: BTreeMap<String, String>,
    pub(crate) lines: Vec<Line>,
}

impl Read {
    /// The value of the one sample `name` with exactly these labels.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found: Vec<_> = self.lines.iter().filter(|line| line.name == name && line.labels == labels).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?} in {:#?}", self.lines);
        found[0].value
    }

    pub(crate) fn kind(&self, name: &str) -> Option<&str> {
        self.types.iter().find(|(known, _)| known == name).map(|(_, kind)| kind.as_str())
    }
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn eat(&mut self, token: char) -> bool {
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, stop: &[char]) -> &'a str {
        let at = self.0.find(stop).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(at);
        self.0 = rest;
        word
    }

    fn quoted(&mut self) -> String {
        assert!(self.eat('"'), "a quote at {:?}", self.0);
        let mut text = String::new();
        let mut letters = self.0.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return text;
                }
                '\\' => text.push(match letters.next().unwrap().1 {
                    'n' => '\n',
                    '\\' => '\\',
                    '"' => '"',
                    other => panic!("\\{other} is no escape"),
                }),
                '\n' => panic!("a line break in quotes"),
                other => text.push(other),
            }
        }
        panic!("no closing quote")
    }

    /// Labels after `{`, and a name in quotes among them.
    fn labels(&mut self) -> (BTreeMap<String, String>, Option<String>) {
        let mut labels = BTreeMap::new();
        let mut metric = None;
        while !self.eat('}') {
            let name = if self.0.starts_with('"') { self.quoted() } else { self.word(&['=']).to_owned() };
            if self.eat('=') {
                assert!(labels.insert(name.clone(), self.quoted()).is_none(), "label {name} twice");
            } else {
                assert!(metric.replace(name).is_none(), "two names");
            }
            assert!(self.eat(',') || self.0.starts_with('}'), "a comma or brace at {:?}", self.0);
        }
        (labels, metric)
    }
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => {
            assert!(text.bytes().all(|b| b.is_ascii_digit() || b"+-.e".contains(&b)), "{text:?} is no number");
            text.parse().unwrap()
        }
    }
}

/// Reads a page; anything out of order fails the test.
#[track_caller]
pub(crate) fn read(page: &str, open_metrics: bool) -> Read {
    let mut read = Read::default();
    let mut families = HashSet::new();
    let body = if open_metrics { page.strip_suffix("# EOF\n").expect("the page ends in # EOF") } else { page };
    assert!(body.is_empty() || body.ends_with('\n'));
    for text in body.lines() {
        assert!(!text.is_empty(), "no blank lines");
        if let Some(comment) = text.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').unwrap();
            let mut cursor = Cursor(rest);
            let name = if rest.starts_with('"') { cursor.quoted() } else { cursor.word(&[' ']).to_owned() };
            let rest = cursor.0.strip_prefix(' ').unwrap().to_owned();
            match word {
                "HELP" => {
                    let rest = rest.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\");
                    assert!(read.help.insert(name, rest).is_none(), "two HELP lines");
                }
                "TYPE" => {
                    assert!(families.insert(name.clone()), "family {name} twice");
                    read.types.push((name, rest));
                }
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{rest}")), "unit {rest} of {name}");
                    read.unit.insert(name, rest);
                }
                other => panic!("# {other}"),
            }
            continue;
        }
        let mut cursor = Cursor(text);
        let mut name = cursor.word(&['{', ' ']).to_owned();
        let mut labels = BTreeMap::new();
        if cursor.eat('{') {
            let (found, quoted) = cursor.labels();
            labels = found;
            if let Some(quoted) = quoted {
                assert!(name.is_empty(), "two names");
                name = quoted;
            }
        }
        assert!(!name.is_empty());
        let (sample, exemplar) = match cursor.0.split_once(" # ") {
            Some((sample, exemplar)) => (sample, Some(exemplar)),
            None => (cursor.0, None),
        };
        let mut words = sample.split(' ');
        assert_eq!(words.next(), Some(""), "one space before the value in {text:?}");
        let value = number(words.next().unwrap());
        let time = words.next().map(number);
        assert_eq!(words.next(), None, "{text:?}");
        let exemplar = exemplar.map(|exemplar| {
            assert!(open_metrics, "exemplars are OpenMetrics'");
            let mut cursor = Cursor(exemplar);
            assert!(cursor.eat('{'));
            let (labels, _) = cursor.labels();
            assert!(labels.iter().map(|(k, v)| k.chars().count() + v.chars().count()).sum::<usize>() <= 128);
            let mut words = cursor.0.trim_start().split(' ');
            (labels, number(words.next().unwrap()), words.next().map(number))
        });
        let (family, kind) = read.types.last().expect("TYPE comes first");
        let suffixes: &[&str] = match (kind.as_str(), open_metrics) {
            ("counter", true) => &["_total", "_created"],
            ("info", true) => &["_info"],
            ("histogram", _) => &["_bucket", "_sum", "_count", "_created"],
            ("summary", _) => &["", "_sum", "_count", "_created"],
            _ => &[""],
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{name} does not belong to {kind} {family}");
        if exemplar.is_some() {
            assert!(name.ends_with("_total") || name.ends_with("_bucket"), "an exemplar on {name}");
        }
        read.lines.push(Line { name, labels, value, time, exemplar });
    }
    read
}
