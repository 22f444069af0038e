//! Text 0.0.4 and 1.0.0, OpenMetrics 0.0.1 and 1.0.0.
//!
//! Spec: Prometheus "Exposition formats"; OpenMetrics 1.0. A series costs no allocation: the labels of a histogram are copied from one
//! scratch line into each of its bucket lines, and `le` values are spelled once a family.

use super::{
    Bucket, Exemplar, Family, FamilyKind, LabelBlock, NativeHistogram,
    escaping::{NameOf, is_classic},
    gate::{Gate, Sample},
    labels::{push_escaped, push_quoted},
    numbers::{millis, put_bound, put_seconds, put_uint, put_value},
    page::PageWriter,
    sink::{Gone, Sink},
};

/// What an exemplar's labels may have in characters, names and values together (OpenMetrics 1.0 §4.6.1).
pub(crate) const EXEMPLAR_CHARS: usize = 128;

pub(crate) struct TextPage<'a> {
    sink: Sink<'a>,
    gate: Gate<'a>,
    open_metrics: bool,
    /// OpenMetrics' `_created` samples.
    created: bool,
    name: String,
    /// The name fits the classic alphabet and stands before the braces.
    classic: bool,
    /// The family is shown as a counter, whose samples may carry exemplars and `_created`.
    counter: bool,
    /// HELP, TYPE and UNIT, until the first sample.
    head: Vec<u8>,
    /// The start of a line: name, labels.
    line: Vec<u8>,
    /// `le` or `quantile` values as they are spelled, with what closes the braces.
    bounds: Vec<(u64, Vec<u8>)>,
}

impl<'a> TextPage<'a> {
    pub(crate) fn new(sink: Sink<'a>, gate: Gate<'a>, open_metrics: bool, created: bool) -> Self {
        Self {
            sink,
            gate,
            open_metrics,
            created: created && open_metrics,
            name: String::new(),
            classic: true,
            counter: false,
            head: Vec::new(),
            line: Vec::new(),
            bounds: Vec::new(),
        }
    }

    /// Starts a line with the name, a suffix and the labels, and `label="` of one more label if there is one.
    fn start(&mut self, suffix: &str, labels: &LabelBlock, more: &str) {
        let line = &mut self.line;
        line.clear();
        let mut open = false;
        if self.classic {
            line.extend_from_slice(self.name.as_bytes());
            line.extend_from_slice(suffix.as_bytes());
        } else {
            let mut quoted = String::with_capacity(self.name.len() + suffix.len() + 2);
            push_escaped(&mut quoted, &self.name);
            line.extend_from_slice(b"{\"");
            line.extend_from_slice(quoted.as_bytes());
            line.extend_from_slice(suffix.as_bytes());
            line.push(b'"');
            open = true;
        }
        for text in [labels.text(), more] {
            if !text.is_empty() {
                line.push(if open { b',' } else { b'{' });
                line.extend_from_slice(text.as_bytes());
                open = true;
            }
        }
        if more.is_empty() {
            line.extend_from_slice(if open { b"} " } else { b" " });
        }
    }

    /// The start of a line again, with another suffix: where the name stands before the braces, only the suffix is exchanged.
    fn head_line(&mut self, suffix: &str, labels: &LabelBlock) {
        self.start(suffix, labels, "");
        self.sink.buffer.extend_from_slice(&self.line);
    }

    /// Spells bound number `at`, from the family's memory if it is the same as in the series before.
    fn spell(bounds: &mut Vec<(u64, Vec<u8>)>, out: &mut Vec<u8>, at: usize, bound: f64, canonical: bool) {
        if let Some((_, text)) = bounds.get(at).filter(|(bits, _)| *bits == bound.to_bits()) {
            out.extend_from_slice(text);
            return;
        }
        let mut text = Vec::with_capacity(16);
        put_bound(&mut text, bound, canonical);
        text.extend_from_slice(b"\"} ");
        out.extend_from_slice(&text);
        match bounds.get_mut(at) {
            Some(known) => *known = (bound.to_bits(), text),
            None if at < 1024 => bounds.push((bound.to_bits(), text)),
            None => {}
        }
    }

    fn end(&mut self, time: Option<u64>, exemplar: Option<&Exemplar>) {
        put_time(&mut self.sink.buffer, time, self.open_metrics);
        if let Some(exemplar) = exemplar.filter(|_| self.open_metrics) {
            put_exemplar(&mut self.sink.buffer, exemplar);
        }
        self.sink.buffer.push(b'\n');
    }

