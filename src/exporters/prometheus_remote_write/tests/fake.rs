//! A Prometheus that is strict about requests, keeps what it takes as its head does, and misbehaves when it is told to. On a bare socket.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::messages::{Exemplar, Histogram, Metadata, RequestTwo, TimeSeries, WriteRequest};

/// `name{label="value",…}` of a series.
pub(super) type Name = String;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kept {
    Float(f64),
    Native(Histogram),
}

#[derive(Default)]
pub(super) struct State {
    /// By series: times and values, in the order in which they were taken.
    pub(super) stored: BTreeMap<Name, Vec<(i64, Kept)>>,
    pub(super) exemplars: BTreeMap<Name, Vec<Exemplar>>,
    pub(super) metadata: BTreeMap<String, Metadata>,
    pub(super) starts: BTreeMap<Name, i64>,
    /// Heads of requests, as they came.
    pub(super) heads: Vec<String>,
    /// Sizes of bodies before compression.
    pub(super) sizes: Vec<usize>,
    /// What is wrong with a request, in the words of a test that fails.
    pub(super) wrong: Vec<String>,
}

impl State {
    pub(super) fn floats(&self, name: &str) -> Vec<(i64, f64)> {
        let kept = self.stored.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.stored.keys()));
        let float = |(time, kept): &(i64, Kept)| match kept {
            Kept::Float(value) => (*time, *value),
            Kept::Native(_) => panic!("{name} is a native histogram"),
        };
        kept.iter().map(float).collect()
    }
}

/// Status, headers with their line ends, and body; `None`: as a healthy server. Given the number of the request and what is in it.
pub(super) type Script = Arc<dyn Fn(usize, &WriteRequest) -> Option<(u16, String, String)> + Send + Sync>;

/// What versions it speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// 1.0 and nothing else, and says nothing about it, as Prometheus 2.42.
    One,
    /// 1.0, and keeps what is good of a request that it refuses, as Mimir.
    Partly,
    Both,
}

