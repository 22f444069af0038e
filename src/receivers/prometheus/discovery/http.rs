//! Targets from a server that answers with a list of them as JSON.
//!
//! Spec: Prometheus, `http_sd_config`. Only an answer 200 of type `application/json` counts; any other keeps the targets of before.

use std::{sync::Arc, time::Duration};

use http::{
    Uri,
    header::{ACCEPT, ACCEPT_ENCODING, HeaderName},
};
use tokio::time::{sleep, timeout};

use super::{Group, Surroundings, Teller, groups};
use crate::{
    config::{document, shown_url},
    receivers::prometheus::{
        duration,
        web::{Web, WebSettings},
    },
};

/// Largest list that is read.
const LIST_BYTES_MAX: usize = 4 << 20;

/// One of `http_sd_configs`.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Server {
    pub(in super::super) url: Uri,
    pub(in super::super) refresh: Duration,
    pub(in super::super) web: WebSettings,
}

impl Server {
    pub(super) async fn run(&self, number: usize, around: &Surroundings) {
        let web = Arc::new(Web::new(self.web.clone(), around.budget.clone()));
        let mut teller = Teller::new(around);
        let shown = shown_url(&self.url.to_string()).into_owned();
        let mut last: Option<Vec<Group>> = None;
        let client = loop {
            match web.client(&self.url) {
                Ok(client) => break client,
                Err(error) => teller.failed(&shown, &error.message()),
            }
            sleep(self.refresh).await;
        };
        let headers = [
            (ACCEPT, "application/json".to_owned()),
            (ACCEPT_ENCODING, "gzip".to_owned()),
            (HeaderName::from_static("x-prometheus-refresh-interval-seconds"), format!("{}", self.refresh.as_secs_f64())),
        ];
        loop {
            let asked = timeout(self.refresh, web.get(&client, &self.url, &headers, LIST_BYTES_MAX)).await;
            let found = match asked {
                Err(_) => Err(format!("no answer for {}", duration::text(self.refresh))),
                Ok(Err(failure)) => Err(failure.to_string()),
                Ok(Ok(fetched)) => read(&fetched.media_type, &fetched.body, &shown),
            };
            match found {
                Ok(groups) => {
                    teller.worked(&shown);
                    if last.as_ref() != Some(&groups) {
                        if around.said.send((number, groups.clone())).await.is_err() {
                            return;
                        }
                        last = Some(groups);
                    }
                }
                Err(problem) => teller.failed(&shown, &problem),
            }
            sleep(self.refresh).await;
        }
    }
}

fn read(media_type: &str, body: &[u8], url: &str) -> Result<Vec<Group>, String> {
    let plain = media_type.split(';').next().unwrap_or_default().trim();
    if !plain.eq_ignore_ascii_case("application/json") {
        return Err(format!("the answer is `{plain}`, not application/json"));
    }
    let text = std::str::from_utf8(body).map_err(|_| "the answer is not UTF-8")?;
    // What JSON is, YAML is, too; but not the other way round.
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("the answer is not JSON: {error}"))?;
    let mut groups = groups(&document(text)?)?;
    for group in &mut groups {
        group.labels.set("__meta_url", url.to_owned());
    }
    Ok(groups)
}
