//! Just enough protobuf wire format for this tool: a writer that remembers
//! where the patchable fields landed, a skimmer that counts items without
//! decoding them, and a borrowed walk over the fields that RED metrics need.

/// A place in an encoded message that is rewritten when the payload is resent
/// as fresh data (`--fresh`).
#[derive(Clone, Copy, Debug)]
pub enum Patch {
    /// Low eight bytes of a trace id; the offset is that of the low half.
    TraceId(u32),
    /// A span id or parent span id.
    SpanId(u32),
    /// A fixed64 timestamp in nanoseconds.
    Time(u32),
}

impl Patch {
    fn shifted(self, by: u32) -> Patch {
        match self {
            Patch::TraceId(o) => Patch::TraceId(o + by),
            Patch::SpanId(o) => Patch::SpanId(o + by),
            Patch::Time(o) => Patch::Time(o + by),
        }
    }
}

/// An encoded message under construction.
#[derive(Clone, Default)]
pub struct Msg {
    pub buf: Vec<u8>,
    pub patches: Vec<Patch>,
}

impl Msg {
    pub fn new() -> Msg {
        Msg::default()
    }

    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.buf.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.buf.push(v as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire_type));
    }

    fn here(&self) -> u32 {
        u32::try_from(self.buf.len()).expect("a payload under 4 GiB")
    }

    pub fn uint(&mut self, field: u32, v: u64) {
        if v != 0 {
            self.tag(field, 0);
            self.varint(v);
        }
    }

    /// Like `uint`, but written even when zero (members of a oneof are).
    pub fn uint_always(&mut self, field: u32, v: u64) {
        self.tag(field, 0);
        self.varint(v);
    }

    pub fn fixed64(&mut self, field: u32, v: u64) {
        self.tag(field, 1);
        self.buf.extend_from_slice(&v.to_le_bytes());
    }

    pub fn fixed32(&mut self, field: u32, v: u32) {
        self.tag(field, 5);
        self.buf.extend_from_slice(&v.to_le_bytes());
    }

    pub fn double(&mut self, field: u32, v: f64) {
        self.fixed64(field, v.to_bits());
    }

    pub fn bytes(&mut self, field: u32, v: &[u8]) {
        self.tag(field, 2);
        self.varint(v.len() as u64);
        self.buf.extend_from_slice(v);
    }

    pub fn str(&mut self, field: u32, v: &str) {
        if !v.is_empty() {
            self.bytes(field, v.as_bytes());
        }
    }

    pub fn time(&mut self, field: u32, v: u64) {
        self.fixed64(field, v);
        let at = self.here() - 8;
        self.patches.push(Patch::Time(at));
    }

    pub fn trace_id(&mut self, field: u32, v: &[u8; 16]) {
        self.bytes(field, v);
        let at = self.here() - 8;
        self.patches.push(Patch::TraceId(at));
    }

    pub fn span_id(&mut self, field: u32, v: &[u8; 8]) {
        self.bytes(field, v);
        let at = self.here() - 8;
        self.patches.push(Patch::SpanId(at));
    }

    pub fn packed_fixed64(&mut self, field: u32, vs: &[u64]) {
        self.tag(field, 2);
        self.varint(vs.len() as u64 * 8);
        for v in vs {
            self.buf.extend_from_slice(&v.to_le_bytes());
        }
    }

    pub fn msg(&mut self, field: u32, inner: &Msg) {
        self.tag(field, 2);
        self.varint(inner.buf.len() as u64);
        let by = self.here();
        self.buf.extend_from_slice(&inner.buf);
        self.patches.extend(inner.patches.iter().map(|p| p.shifted(by)));
    }
}

/// Malformed input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// One field of a message, borrowed from the input.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// Nothing that is read here is a fixed32.
    Fixed32,
    Bytes(&'a [u8]),
}