    fn put_created(&mut self, labels: &LabelBlock, start_unix_nanos: u64, stem: Option<usize>) {
        if !self.created || start_unix_nanos == 0 {
            return;
        }
        let whole = stem.map(|len| {
            let short = self.name.get(..len).unwrap_or(&self.name).to_owned();
            std::mem::replace(&mut self.name, short)
        });
        self.head_line("_created", labels);
        if let Some(whole) = whole {
            self.name = whole;
        }
        put_seconds(&mut self.sink.buffer, start_unix_nanos);
        self.sink.buffer.push(b'\n');
    }

    fn put_head(&mut self) {
        if !self.head.is_empty() {
            self.sink.buffer.append(&mut self.head);
        }
    }
}

impl PageWriter for TextPage<'_> {
    fn is_gone(&self) -> bool {
        self.sink.is_gone()
    }

    fn begin(&mut self, family: &Family, name: &str, stripped: bool, shared: bool) {
        self.gate.begin(name, family.kind, shared);
        name.clone_into(&mut self.name);
        self.classic = is_classic(name, NameOf::Metric);
        self.bounds.clear();
        self.head.clear();
        let (shown, kind) = if self.open_metrics {
            match family.kind {
                FamilyKind::Counter if stripped => (name.strip_suffix("_total").unwrap_or(name), "counter"),
                FamilyKind::Info if stripped => (name.strip_suffix("_info").unwrap_or(name), "info"),
                FamilyKind::Gauge | FamilyKind::Info => (name, "gauge"),
                FamilyKind::Histogram => (name, "histogram"),
                FamilyKind::Summary => (name, "summary"),
                // A counter's samples must end in `_total`; as unknown it keeps the name it has in every other format.
                FamilyKind::Counter | FamilyKind::Unknown => (name, "unknown"),
            }
        } else {
            let kind = match family.kind {
                FamilyKind::Counter => "counter",
                FamilyKind::Gauge | FamilyKind::Info => "gauge",
                FamilyKind::Histogram => "histogram",
                FamilyKind::Summary => "summary",
                FamilyKind::Unknown => "untyped",
            };
            (name, kind)
        };
        self.counter = kind == "counter";
        let mut quoted = String::new();
        if self.classic {
            quoted.push_str(shown);
        } else {
            push_quoted(&mut quoted, shown);
        }
        let mut head = String::new();
        if !family.help.is_empty() {
            head.push_str("# HELP ");
            head.push_str(&quoted);
            head.push(' ');
            if self.open_metrics {
                push_escaped(&mut head, &family.help);
            } else {
                head.push_str(&family.help.replace('\\', "\\\\").replace('\n', "\\n"));
            }
            head.push('\n');
        }
        for part in ["# TYPE ", &quoted, " ", kind, "\n"] {
            head.push_str(part);
        }
        let is_suffix = || shown.strip_suffix(&*family.unit).is_some_and(|stem| stem.ends_with('_'));
        if self.open_metrics && !family.unit.is_empty() && kind != "info" && is_suffix() {
            for part in ["# UNIT ", &quoted, " ", &family.unit, "\n"] {
                head.push_str(part);
            }
        }
        self.head.extend_from_slice(head.as_bytes());
    }

    fn number(&mut self, labels: &LabelBlock, value: f64, start: u64, exemplar: Option<&Exemplar>, time: Option<u64>) {
        let Some(labels) = self.gate.admit(labels, Sample::Number) else { return };
        self.put_head();
        self.head_line("", &labels);
        put_value(&mut self.sink.buffer, value);
        let exemplar = exemplar.filter(|_| self.counter);
        self.end(time, exemplar);
        if self.counter {
            self.put_created(&labels, start, self.name.strip_suffix("_total").map(str::len));
        }
        self.sink.settle();
    }

    fn histogram(
        &mut self,
        labels: &LabelBlock,
        sum: Option<f64>,
        count: f64,
        start: u64,
        buckets: &[Bucket<'_>],
        _native: Option<&NativeHistogram>,
        time: Option<u64>,
    ) {
        let Some(labels) = self.gate.admit(labels, Sample::Histogram) else { return };
        self.put_head();
        self.start("_bucket", &labels, "le=\"");
        let last = buckets.last().filter(|bucket| bucket.upper_bound == f64::INFINITY);
        let finite = buckets.len() - usize::from(last.is_some());
        self.sink.buffer.reserve((self.line.len() + 32) * (buckets.len() + 3));
        for (at, bucket) in buckets.iter().take(finite).enumerate() {
            self.sink.buffer.extend_from_slice(&self.line);
            Self::spell(&mut self.bounds, &mut self.sink.buffer, at, bucket.upper_bound, self.open_metrics);
            put_value(&mut self.sink.buffer, bucket.cumulative);
            self.end(time, bucket.exemplar);
        }
        self.sink.buffer.extend_from_slice(&self.line);
        self.sink.buffer.extend_from_slice(b"+Inf\"} ");
        put_value(&mut self.sink.buffer, count);
        self.end(time, last.and_then(|bucket| bucket.exemplar));
        if let Some(sum) = sum {
            self.head_line("_sum", &labels);
            put_value(&mut self.sink.buffer, sum);
            self.end(time, None);
        }
        self.head_line("_count", &labels);
        put_value(&mut self.sink.buffer, count);
        self.end(time, None);
        self.put_created(&labels, start, None);
        self.sink.settle();
    }

    fn summary(&mut self, labels: &LabelBlock, sum: f64, count: f64, start: u64, quantiles: &[(f64, f64)], time: Option<u64>) {
        let Some(labels) = self.gate.admit(labels, Sample::Summary) else { return };
        self.put_head();
        self.start("", &labels, "quantile=\"");
        for (at, (quantile, value)) in quantiles.iter().enumerate() {
            self.sink.buffer.extend_from_slice(&self.line);
            Self::spell(&mut self.bounds, &mut self.sink.buffer, at, *quantile, self.open_metrics);
            put_value(&mut self.sink.buffer, *value);
            self.end(time, None);
        }
        self.head_line("_sum", &labels);
        put_value(&mut self.sink.buffer, sum);
        self.end(time, None);
        self.head_line("_count", &labels);
        put_value(&mut self.sink.buffer, count);
        self.end(time, None);
        self.put_created(&labels, start, None);
        self.sink.settle();
    }

    fn finish(mut self: Box<Self>) -> Result<(), Gone> {
        if self.open_metrics {
            self.sink.buffer.extend_from_slice(b"# EOF\n");
        }
        self.sink.finish()
    }
}