pub(super) struct Fake {
    address: std::net::SocketAddr,
    pub(super) state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(super) async fn start(
        speaks: Speaks,
        script: impl Fn(usize, &WriteRequest) -> Option<(u16, String, String)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let (shared, script): (_, Script) = (state.clone(), Arc::new(script));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, shared.clone(), script.clone(), speaks));
            }
        });
        Self { address, state, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// Fails the test if a request was one that no server takes.
    pub(super) fn assert_well_formed(&self) {
        let wrong = self.state.lock().wrong.clone();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

async fn connection(mut stream: TcpStream, state: Arc<Mutex<State>>, script: Script, speaks: Speaks) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let (status, headers, said) = answer(&mut state.lock(), &head, &body, &script, speaks);
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{said}", said.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn answer(state: &mut State, head: &str, body: &[u8], script: &Script, speaks: Speaks) -> (u16, String, String) {
    let number = state.heads.len();
    state.heads.push(head.to_owned());
    for (name, value) in [("content-encoding", "snappy")] {
        if header(head, name) != Some(value) {
            state.wrong.push(format!("{name} is not {value}: {head}"));
        }
    }
    let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    state.sizes.push(plain.len());
    let is_two = header(head, "content-type") == Some("application/x-protobuf;proto=io.prometheus.write.v2.request");
    let expected = if is_two { "2.0.0" } else { "0.1.0" };
    if header(head, "x-prometheus-remote-write-version") != Some(expected)
        || !(is_two || header(head, "content-type") == Some("application/x-protobuf"))
    {
        state.wrong.push(format!("versions do not agree: {head}"));
    }
    let (request, starts) = if is_two && speaks == Speaks::Both {
        RequestTwo::decode(&plain[..]).unwrap().in_words_of_one()
    } else {
        (WriteRequest::decode(&plain[..]).unwrap(), Vec::new())
    };
    if let Some(answer) = script(number, &request) {
        return answer;
    }
    for series in &request.series {
        check(series, &mut state.wrong);
        let mut starts = series.samples.iter().map(|it| it.start).chain(series.histograms.iter().map(|it| it.start));
        if !is_two && starts.any(|start| start != 0) {
            state.wrong.push(format!("version 1 knows no start: {series:?}"));
        }
    }
    for (series, start) in request.series.iter().zip(starts) {
        state.starts.insert(name(series), start);
    }
    state.metadata.extend(request.metadata.iter().map(|metadata| (metadata.family.clone(), metadata.clone())));
    take(state, &request, is_two && speaks == Speaks::Both, speaks == Speaks::Partly)
}

pub(super) fn name(series: &TimeSeries) -> Name {
    let mut labels: Vec<String> = Vec::new();
    let mut name = "";
    for label in &series.labels {
        match label.name.as_str() {
            "__name__" => name = &label.value,
            other => labels.push(format!("{other}={:?}", label.value)),
        }
    }
    format!("{name}{{{}}}", labels.join(","))
}

fn check(series: &TimeSeries, wrong: &mut Vec<String>) {
    let names: Vec<&str> = series.labels.iter().map(|label| label.name.as_str()).collect();
    if !names.is_sorted_by(|a, b| a < b) || !names.contains(&"__name__") {
        wrong.push(format!("labels are not sorted, not unique or without a name: {names:?}"));
    }
    if series.labels.iter().any(|label| label.value.is_empty()) {
        wrong.push(format!("an empty label is an absent one: {:?}", series.labels));
    }
    let times: Vec<i64> =
        series.samples.iter().map(|it| it.timestamp).chain(series.histograms.iter().map(|it| it.timestamp)).collect();
    if !times.is_sorted() || times.is_empty() {
        wrong.push(format!("times are not in order: {times:?}"));
    }
    for histogram in &series.histograms {
        let side = |spans: &[super::messages::BucketSpan], deltas: &[i64]| {
            let (mut total, mut bucket) = (0, 0);
            for delta in deltas {
                bucket += delta;
                total += bucket;
            }
            let length: u32 = spans.iter().map(|span| span.length).sum();
            (length as usize == deltas.len()).then_some(total as u64)
        };
        let sides = side(&histogram.positive_spans, &histogram.positive_deltas)
            .zip(side(&histogram.negative_spans, &histogram.negative_deltas));
        if sides.map(|(up, down)| up + down + histogram.zero_count) != Some(histogram.count) {
            wrong.push(format!("buckets that are not what is counted: {histogram:?}"));
        }
    }
}

/// As Prometheus: version 1 is rolled back as a whole, where the server is not one that `keeps` what is good; version 2 keeps it.
fn take(state: &mut State, request: &WriteRequest, is_two: bool, keeps: bool) -> (u16, String, String) {
    let mut stored = state.stored.clone();
    let mut refused = None;
    let (mut samples, mut histograms) = (0, 0);
    for series in &request.series {
        let name = name(series);
        let floats = series.samples.iter().map(|sample| (sample.timestamp, Kept::Float(sample.value)));
        let natives = series.histograms.iter().map(|histogram| (histogram.timestamp, Kept::Native(histogram.clone())));
        for (time, value) in floats.chain(natives) {
            let kept = stored.entry(name.clone()).or_default();
            let problem = match kept.last() {
                Some((last, _)) if time < *last => Some("out of order sample"),
                Some((last, known)) if time == *last && !same(known, &value) => Some("duplicate sample for timestamp"),
                _ => None,
            };
            if let Some(problem) = problem {
                refused.get_or_insert(problem);
                continue;
            }
            match value {
                Kept::Float(_) => samples += 1,
                Kept::Native(_) => histograms += 1,
            }
            if kept.last().is_none_or(|(last, _)| *last != time) {
                kept.push((time, value));
            }
        }
        stored.retain(|_, kept| !kept.is_empty());
    }
    let headers = if is_two {
        format!(
            "X-Prometheus-Remote-Write-Samples-Written: {samples}\r\nX-Prometheus-Remote-Write-Histograms-Written: {histograms}\r\n"
        )
    } else {
        String::new()
    };
    if refused.is_none() || is_two || keeps {
        state.stored = stored;
        for series in request.series.iter().filter(|series| !series.exemplars.is_empty()) {
            state.exemplars.entry(name(series)).or_default().extend(series.exemplars.iter().cloned());
        }
    }
    match refused {
        Some(problem) => (400, headers, problem.to_owned()),
        None => (204, headers, String::new()),
    }
}

fn same(a: &Kept, b: &Kept) -> bool {
    match (a, b) {
        (Kept::Float(a), Kept::Float(b)) => a.to_bits() == b.to_bits(),
        // Since when it counts is not part of the value.
        (Kept::Native(a), Kept::Native(b)) => Histogram { start: 0, ..a.clone() } == Histogram { start: 0, ..b.clone() },
        _ => false,
    }
}