/// Walks the top-level fields of one message.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let (&b, rest) = self.rest.split_first().ok_or(Malformed)?;
        if b < 0x80 {
            self.rest = rest;
            return Ok(u64::from(b));
        }
        if let Some((&c, rest)) = rest.split_first()
            && c < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(b & 0x7f) | u64::from(c) << 7);
        }
        self.varint_slow()
    }

    #[cold]
    #[inline(never)]
    fn varint_slow(&mut self) -> Result<u64, Malformed> {
        let mut v = 0u64;
        for i in 0..10 {
            let (&b, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            v |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err(Malformed)
    }

    #[inline(always)]
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next field, or `None` at the end of the message.
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = (key >> 3) as u32;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Malformed)?)),
            2 => {
                let n = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(n)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(Malformed),
        };
        Ok(Some((field, value)))
    }
}

/// OTLP signal, as the three export services divide them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Signal {
    Traces,
    Logs,
    Metrics,
}

impl Signal {
    pub fn path(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    pub fn from_path(path: &str) -> Option<Signal> {
        [Signal::Traces, Signal::Logs, Signal::Metrics].into_iter().find(|s| s.path() == path)
    }

    pub fn item(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Logs => "log records",
            Signal::Metrics => "data points",
        }
    }
}

/// Counts spans, log records or data points by hopping over lengths; nothing
/// below the counted level is looked at.
pub fn count_items(signal: Signal, request: &[u8]) -> Result<u64, Malformed> {
    let mut n = 0;
    let mut top = Fields::new(request);
    while let Some((f, v)) = top.next()? {
        let (1, Value::Bytes(resource_items)) = (f, v) else {
            continue;
        };
        let mut res = Fields::new(resource_items);
        while let Some((f, v)) = res.next()? {
            let (2, Value::Bytes(scope_items)) = (f, v) else {
                continue;
            };
            let mut scope = Fields::new(scope_items);
            while let Some((f, v)) = scope.next()? {
                let (2, Value::Bytes(item)) = (f, v) else {
                    continue;
                };
                n += match signal {
                    Signal::Traces | Signal::Logs => 1,
                    Signal::Metrics => count_points(item)?,
                };
            }
        }
    }
    Ok(n)
}

fn count_points(metric: &[u8]) -> Result<u64, Malformed> {
    let mut n = 0;
    let mut fields = Fields::new(metric);
    while let Some((f, v)) = fields.next()? {
        // gauge, sum, histogram, exponential histogram, summary
        let (5 | 7 | 9 | 10 | 11, Value::Bytes(data)) = (f, v) else {
            continue;
        };
        let mut points = Fields::new(data);
        while let Some((f, _)) = points.next()? {
            n += u64::from(f == 1);
        }
    }
    Ok(n)
}

/// What the RED walk reads of one span; everything is borrowed from the input.
#[derive(Clone, Copy, Default)]
pub struct RedSpan<'a> {
    pub service: &'a [u8],
    pub name: &'a [u8],
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    pub parent_span_id: &'a [u8],
    pub kind: u64,
    pub status: u64,
    pub start: u64,
    pub end: u64,
}

/// Calls `f` with each span of an ExportTraceServiceRequest. Only
/// `service.name` of each resource and the fields of [`RedSpan`] are read;
/// attributes, events and links are hopped over.
#[inline]
pub fn walk_spans<'a>(request: &'a [u8], mut f: impl FnMut(&RedSpan<'a>)) -> Result<(), Malformed> {
    let mut top = Fields::new(request);
    while let Some((field, v)) = top.next()? {
        let (1, Value::Bytes(resource_spans)) = (field, v) else {
            continue;
        };
        // The resource may legally follow its scopes, so it is sought first.
        // Encoders write it first, so this finds it at once.
        let mut service: &[u8] = b"";
        let mut fields = Fields::new(resource_spans);
        while let Some((field, v)) = fields.next()? {
            if let (1, Value::Bytes(resource)) = (field, v) {
                service = string_attribute(resource, b"service.name")?;
                break;
            }
        }
        let mut fields = Fields::new(resource_spans);
        while let Some((field, v)) = fields.next()? {
            let (2, Value::Bytes(scope_spans)) = (field, v) else {
                continue;
            };
            let mut fields = Fields::new(scope_spans);
            while let Some((field, v)) = fields.next()? {
                if let (2, Value::Bytes(span)) = (field, v) {
                    f(&red_span(service, span)?);
                }
            }
        }
    }
    Ok(())
}

