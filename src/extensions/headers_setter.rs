//! Puts headers on what is sent: fixed ones, or ones of the request that the data came with.
//!
//! Where some header comes from the request, a backend that answers 401 or 403 refuses that request, not weir: it is tried five times, then
//! its data goes to the dead letters. With fixed headers only, the data is held until someone mends them.
//!
//! ```yaml
//! extensions:
//!   headers_setter:
//!     headers:
//!       - { key: X-Scope-OrgID, from_context: x-tenant, default_value: anonymous }
//!       - { key: User-Role, value: writer, action: insert }
//! ```

use std::{str::FromStr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::{
    component::{AuthError, BuildContext, ClientAuth, Extension, ExtensionConfig, Stability},
    config::{self, Diagnostics, Node, Secret},
    runtime::BuildError,
    signal::{Context, ContextNeeds},
};

/// The settings of the extension.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub headers: Vec<Header>,
    /// Another authenticator, whose headers are added first.
    pub additional_auth: Option<String>,
}

/// One header to set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Header {
    pub key: String,
    /// What to do when it is there already or not.
    pub action: Action,
    pub value: Option<Secret>,
    /// A header or metadata key of the request the data came with.
    pub from_context: Option<String>,
    /// What the authenticator of that request found out (`username`).
    pub from_attribute: Option<String>,
    /// A file whose first line is the value.
    pub value_file: Option<String>,
    /// Where the request did not have it.
    pub default_value: Option<Secret>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Only if it is not there.
    Insert,
    /// Only if it is there.
    Update,
    #[default]
    Upsert,
    Delete,
}

impl ExtensionConfig for Config {
    const TYPE: &'static str = "headers_setter";
    const STABILITY: Stability = Stability::Beta;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = config::read(node, found);
        let origin = node.nearest("headers").origin;
        if config.headers.is_empty() && !found.has_errors() {
            found.error(origin, "there is no header to set", Some("add `headers: [{ key: …, value: … }]`".to_owned()));
        }
        for header in &config.headers {
            if HeaderName::from_str(&header.key).is_err() {
                found.error(origin, format!("`{}` is not a header name", header.key), None);
            }
            let sources = [
                header.value.is_some(),
                header.from_context.is_some(),
                header.from_attribute.is_some(),
                header.value_file.is_some(),
            ];
            let sources = sources.into_iter().filter(|written| *written).count();
            if header.action != Action::Delete && sources != 1 {
                let help = Some("write one of `value`, `from_context`, `from_attribute` and `value_file`".to_owned());
                found.error(origin, format!("the header `{}` has {sources} sources for its value", header.key), help);
            }
        }
        config
    }

    fn needs(&self) -> ContextNeeds {
        let mut needs = ContextNeeds::default();
        for header in &self.headers {
            needs.auth |= header.from_attribute.is_some();
            needs.metadata.extend(header.from_context.iter().map(|key| key.to_ascii_lowercase()));
        }
        needs
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        let first = self.additional_auth.as_deref().map(|id| context.extensions.client_auth(id)).transpose();
        let first = first.map_err(|error| error.at("additional_auth"))?;
        let rules = self.headers.into_iter().map(Rule::new).collect::<Result<_, _>>()?;
        Ok(Arc::new(Setter(Arc::new(Rules { first, rules }))))
    }
}

struct Setter(Arc<Rules>);

impl Extension for Setter {
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        Some(self.0.clone())
    }
}

struct Rules {
    first: Option<Arc<dyn ClientAuth>>,
    rules: Vec<Rule>,
}

struct Rule {
    name: HeaderName,
    action: Action,
    source: Source,
    default: Option<HeaderValue>,
}

enum Source {
    None,
    Value(HeaderValue),
    File(super::watched::Watched<Option<HeaderValue>>),
    Metadata(String),
    Auth(String),
}

