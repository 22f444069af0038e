//! Exporters that send to a receiver of the same file: what comes in would come in again.

use crate::{
    config::{Diagnostics, Node, Origin},
    pipeline::{File, file::PipelineEntry},
    signal::{ComponentId, Signal},
};

/// Names every such exporter. An error where a pipeline leads what the receiver takes back to it, a warning where only the address is its own.
pub(super) fn check(file: &File, found: &mut Diagnostics) {
    let taken: Vec<(&ComponentId, u16)> = file
        .receivers
        .iter()
        .filter(|declared| {
            declared.id.type_name() == "otlp" && uses(file, &declared.id, |pipeline| &pipeline.receivers).next().is_some()
        })
        .flat_map(|declared| listens(&declared.node).into_iter().map(|port| (&declared.id, port)))
        .collect();
    for exporter in &file.exporters {
        if !matches!(exporter.id.type_name(), "otlp" | "otlp_grpc" | "otlphttp" | "otlp_http") {
            continue;
        }
        let mut told: Vec<Origin> = Vec::new();
        for pipeline in uses(file, &exporter.id, |pipeline| &pipeline.exporters) {
            let Some((text, origin)) = endpoint(&exporter.node, pipeline.signal) else { continue };
            let Some((receiver, _)) = port_here(text).and_then(|port| taken.iter().find(|(_, taken)| *taken == port)) else {
                continue;
            };
            if told.contains(&origin) {
                continue;
            }
            told.push(origin);
            let help = Some("name the backend's own address or port".to_owned());
            if leads(file, receiver, pipeline) {
                let message = format!(
                    "this is where `{receiver}` of this file listens: its {} would come back to it without end",
                    pipeline.signal
                );
                found.error(origin, message, help);
            } else {
                found.warning(
                    origin,
                    format!("this is where `{receiver}` of this file listens: weir would send to itself"),
                    help,
                );
            }
        }
    }
}

fn uses<'f>(
    file: &'f File,
    id: &'f ComponentId,
    list: fn(&PipelineEntry) -> &Vec<crate::pipeline::file::Reference>,
) -> impl Iterator<Item = &'f PipelineEntry> {
    file.pipelines.iter().filter(move |pipeline| list(pipeline).iter().any(|reference| reference.id == *id))
}

/// Whether what a receiver takes of the signal that `end` sends reaches `end`.
fn leads(file: &File, receiver: &ComponentId, end: &PipelineEntry) -> bool {
    let mut reached: Vec<&PipelineEntry> =
        uses(file, receiver, |pipeline| &pipeline.receivers).filter(|pipeline| pipeline.signal == end.signal).collect();
    let mut at = 0;
    while let Some(pipeline) = reached.get(at).copied() {
        if pipeline.id == end.id {
            return true;
        }
        for reference in &pipeline.exporters {
            if file.connectors.iter().any(|connector| connector.id == reference.id) {
                for next in uses(file, &reference.id, |pipeline| &pipeline.receivers) {
                    if !reached.iter().any(|known| known.id == next.id) {
                        reached.push(next);
                    }
                }
            }
        }
        at += 1;
    }
    false
}

/// The ports of this machine on which an OTLP receiver listens.
fn listens(node: &Node) -> Vec<u16> {
    let mut ports = Vec::new();
    for (protocol, default) in [("grpc", 4317), ("http", 4318)] {
        let Some(block) = node.get("protocols").and_then(|protocols| protocols.get(protocol)) else { continue };
        ports.extend(match block.get("endpoint").and_then(Node::word) {
            Some(endpoint) => port_here(endpoint),
            None => Some(default),
        });
    }
    ports
}

/// What an exporter sends a signal to.
fn endpoint(node: &Node, signal: Signal) -> Option<(&str, Origin)> {
    let written = |key: &str| node.get(key).and_then(|value| Some((&**value.word()?, value.origin)));
    written(&format!("{signal}_endpoint")).or_else(|| written("endpoint"))
}

/// The port, where the address is one of this machine's own, as far as the text says. An empty host or 0.0.0.0 is this machine too.
pub(super) fn port_here(endpoint: &str) -> Option<u16> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest).trim_start_matches('/');
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = authority.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address = host.parse::<std::net::IpAddr>();
    let here = matches!(host.as_str(), "" | "localhost") || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    port.parse().ok().filter(|_| here)
}