#[inline]
fn red_span<'a>(service: &'a [u8], span: &'a [u8]) -> Result<RedSpan<'a>, Malformed> {
    let mut out = RedSpan { service, ..RedSpan::default() };
    let mut fields = Fields::new(span);
    while let Some((field, v)) = fields.next()? {
        match (field, v) {
            (1, Value::Bytes(b)) => out.trace_id = b,
            (2, Value::Bytes(b)) => out.span_id = b,
            (4, Value::Bytes(b)) => out.parent_span_id = b,
            (5, Value::Bytes(b)) => out.name = b,
            (6, Value::Varint(k)) => out.kind = k,
            (7, Value::Fixed64(t)) => out.start = t,
            (8, Value::Fixed64(t)) => out.end = t,
            (15, Value::Bytes(status)) => {
                let mut fields = Fields::new(status);
                while let Some((field, v)) = fields.next()? {
                    if let (3, Value::Varint(code)) = (field, v) {
                        out.status = code;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

/// The string value of one attribute of a Resource, or empty.
fn string_attribute<'a>(resource: &'a [u8], key: &[u8]) -> Result<&'a [u8], Malformed> {
    let mut fields = Fields::new(resource);
    while let Some((field, v)) = fields.next()? {
        let (1, Value::Bytes(kv)) = (field, v) else {
            continue;
        };
        let mut this_key: &[u8] = b"";
        let mut fields = Fields::new(kv);
        while let Some((field, v)) = fields.next()? {
            match (field, v) {
                (1, Value::Bytes(k)) => this_key = k,
                (2, Value::Bytes(any)) if this_key == key => {
                    let mut fields = Fields::new(any);
                    while let Some((field, v)) = fields.next()? {
                        if let (1, Value::Bytes(s)) = (field, v) {
                            return Ok(s);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    Ok(b"")
}

/// FNV-1a style mixing over eight bytes at a time: cheap, and good enough for
/// a table of a few hundred service/operation pairs.
#[inline]
pub fn quick_hash(seed: u64, b: &[u8]) -> u64 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut h = seed ^ (b.len() as u64).wrapping_mul(K);
    let (chunks, tail) = b.as_chunks::<8>();
    for c in chunks {
        h = (h ^ u64::from_le_bytes(*c)).wrapping_mul(K).rotate_left(29);
    }
    let mut last = [0u8; 8];
    last[..tail.len()].copy_from_slice(tail);
    h = (h ^ u64::from_le_bytes(last)).wrapping_mul(K);
    h ^ h >> 32
}

/// A minimal RED table: per service/name/kind/status a count, a duration sum
/// and a 16-bucket histogram. This is the least work any RED stage can do.
pub struct RedTable {
    slots: Vec<RedSlot>,
    used: usize,
}

#[derive(Clone, Default)]
struct RedSlot {
    key: u64,
    service: Vec<u8>,
    name: Vec<u8>,
    kind: u8,
    status: u8,
    count: u64,
    sum: u64,
    buckets: [u64; 16],
}

impl RedTable {
    pub fn new() -> RedTable {
        RedTable { slots: vec![RedSlot::default(); 4096], used: 0 }
    }

    #[inline]
    pub fn add(&mut self, s: &RedSpan<'_>) {
        let seed = quick_hash(s.kind << 8 | s.status, s.service);
        let key = quick_hash(seed, s.name) | 1;
        let mask = self.slots.len() - 1;
        let mut i = key as usize & mask;
        loop {
            let slot = &mut self.slots[i];
            if slot.key == key
                && slot.name == s.name
                && slot.service == s.service
                && u64::from(slot.kind) == s.kind
                && u64::from(slot.status) == s.status
            {
                let d = s.end.saturating_sub(s.start);
                slot.count += 1;
                slot.sum += d;
                // Powers of two from about one millisecond.
                let b = (64 - (d >> 20).leading_zeros() as usize).min(15);
                slot.buckets[b] += 1;
                return;
            }
            if slot.key == 0 {
                assert!(self.used < 3000, "RED table is full");
                self.used += 1;
                *slot = RedSlot {
                    key,
                    service: s.service.to_vec(),
                    name: s.name.to_vec(),
                    kind: s.kind as u8,
                    status: s.status as u8,
                    ..RedSlot::default()
                };
                continue;
            }
            i = (i + 1) & mask;
        }
    }

    #[cfg(test)]
    pub fn series(&self) -> usize {
        self.used
    }

    #[cfg(test)]
    pub fn total(&self) -> u64 {
        self.slots.iter().map(|s| s.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Compression, Shape, build};

    fn shape(signal: Signal, complete: bool) -> Shape {
        Shape {
            signal,
            batch: 50,
            attrs: 10,
            payloads: 20,
            services: 12,
            error_pct: 1.5,
            complete,
            seed: 7,
            compression: Compression::None,
        }
    }

    #[test]
    fn counts_what_was_built() {
        for signal in [Signal::Traces, Signal::Logs, Signal::Metrics] {
            let set = build(&shape(signal, false));
            assert_eq!(set.payloads.len(), 20, "{signal:?}");
            let per = if signal == Signal::Metrics { 48 } else { 50 };
            for p in &set.payloads {
                assert_eq!(count_items(signal, p.raw()), Ok(per), "{signal:?}");
            }
        }
    }

    #[test]
    fn walk_reads_every_span() {
        let set = build(&shape(Signal::Traces, false));
        let mut red = RedTable::new();
        for p in &set.payloads {
            walk_spans(p.raw(), |s| {
                assert!(!s.service.is_empty() && !s.name.is_empty());
                assert_eq!((s.trace_id.len(), s.span_id.len()), (16, 8));
                assert!(s.end >= s.start && (1..=5).contains(&s.kind));
                red.add(s);
            })
            .expect("well formed");
        }
        assert_eq!(red.total(), set.items);
        assert!(red.series() > 20);
    }

    #[test]
    fn truncated_input_is_an_error_not_a_panic() {
        let set = build(&shape(Signal::Traces, false));
        let raw = set.payloads[0].raw();
        for n in (1..raw.len()).step_by(97) {
            let _ = walk_spans(&raw[..n], |_| {});
            assert_eq!(count_items(Signal::Traces, &raw[..n]), Err(Malformed));
        }
    }

    #[test]
    fn fresh_payloads_keep_traces_whole() {
        use std::collections::{HashMap, HashSet};
        let set = build(&shape(Signal::Traces, true));
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        for epoch in 0..3 {
            // Every parent is in its own trace, wherever it was sent.
            let mut spans: HashMap<Vec<u8>, HashSet<Vec<u8>>> = HashMap::new();
            let mut parents = Vec::new();
            for p in &set.payloads {
                let body = p.fresh(epoch, 1000);
                walk_spans(&body[5..], |s| {
                    spans.entry(s.trace_id.to_vec()).or_default().insert(s.span_id.to_vec());
                    if !s.parent_span_id.is_empty() {
                        parents.push((s.trace_id.to_vec(), s.parent_span_id.to_vec()));
                    }
                })
                .expect("well formed");
            }
            for (trace, parent) in parents {
                assert!(spans[&trace].contains(&parent));
            }
            for trace in spans.into_keys() {
                assert!(seen.insert(trace), "a trace id came twice");
            }
        }
    }
}
