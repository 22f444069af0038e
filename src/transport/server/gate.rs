//! What stands before every path of a listener: who may come in, which web pages may send, and headers on every answer.
//!
//! Spec: Fetch Standard, "CORS protocol".

use std::{str::FromStr, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use super::settings::{Auth, Cors, GrpcServerSettings, HttpServerSettings};
use crate::{
    component::{AuthError, Extensions, ServerAuth},
    config::Section,
    runtime::BuildError,
};

/// Headers that SDKs in browsers send and that no page has to be allowed one by one.
const USUAL_HEADERS: &str = "accept, content-type, content-encoding, x-requested-with";

/// Made once a listener.
#[derive(Default)]
pub struct Gate {
    auth: Option<Arc<dyn ServerAuth>>,
    cors: Option<Pages>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

struct Pages {
    origins: Vec<String>,
    /// `None`: whatever is asked for.
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// What a request's `Origin` makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Not from a page, or nothing is said about pages.
    None,
    Allowed(HeaderValue),
    Refused,
}

impl Gate {
    pub fn of_http(settings: &HttpServerSettings, extensions: &Extensions) -> Result<Self, BuildError> {
        let headers = settings
            .response_headers
            .iter()
            .map(|(name, value)| {
                let wrong = |what: &str| BuildError::setting("response_headers", format!("`{name}` {what}"));
                let mut value =
                    HeaderValue::from_str(value.expose()).map_err(|_| wrong("has a value that is no header value"))?;
                value.set_sensitive(true);
                Ok((HeaderName::from_str(name).map_err(|_| wrong("is no header name"))?, value))
            })
            .collect::<Result<_, BuildError>>()?;
        let cors = settings.cors.get().filter(|cors| !cors.allowed_origins.0.is_empty()).map(Pages::new).transpose()?;
        Ok(Self { auth: authenticator(&settings.auth, extensions)?, cors, headers })
    }

    pub fn of_grpc(settings: &GrpcServerSettings, extensions: &Extensions) -> Result<Self, BuildError> {
        Ok(Self { auth: authenticator(&settings.auth, extensions)?, ..Self::default() })
    }

    /// The check of credentials, where there is one.
    pub fn auth(&self) -> Option<&Arc<dyn ServerAuth>> {
        self.auth.as_ref()
    }

    /// Checks credentials; what may be kept of the caller.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<Vec<(Box<str>, Box<str>)>, AuthError> {
        match &self.auth {
            Some(auth) => auth.authenticate(headers).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether pages of this request's origin may send.
    pub fn origin(&self, headers: &HeaderMap) -> Origin {
        let Some(origin) = headers.get(ORIGIN) else { return Origin::None };
        match &self.cors {
            Some(pages) if origin.to_str().is_ok_and(|origin| pages.allows(origin)) => Origin::Allowed(origin.clone()),
            _ => Origin::Refused,
        }
    }

    /// Whether the request only asks what a page may do. Such requests carry no credentials and pass before they are asked for.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The answer to a preflight of an allowed origin.
    pub fn preflight<B: Default>(&self, request: &HeaderMap, methods: &'static str) -> Response<B> {
        let mut answer = Response::new(B::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
        if let Some(pages) = &self.cors {
            let allowed = pages.headers.clone().or_else(|| request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned());
            headers.extend(allowed.map(|allowed| (ACCESS_CONTROL_ALLOW_HEADERS, allowed)));
            headers.extend(pages.max_age.clone().map(|age| (ACCESS_CONTROL_MAX_AGE, age)));
        }
        answer
    }

    /// Puts on an answer, errors too, what pages need to read it, and the headers that the file asks for.
    pub fn dress(&self, origin: Origin, headers: &mut HeaderMap) {
        if let Some(pages) = &self.cors {
            if let Origin::Allowed(origin) = origin {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                headers.extend(pages.exposed.clone().map(|exposed| (ACCESS_CONTROL_EXPOSE_HEADERS, exposed)));
            }
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// Whether [`Gate::dress`] and [`Gate::admit`] have anything to do.
    pub fn is_open(&self) -> bool {
        self.auth.is_none() && self.cors.is_none() && self.headers.is_empty()
    }
}

fn authenticator(auth: &Section<Auth>, extensions: &Extensions) -> Result<Option<Arc<dyn ServerAuth>>, BuildError> {
    auth.get().map(|auth| extensions.server_auth(&auth.authenticator)).transpose()
}

impl Pages {
    fn new(cors: &Cors) -> Result<Self, BuildError> {
        let value = |key: &str, text: String| {
            HeaderValue::from_str(&text).map_err(|_| BuildError::setting(format!("cors::{key}"), "is no list of header names"))
        };
        let all = cors.allowed_headers.0.iter().any(|name| name == "*");
        let mut named = USUAL_HEADERS.to_owned();
        for name in &cors.allowed_headers.0 {
            named.push_str(", ");
            named.push_str(name);
        }
        Ok(Self {
            origins: cors.allowed_origins.0.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            headers: if all { None } else { Some(value("allowed_headers", named)?) },
            exposed: if cors.exposed_headers.0.is_empty() {
                None
            } else {
                Some(value("exposed_headers", cors.exposed_headers.0.join(", "))?)
            },
            max_age: (cors.max_age > 0).then(|| HeaderValue::from(cors.max_age)),
        })
    }

    fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.origins.iter().any(|pattern| matches_pattern(pattern, &origin))
    }
}

/// `*` stands for any run of characters; a pattern may have several.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(mut part) = parts.next() else { return rest.is_empty() };
    for next in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
        part = next;
    }
    rest.ends_with(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, text, fits) in [
            ("*", "https://a.example", true),
            ("http://localhost:*", "http://localhost:3000", true),
            ("http://localhost:*", "http://localhost.evil.example:3000", false),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://example", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://*.a.*", "https://x.a.example", true),
            ("", "x", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), fits, "{pattern} {text}");
        }
    }
}