fn put_time(out: &mut Vec<u8>, time: Option<u64>, seconds: bool) {
    let Some(time) = time else { return };
    out.push(b' ');
    if seconds {
        put_seconds(out, time);
    } else {
        put_uint(out, millis(time));
    }
}

/// ` # {trace_id="…"} value seconds`
fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    out.extend_from_slice(b" # {");
    let mut first = true;
    let mut quoted = String::new();
    for_each_label(exemplar, |name, value| {
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        quoted.clear();
        push_quoted(&mut quoted, value);
        out.extend_from_slice(quoted.as_bytes());
    });
    out.extend_from_slice(b"} ");
    put_value(out, exemplar.value);
    if exemplar.unix_nanos != 0 {
        out.push(b' ');
        put_seconds(out, exemplar.unix_nanos);
    }
}

/// The labels of an exemplar that fit: the ids first, then what still has room. Names in the classic alphabet.
pub(crate) fn for_each_label(exemplar: &Exemplar, mut put: impl FnMut(&str, &str)) {
    let mut room = EXEMPLAR_CHARS;
    let mut hex = [0; 32];
    if exemplar.trace_id != [0; 16] {
        room -= "trace_id".len() + 32;
        put("trace_id", put_hex(&exemplar.trace_id, &mut hex));
    }
    if exemplar.span_id != [0; 8] {
        room -= "span_id".len() + 16;
        put("span_id", put_hex(&exemplar.span_id, &mut hex));
    }
    let mut used: smallvec::SmallVec<[String; 4]> = smallvec::SmallVec::new();
    for (name, value) in &exemplar.labels {
        let name = super::Escaping::Underscores.apply(name, NameOf::Label);
        let chars = name.chars().count() + value.chars().count();
        let known = name == "trace_id" || name == "span_id" || used.iter().any(|known| *known == name);
        if chars <= room && !name.is_empty() && !known {
            room -= chars;
            put(&name, value);
            used.push(name.into_owned());
        }
    }
}

fn put_hex<'a>(id: &[u8], into: &'a mut [u8; 32]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in into.chunks_exact_mut(2).zip(id) {
        if let [high, low] = pair {
            *high = DIGITS.get(usize::from(byte >> 4)).copied().unwrap_or(b'0');
            *low = DIGITS.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
        }
    }
    into.get(..id.len() * 2).and_then(|hex| str::from_utf8(hex).ok()).unwrap_or_default()
}
