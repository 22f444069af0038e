//! A server that refuses what Elasticsearch refuses, keeps what it takes, and misbehaves when it is told to. Written on a bare socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// One action and its source.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) action: String,
    pub(super) meta: Map<String, Value>,
    pub(super) source: Value,
}

impl Line {
    pub(super) fn index(&self) -> &str {
        self.meta["_index"].as_str().unwrap()
    }
}

/// What is done with one bulk request.
pub(super) enum Does {
    /// What a healthy server does; for a document that this names, the error instead.
    Items(Box<dyn Fn(usize, &Line) -> Option<(u16, &'static str, &'static str)> + Send>),
    /// These bytes, as they are.
    Raw(Vec<u8>),
    /// Nothing, and the connection is closed.
    Reset,
    /// Nothing, and the connection stays.
    Never,
    /// A healthy answer's beginning, and then the same piece for ever.
    Endless(&'static str),
}

impl Does {
    pub(super) fn well() -> Self {
        Self::Items(Box::new(|_, _| None))
    }

    pub(super) fn status(status: u16, body: &Value) -> Self {
        Self::Raw(answered(status, &body.to_string()))
    }
}

#[derive(Default)]
pub(super) struct State {
    /// By index: documents in their order, and the ids that are taken.
    pub(super) stored: BTreeMap<String, Vec<Value>>,
    ids: BTreeSet<(String, String)>,
    pub(super) bulks: Vec<Vec<Line>>,
    /// Sizes of the bodies as they came.
    pub(super) sizes: Vec<usize>,
    pub(super) asked: Vec<(String, String, Value)>,
    /// What is wrong with a request, in the words of a test that fails.
    pub(super) wrong: Vec<String>,
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

type Script = Arc<dyn Fn(usize, &[Line]) -> Does + Send + Sync>;
/// Method, path and body of a request that is not a bulk; `None`: as a healthy server answers.
pub(super) type Asks = Arc<dyn Fn(&str, &str, &Value) -> Option<(u16, Value)> + Send + Sync>;

#[derive(Clone)]
struct Behaviour {
    root: Value,
    script: Script,
    asks: Asks,
    bytes_max: usize,
}

impl Fake {
    pub(super) async fn start(version: &str, script: impl Fn(usize, &[Line]) -> Does + Send + Sync + 'static) -> Self {
        Self::with(version, script, Arc::new(|_, _, _| None), usize::MAX).await
    }

