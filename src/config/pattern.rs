//! Regular expressions as a Collector file means them: Go's syntax, read by Rust's engine.
//!
//! Go's `\d`, `\w`, `\s` and `\b` know ASCII only; inside a class `[`, `&` and `~` are themselves; a `{` that begins no repetition is a brace; `\<` is
//! a `<`; `\Q…\E` quotes. What neither engine has (`\C`, octal escapes) is an error that shows the pattern.

use regex::{Regex, RegexBuilder};

/// Bytes a compiled pattern may take.
const SIZE_MAX: usize = 1 << 20;

/// Compiles a pattern in Go's syntax. The error is one line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    compile_within(pattern, SIZE_MAX)
}

/// The same with another bound on the bytes that the compiled pattern takes.
pub fn compile_within(pattern: &str, bytes_max: usize) -> Result<Regex, String> {
    RegexBuilder::new(&translate(pattern)).size_limit(bytes_max).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => format!("the pattern needs more than {limit} bytes"),
        error => {
            let text = error.to_string();
            // The engine draws the pattern first; the last line says what is wrong.
            let last = text.lines().next_back().unwrap_or_default();
            format!("the pattern cannot be read: {}", last.strip_prefix("error: ").unwrap_or(last))
        }
    })
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut class = false;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        rest = after;
        match c {
            '\\' => rest = escape(after, class, &mut out),
            '[' if !class => {
                class = true;
                out.push('[');
                if let Some(tail) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = tail;
                }
                // A bracket that comes first is itself.
                if let Some(tail) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = tail;
                }
            }
            '[' => match rest.strip_prefix(':').and_then(|tail| tail.split_once(":]")) {
                Some((name, tail)) => {
                    out.push_str("[:");
                    out.push_str(name);
                    out.push_str(":]");
                    rest = tail;
                }
                None => out.push_str("\\["),
            },
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            '{' if !class && !repeats(rest) => out.push_str("\\{"),
            c => out.push(c),
        }
    }
    out
}

/// Whether what follows a `{` makes it a repetition.
fn repeats(rest: &str) -> bool {
    let Some((inside, _)) = rest.split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    !least.is_empty() && least.bytes().chain(most.bytes()).all(|byte| byte.is_ascii_digit())
}

/// Writes the escape whose letters begin `after`, and gives back what follows it.
fn escape<'p>(after: &'p str, class: bool, out: &mut String) -> &'p str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let rest = after.get(c.len_utf8()..).unwrap_or_default();
    let plain = match (c, class) {
        ('d', false) => "[0-9]",
        ('d', true) => "0-9",
        ('D', _) => "[^0-9]",
        ('w', false) => "[0-9A-Za-z_]",
        ('w', true) => "0-9A-Za-z_",
        ('W', _) => "[^0-9A-Za-z_]",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('s', true) => "\\t\\n\\f\\r ",
        ('S', _) => "[^\\t\\n\\f\\r ]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        ('<' | '>', _) => {
            out.push(c);
            return rest;
        }
        ('Q', false) => {
            let (quoted, tail) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            return tail;
        }
        _ => {
            out.push('\\');
            out.push(c);
            return rest;
        }
    };
    out.push_str(plain);
    rest
}