fn value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Rule {
    fn new(header: Header) -> Result<Self, BuildError> {
        let wrong = |what: String| BuildError::setting("headers", what);
        let name = HeaderName::from_str(&header.key).map_err(|_| wrong(format!("`{}` is not a header name", header.key)))?;
        let secret = |secret: Option<Secret>| {
            secret
                .map(|secret| {
                    value(secret.expose()).ok_or_else(|| wrong(format!("the value of `{}` cannot stand in a header", header.key)))
                })
                .transpose()
        };
        let source = if let Some(fixed) = secret(header.value)? {
            Source::Value(fixed)
        } else if let Some(path) = header.value_file {
            let read = |text: &str| value(text.lines().next().unwrap_or_default().trim());
            let file =
                super::watched::Watched::open(&path, read).map_err(|error| wrong(format!("cannot read {path}: {error}")))?;
            Source::File(file)
        } else if let Some(key) = header.from_context {
            Source::Metadata(key.to_ascii_lowercase())
        } else if let Some(attribute) = header.from_attribute {
            // The Collector's spelling is `auth.username` in some places and `username` in others.
            Source::Auth(attribute.strip_prefix("auth.").unwrap_or(&attribute).to_owned())
        } else {
            Source::None
        };
        Ok(Self { name, action: header.action, source, default: secret(header.default_value)? })
    }

    fn value(&self, context: &Context) -> Option<HeaderValue> {
        match &self.source {
            Source::None => None,
            Source::Value(fixed) => Some(fixed.clone()),
            Source::File(file) => file.get().as_ref().clone(),
            Source::Metadata(key) => context.metadata(key).first().and_then(|text| value(text)),
            Source::Auth(attribute) => context.auth(attribute).and_then(value),
        }
        .or_else(|| self.default.clone())
    }
}

impl ClientAuth for Rules {
    fn add_headers(&self, context: &Context, headers: &mut HeaderMap) -> Result<(), AuthError> {
        if let Some(first) = &self.first {
            first.add_headers(context, headers)?;
        }
        for rule in &self.rules {
            let there = headers.contains_key(&rule.name);
            match rule.action {
                Action::Delete => {
                    headers.remove(&rule.name);
                }
                Action::Insert if there => {}
                Action::Update if !there => {}
                _ => {
                    if let Some(value) = rule.value(context) {
                        headers.insert(rule.name.clone(), value);
                    }
                }
            }
        }
        Ok(())
    }

    fn reads_context(&self) -> bool {
        self.first.as_ref().is_some_and(|first| first.reads_context())
            || self.rules.iter().any(|rule| matches!(rule.source, Source::Metadata(_) | Source::Auth(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &[Header], before: &[(&'static str, &str)], after: &[(&str, &str)]) {
        let context = Context {
            metadata: vec![("x-tenant".into(), vec!["acme".into()])],
            auth: vec![("username".into(), "ada".into())],
            ..Context::default()
        };
        let mut headers: HeaderMap =
            before.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        let rules = rules.iter().cloned().map(Rule::new).collect::<Result<_, _>>().unwrap();
        Rules { first: None, rules }.add_headers(&context, &mut headers).unwrap();
        let mut found: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        found.sort_unstable();
        assert_eq!(found, after);
    }

    fn fixed(action: Action) -> Header {
        Header { key: "a".to_owned(), action, value: Some(Secret::new("new")), ..Header::default() }
    }

    #[test]
    fn each_action_minds_what_is_there() {
        check(&[fixed(Action::Insert)], &[("a", "old")], &[("a", "old")]);
        check(&[fixed(Action::Insert)], &[], &[("a", "new")]);
        check(&[fixed(Action::Update)], &[("a", "old")], &[("a", "new")]);
        check(&[fixed(Action::Update)], &[], &[]);
        check(&[fixed(Action::Upsert)], &[("a", "old")], &[("a", "new")]);
        check(&[fixed(Action::Delete)], &[("a", "old")], &[]);
    }

    #[test]
    fn takes_values_from_the_request() {
        let from = |context: Option<&str>, attribute: Option<&str>, default: Option<&str>| Header {
            key: "A".to_owned(),
            from_context: context.map(str::to_owned),
            from_attribute: attribute.map(str::to_owned),
            default_value: default.map(Secret::new),
            ..Header::default()
        };
        check(&[from(Some("X-Tenant"), None, None)], &[], &[("a", "acme")]);
        check(&[from(Some("x-none"), None, None)], &[], &[]);
        check(&[from(Some("x-none"), None, Some("anonymous"))], &[], &[("a", "anonymous")]);
        check(&[from(None, Some("auth.username"), None)], &[], &[("a", "ada")]);
        let needs = Config { headers: vec![from(Some("X-Tenant"), None, None)], additional_auth: None }.needs();
        assert!(needs.metadata.contains("x-tenant"));
        for (header, reads) in [(from(Some("X-Tenant"), None, None), true), (fixed(Action::Upsert), false)] {
            assert_eq!(Rules { first: None, rules: vec![Rule::new(header).unwrap()] }.reads_context(), reads);
        }
    }
}
