//! What kind of server it is, and what it can do.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    Elasticsearch,
    OpenSearch,
    /// It does not say.
    Unknown,
}

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) product: Product,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// It runs as a service without versions, nodes or shards.
    pub(super) serverless: bool,
}

impl Facts {
    pub(super) const UNKNOWN: Self = Self { product: Product::Unknown, major: 0, minor: 0, serverless: false };

    /// `opensearch 2.19`, `elasticsearch 8.15.1`, or only the name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let product = match words.next()?.to_ascii_lowercase().as_str() {
            "elasticsearch" => Product::Elasticsearch,
            "opensearch" => Product::OpenSearch,
            _ => return None,
        };
        let (major, minor) = match words.next() {
            Some(version) => version_of(version)?,
            None => (if product == Product::Elasticsearch { 8 } else { 2 }, 0),
        };
        words.next().is_none().then_some(Self { product, major, minor, serverless: false })
    }

    /// Reads the answer to `GET /`.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Root {
            version: Version,
        }
        #[derive(serde::Deserialize)]
        struct Version {
            #[serde(default)]
            number: String,
            #[serde(default)]
            distribution: String,
            #[serde(default)]
            build_flavor: String,
        }
        let root: Root = serde_json::from_slice(body).ok()?;
        let (major, minor) = version_of(&root.version.number)?;
        let product = if root.version.distribution == "opensearch" { Product::OpenSearch } else { Product::Elasticsearch };
        Some(Self { product, major, minor, serverless: root.version.build_flavor == "serverless" })
    }

    pub(super) fn is_elasticsearch(&self, major: u32, minor: u32) -> bool {
        self.product == Product::Elasticsearch && (self.serverless || (self.major, self.minor) >= (major, minor))
    }

    /// Whether it comes with the templates of the `otel` mapping.
    pub(super) fn has_otel(&self) -> bool {
        self.is_elasticsearch(8, 12)
    }

    /// Why weir cannot write to it.
    pub(super) fn too_old(&self) -> Option<String> {
        let floor = match self.product {
            Product::Elasticsearch if !self.serverless && (self.major, self.minor) < (7, 10) => "Elasticsearch 7.10",
            Product::OpenSearch if self.major < 2 => "OpenSearch 2",
            _ => return None,
        };
        Some(format!("this is {self}; the oldest that weir writes to is {floor}"))
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.product {
            Product::Elasticsearch => "Elasticsearch",
            Product::OpenSearch => "OpenSearch",
            Product::Unknown => return f.write_str("a server that does not say what it is"),
        };
        if self.serverless { write!(f, "{name} serverless") } else { write!(f, "{name} {}.{}", self.major, self.minor) }
    }
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']);
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}