    /// `version`: `8.15.0`, or `opensearch 2.19.1`.
    pub(super) async fn with(
        version: &str,
        script: impl Fn(usize, &[Line]) -> Does + Send + Sync + 'static,
        asks: Asks,
        bytes_max: usize,
    ) -> Self {
        let root = match version.strip_prefix("opensearch ") {
            Some(number) => json!({"version": {"number": number, "distribution": "opensearch"}}),
            None => json!({"version": {"number": version, "build_flavor": "default"}, "tagline": "You Know, for Search"}),
        };
        let behaviour = Behaviour { root, script: Arc::new(script), asks, bytes_max };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, shared.clone(), behaviour.clone()));
            }
        });
        Self { address, state, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All documents of an index.
    pub(super) fn documents(&self, index: &str) -> Vec<Value> {
        self.state.lock().stored.get(index).cloned().unwrap_or_default()
    }

    pub(super) fn count(&self) -> usize {
        self.state.lock().stored.values().map(Vec::len).sum()
    }

    /// Fails the test if a request was one that no server takes.
    pub(super) fn assert_well_formed(&self) {
        let wrong = self.state.lock().wrong.clone();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

pub(super) fn answered(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn connection(mut stream: TcpStream, state: Arc<Mutex<State>>, behaviour: Behaviour) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        if header("content-encoding").as_deref() == Some("gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        let answer = if path.starts_with("/_bulk") {
            match bulk(&head, &header("content-type").unwrap_or_default(), &body, &state, &behaviour) {
                Ok(answer) => answer,
                Err(Some(piece)) => {
                    let start = "HTTP/1.1 200 x\r\ncontent-type: application/json\r\ncontent-length: 10737418240\r\n\r\n";
                    if stream.write_all(start.as_bytes()).await.is_err() {
                        return;
                    }
                    while stream.write_all(piece.repeat(1000).as_bytes()).await.is_ok() {}
                    return;
                }
                Err(None) => return std::future::pending().await,
            }
        } else {
            let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            state.lock().asked.push((method.clone(), path.clone(), sent.clone()));
            let (status, said) = (behaviour.asks)(&method, &path, &sent).unwrap_or_else(|| match path.as_str() {
                "/" => (200, behaviour.root.clone()),
                _ => (404, json!({"error": {"type": "resource_not_found_exception", "reason": path}, "status": 404})),
            });
            answered(status, &said.to_string())
        };
        if answer.is_empty() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The answer; nothing to close the connection. `Err`: a piece to repeat for ever, or nothing at all.
fn bulk(
    head: &str,
    kind: &str,
    body: &[u8],
    state: &Mutex<State>,
    behaviour: &Behaviour,
) -> Result<Vec<u8>, Option<&'static str>> {
    let mut state = state.lock();
    state.sizes.push(body.len());
    if body.len() > behaviour.bytes_max {
        return Ok(answered(413, ""));
    }
    let is_opensearch = behaviour.root["version"].get("distribution").is_some();
    let lines = match parse(kind, body, is_opensearch) {
        Ok(lines) => lines,
        Err(wrong) => {
            state.wrong.push(format!("{wrong}\n{head}\n{}", String::from_utf8_lossy(&body[..body.len().min(2000)])));
            let said = json!({"error": {"type": "illegal_argument_exception", "reason": wrong}, "status": 400});
            return Ok(answered(400, &said.to_string()));
        }
    };
    let number = state.bulks.len();
    state.bulks.push(lines.clone());
    let decides = match (behaviour.script)(number, &lines) {
        Does::Items(decides) => decides,
        Does::Raw(bytes) => return Ok(bytes),
        Does::Reset => return Ok(Vec::new()),
        Does::Never => return Err(None),
        Does::Endless(piece) => return Err(Some(piece)),
    };
    let mut items = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let refused = decides(at, line).or_else(|| refusal(line));
        let id = line.meta.get("_id").and_then(Value::as_str).map(str::to_owned);
        let known = id.as_ref().is_some_and(|id| state.ids.contains(&(line.index().to_owned(), id.clone())));
        let said = match refused {
            Some((status, kind, reason)) => json!({"status": status, "error": {"type": kind, "reason": reason}}),
            None if known && line.action == "create" => {
                json!({"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "document already exists"}})
            }
            None => {
                if let Some(id) = id {
                    state.ids.insert((line.index().to_owned(), id));
                }
                state.stored.entry(line.index().to_owned()).or_default().push(line.source.clone());
                json!({"status": 201})
            }
        };
        items.push(json!({ line.action.clone(): said }));
    }
    Ok(answered(200, &json!({ "items": items }).to_string()))
}

/// What a healthy server finds wrong with a document.
fn refusal(line: &Line) -> Option<(u16, &'static str, &'static str)> {
    let is_stream = ["logs-", "traces-", "metrics-"].iter().any(|prefix| line.index().starts_with(prefix));
    (is_stream && line.source.get("@timestamp").is_none()).then_some((
        400,
        "document_parsing_exception",
        "data stream timestamp field [@timestamp] is missing",
    ))
}

fn parse(kind: &str, body: &[u8], is_opensearch: bool) -> Result<Vec<Line>, String> {
    if !matches!(kind, "application/x-ndjson" | "application/json") {
        return Err(format!("Content-Type header [{kind}] is not supported"));
    }
    if !body.ends_with(b"\n") {
        return Err("The bulk request must be terminated by a newline [\\n]".to_owned());
    }
    let mut lines = body.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    lines.pop();
    if lines.len() % 2 != 0 {
        return Err("an action without a source".to_owned());
    }
    lines.chunks(2).map(|two| line(two[0], two[1], is_opensearch)).collect()
}

fn line(action: &[u8], source: &[u8], is_opensearch: bool) -> Result<Line, String> {
    let Strict(action) = serde_json::from_slice(action).map_err(|error| format!("Malformed action/metadata line: {error}"))?;
    let Strict(source) = serde_json::from_slice(source).map_err(|error| format!("a source that is no JSON: {error}"))?;
    let Value::Object(action) = action else { return Err("an action that is no object".to_owned()) };
    let [(name, meta)] = action.into_iter().collect::<Vec<_>>().try_into().map_err(|_| "not one action".to_owned())?;
    if !matches!(name.as_str(), "create" | "index") {
        return Err(format!("an action [{name}] that nobody meant"));
    }
    let Value::Object(meta) = meta else { return Err("an action without its object".to_owned()) };
    for key in meta.keys() {
        let known = matches!(key.as_str(), "_index" | "_id" | "pipeline")
            || (!is_opensearch && matches!(key.as_str(), "require_data_stream" | "dynamic_templates"));
        if !known {
            return Err(format!("Action/metadata line contains an unknown parameter [{key}]"));
        }
    }
    let index = meta.get("_index").and_then(Value::as_str).unwrap_or_default();
    let fits = !index.is_empty()
        && index.len() <= 255
        && !index.starts_with(['-', '_', '+', '.'])
        && !index.contains("..")
        && !index.chars().any(|c| c.is_uppercase() || c.is_control() || "\\/*?\"<>| ,#:".contains(c));
    if !fits {
        return Err(format!("Invalid index name [{index}]"));
    }
    if meta.get("_id").is_some_and(|id| id.as_str().is_none_or(|id| id.is_empty() || id.len() > 512)) {
        return Err("id is too long or none".to_owned());
    }
    if !source.is_object() {
        return Err("a source that is no object".to_owned());
    }
    names(&source)?;
    Ok(Line { action: name, meta, source })
}

/// Elasticsearch refuses fields without a name, and names with empty parts.
fn names(value: &Value) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name.split('.').any(str::is_empty) {
                    return Err(format!("field name [{name}] has an empty part"));
                }
                names(value)?;
            }
            Ok(())
        }
        Value::Array(values) => values.iter().try_for_each(names),
        _ => Ok(()),
    }
}

/// JSON in which no key comes twice.
struct Strict(Value);

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Value;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(Strict(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(values.into())
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut fields = Map::new();
                while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
                    if fields.insert(name.clone(), value).is_some() {
                        return Err(serde::de::Error::custom(format!("Duplicate field '{name}'")));
                    }
                }
                Ok(fields.into())
            }
        }
        deserializer.deserialize_any(Visitor).map(Self)
    }
}

/// Fails the test if these are not lines that a server takes.
pub(super) fn assert_lines(body: &[u8]) {
    if let Err(wrong) = parse("application/x-ndjson", body, true) {
        panic!("{wrong}\n{}", String::from_utf8_lossy(&body[..body.len().min(4000)]));
    }
}
