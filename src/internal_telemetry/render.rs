//! Our own metrics as Prometheus text 0.0.4, named as the Collector names its own.

use std::fmt::Write;

use super::{Identity, Sample, SampleFamily, SampleKind, SampleValue, Samples, names};

/// How one reader wants names: the Collector's switches and their defaults (all bare).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Counters without `_total`.
    pub without_type_suffix: bool,
    /// `otelcol_process_uptime`, not `otelcol_process_uptime_seconds`.
    pub without_units: bool,
    /// No `otel_scope_name` and `otel_scope_version` on every series.
    pub without_scope_info: bool,
    /// No `target_info`.
    pub without_target_info: bool,
    /// Resource attributes that become labels of every series; `*` stands for any text.
    pub constant_labels: Patterns,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            without_type_suffix: true,
            without_units: true,
            without_scope_info: true,
            without_target_info: false,
            constant_labels: Patterns::default(),
        }
    }
}

/// Names that are meant: some of `included` fits and none of `excluded`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    pub included: Vec<String>,
    pub excluded: Vec<String>,
}

impl Patterns {
    fn mean(&self, name: &str) -> bool {
        self.included.iter().any(|pattern| fits(pattern, name)) && !self.excluded.iter().any(|pattern| fits(pattern, name))
    }
}

/// Whether `name` is `pattern`, in which `*` stands for any text and `?` for one character.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where to go on after the last `*` when what was tried behind it does not fit.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(seen) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Some(p) if p == c || *p == '?' => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    at = after;
                    seen = from + 1;
                    star = Some((after, seen));
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// One page of text.
pub fn text(samples: &Samples, identity: &Identity, style: &Style) -> String {
    let mut out = String::with_capacity(16 << 10);
    let mut constant: Vec<(String, String)> = identity
        .attributes
        .iter()
        .filter(|(name, _)| style.constant_labels.mean(name))
        .map(|(name, value)| (label_name(name), value.clone()))
        .collect();
    if !style.without_scope_info {
        constant.push(("otel_scope_name".to_owned(), "weir".to_owned()));
        constant.push(("otel_scope_version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    }
    for (name, family) in samples.families() {
        write_family(&mut out, &full_name(name, family.kind, style), family, &constant);
    }
    if !style.without_target_info {
        let labels = identity.attributes.iter().map(|(name, value)| (label_name(name), value.clone())).collect();
        let family = SampleFamily {
            help: "Target metadata".to_owned(),
            kind: SampleKind::Gauge,
            samples: vec![Sample { labels, value: SampleValue::Number(1.0) }],
        };
        write_family(&mut out, "target_info", &family, &[]);
    }
    out
}

fn full_name(name: &str, kind: SampleKind, style: &Style) -> String {
    let mut full = name.to_owned();
    if !style.without_units
        && let Some(unit) = names::unit(name)
        && !name.ends_with(unit)
    {
        full.push('_');
        full.push_str(unit);
    }
    if !style.without_type_suffix && kind == SampleKind::Counter {
        full.push_str("_total");
    }
    full
}

fn write_family(out: &mut String, name: &str, family: &SampleFamily, constant: &[(String, String)]) {
    let kind = match family.kind {
        SampleKind::Counter => "counter",
        SampleKind::Gauge => "gauge",
        SampleKind::Histogram => "histogram",
    };
    out.push_str("# HELP ");
    out.push_str(name);
    out.push(' ');
    escape(out, &family.help, false);
    out.push_str("\n# TYPE ");
    out.push_str(name);
    out.push(' ');
    out.push_str(kind);
    out.push('\n');
    for sample in &family.samples {
        match &sample.value {
            SampleValue::Number(value) => write_line(out, name, "", sample, constant, None, *value),
            SampleValue::Histogram { buckets, count, sum } => {
                for (bound, cumulative) in buckets {
                    write_line(out, name, "_bucket", sample, constant, Some(*bound), *cumulative as f64);
                }
                write_line(out, name, "_bucket", sample, constant, Some(f64::INFINITY), *count as f64);
                write_line(out, name, "_sum", sample, constant, None, *sum);
                write_line(out, name, "_count", sample, constant, None, *count as f64);
            }
        }
    }
}

fn write_line(
    out: &mut String,
    name: &str,
    suffix: &str,
    sample: &Sample,
    constant: &[(String, String)],
    bound: Option<f64>,
    value: f64,
) {
    out.push_str(name);
    out.push_str(suffix);
    let mut open = false;
    let mut label = |out: &mut String, name: &str, value: &str| {
        out.push(if open { ',' } else { '{' });
        open = true;
        out.push_str(name);
        out.push_str("=\"");
        escape(out, value, true);
        out.push('"');
    };
    for (name, value) in sample.labels.iter().chain(constant) {
        label(out, name, value);
    }
    if let Some(bound) = bound {
        let mut text = String::new();
        write_number(&mut text, bound);
        label(out, "le", &text);
    }
    if open {
        out.push('}');
    }
    out.push(' ');
    write_number(out, value);
    out.push('\n');
}

fn write_number(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        // Writing to a string does not fail.
        write!(out, "{value}").unwrap_or_default();
    }
}

/// Escapes as the text format asks: quotes only inside label values.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// `service.name` → `service_name`.
fn label_name(attribute: &str) -> String {
    let mut name: String = attribute.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}
