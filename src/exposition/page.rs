//! What a source of series says, free of any format.

use std::borrow::Cow;

use super::{LabelBlock, sink::Gone};

/// Something whose rows a `prometheus` page shows. Rendering takes no lock that ingest waits for longer than a shard's copy: a page
/// method blocks while the client is slow, so a source copies a shard's numbers out, lets the lock go, and writes then.
///
/// Within one family of one source no two samples have equal labels; equal ones of different sources are sorted out by the page.
pub trait PageSource: Send + Sync {
    /// The families it has now. Families of one name from several sources are written together.
    fn families(&self) -> Vec<Family>;
    /// Why there is nothing to show yet: the whole page is refused for so long.
    fn unready(&self) -> Option<&'static str> {
        None
    }
    /// Writes the samples of `families()[number]`; stops early when [`Page::is_gone`]. A family without samples leaves no trace.
    fn render(&self, number: usize, page: &mut Page<'_>);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    /// Says something about a target, always 1. Several sources may say the same.
    Info,
    Unknown,
}

/// One metric family, named in full UTF-8 as translation left it, without the `_total` that OpenMetrics puts on a counter's samples:
/// `name` is what stands in the sample of text 0.0.4 (`http_requests_total`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub name: Cow<'static, str>,
    pub kind: FamilyKind,
    pub help: Cow<'static, str>,
    /// The unit word that the name ends with (`seconds`), or empty.
    pub unit: Cow<'static, str>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// All zero: none.
    pub trace_id: [u8; 16],
    /// All zero: none.
    pub span_id: [u8; 8],
    pub value: f64,
    pub unix_nanos: u64,
    /// Further labels; `trace_id` and `span_id` win over them when the 128 characters of OpenMetrics are used up.
    pub labels: Vec<(Box<str>, Box<str>)>,
}

/// One bucket of a classic histogram: its upper bound (inclusive) and the count of all values up to it.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'a> {
    pub upper_bound: f64,
    pub cumulative: f64,
    pub exemplar: Option<&'a Exemplar>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: i32,
    pub length: u32,
}

/// A native (exponential) histogram: schema −4…8, absolute bucket counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NativeHistogram {
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub positive_spans: Vec<Span>,
    pub positive_counts: Vec<f64>,
    pub negative_spans: Vec<Span>,
    pub negative_counts: Vec<f64>,
    /// Shown where they have a time.
    pub exemplars: Vec<Exemplar>,
}

/// Where a source writes its samples; the format behind it is not its business. All samples go to the family last begun.
pub struct Page<'a> {
    writer: &'a mut (dyn PageWriter + 'a),
}

/// A format.
pub(crate) trait PageWriter {
    /// The client went away or the time is up: nothing is written any more.
    fn is_gone(&self) -> bool;
    /// What follows belongs to `family`, called `name` on this page. `stripped`: OpenMetrics may leave the suffix of its samples out of
    /// the family's name. `shared`: several sources write it.
    fn begin(&mut self, family: &Family, name: &str, stripped: bool, shared: bool);
    fn number(
        &mut self,
        labels: &LabelBlock,
        value: f64,
        start_unix_nanos: u64,
        exemplar: Option<&Exemplar>,
        time_unix_nanos: Option<u64>,
    );
    fn histogram(
        &mut self,
        labels: &LabelBlock,
        sum: Option<f64>,
        count: f64,
        start_unix_nanos: u64,
        buckets: &[Bucket<'_>],
        native: Option<&NativeHistogram>,
        time_unix_nanos: Option<u64>,
    );
    fn summary(
        &mut self,
        labels: &LabelBlock,
        sum: f64,
        count: f64,
        start_unix_nanos: u64,
        quantiles: &[(f64, f64)],
        time_unix_nanos: Option<u64>,
    );
    fn finish(self: Box<Self>) -> Result<(), Gone>;
}

impl<'a> Page<'a> {
    pub(crate) fn new(writer: &'a mut (dyn PageWriter + 'a)) -> Self {
        Self { writer }
    }

    /// Nobody reads the page any more; the source may stop.
    pub fn is_gone(&self) -> bool {
        self.writer.is_gone()
    }

    /// A counter, gauge, info or unknown sample. `start_unix_nanos` 0: not known.
    pub fn number(
        &mut self,
        labels: &LabelBlock,
        value: f64,
        start_unix_nanos: u64,
        exemplar: Option<&Exemplar>,
        time_unix_nanos: Option<u64>,
    ) {
        self.writer.number(labels, value, start_unix_nanos, exemplar, time_unix_nanos);
    }

    /// A histogram: classic `buckets` in rising order, native buckets for scrapers that take them. +Inf may be left out: it is `count`;
    /// a last bucket with it serves to carry an exemplar. Without classic
    /// buckets, text formats show sum and count only.
    pub fn histogram(
        &mut self,
        labels: &LabelBlock,
        sum: Option<f64>,
        count: f64,
        start_unix_nanos: u64,
        buckets: &[Bucket<'_>],
        native: Option<&NativeHistogram>,
        time_unix_nanos: Option<u64>,
    ) {
        self.writer.histogram(labels, sum, count, start_unix_nanos, buckets, native, time_unix_nanos);
    }

    pub fn summary(
        &mut self,
        labels: &LabelBlock,
        sum: f64,
        count: f64,
        start_unix_nanos: u64,
        quantiles: &[(f64, f64)],
        time_unix_nanos: Option<u64>,
    ) {
        self.writer.summary(labels, sum, count, start_unix_nanos, quantiles, time_unix_nanos);
    }
}
