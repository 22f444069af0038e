//! Connectors join two pipelines: both sides must be there, the signals must fit, and nothing may run in a circle.

use super::{PipelineEntry, Reference, sections::Sections};
use crate::{
    component::Tables,
    config::{Diagnostics, collector::Kind, suggest},
    signal::{ComponentId, Signal},
};

pub(super) fn check(sections: &Sections, pipelines: &[PipelineEntry], tables: &Tables, found: &mut Diagnostics) {
    // (from, to, connector) by number of pipeline.
    let mut edges: Vec<(usize, usize, &ComponentId)> = Vec::new();
    for connector in sections.of(Kind::Connector) {
        let id = &connector.id;
        for kind in [Kind::Receiver, Kind::Exporter] {
            if sections.find(kind, id).is_some() {
                let message = format!("`{id}` is the id of a connector and of {}", kind.one());
                found.error(connector.origin, message, Some(format!("give one of them a name: `{}/x`", id.type_name())));
            }
        }
        let pairs = tables.connectors.get(connector.factory).map_or(&[][..], |row| row.pairs);
        let fits = |from: Signal, to: Signal| pairs.contains(&(from, to));
        let takers: Vec<(usize, &PipelineEntry, &Reference)> = named(pipelines, |pipeline| &pipeline.exporters, id);
        let givers: Vec<(usize, &PipelineEntry, &Reference)> = named(pipelines, |pipeline| &pipeline.receivers, id);
        for (from, taker, reference) in &takers {
            let mut led = false;
            for (to, giver, _) in &givers {
                if fits(taker.signal, giver.signal) {
                    edges.push((*from, *to, id));
                    led = true;
                }
            }
            if !led {
                let message = format!("the connector `{id}` ends the pipeline `{}` and starts none that fits", taker.id);
                found.error(reference.origin, message, Some(expected(pairs, Some(taker.signal), None, id)));
            }
        }
        for (_, giver, reference) in &givers {
            if !takers.iter().any(|(_, taker, _)| fits(taker.signal, giver.signal)) {
                let message = format!("the connector `{id}` starts the pipeline `{}` and ends none that fits", giver.id);
                found.error(reference.origin, message, Some(expected(pairs, None, Some(giver.signal), id)));
            }
        }
    }
    cycle(pipelines, &edges, found);
}

fn named<'p>(
    pipelines: &'p [PipelineEntry],
    list: fn(&PipelineEntry) -> &Vec<Reference>,
    id: &ComponentId,
) -> Vec<(usize, &'p PipelineEntry, &'p Reference)> {
    let mut named = Vec::new();
    for (number, pipeline) in pipelines.iter().enumerate() {
        if let Some(reference) = list(pipeline).iter().find(|reference| reference.id == *id) {
            named.push((number, pipeline, reference));
        }
    }
    named
}

/// What would have to be in the file.
fn expected(pairs: &[(Signal, Signal)], from: Option<Signal>, to: Option<Signal>, id: &ComponentId) -> String {
    let fitting: Vec<&(Signal, Signal)> = pairs
        .iter()
        .filter(|(takes, gives)| from.is_none_or(|from| from == *takes) && to.is_none_or(|to| to == *gives))
        .collect();
    match (from, to) {
        (Some(_), None) if !fitting.is_empty() => {
            let signals = suggest::list(fitting.iter().map(|(_, gives)| gives.as_str()));
            format!("add `{id}` to the receivers of a pipeline of {signals}")
        }
        (None, Some(_)) if !fitting.is_empty() => {
            let signals = suggest::list(fitting.iter().map(|(takes, _)| takes.as_str()));
            format!("add `{id}` to the exporters of a pipeline of {signals}")
        }
        _ => {
            let pairs: Vec<String> = pairs.iter().map(|(takes, gives)| format!("{takes} to {gives}")).collect();
            format!("it leads {}", pairs.join(", "))
        }
    }
}

/// Tells of one circle, if there is any: pipelines are taken away that nothing leads to, and what remains goes round.
fn cycle(pipelines: &[PipelineEntry], edges: &[(usize, usize, &ComponentId)], found: &mut Diagnostics) {
    let mut left = edges.to_vec();
    loop {
        let before = left.len();
        let targets: Vec<usize> = left.iter().map(|(_, to, _)| *to).collect();
        left.retain(|(from, _, _)| targets.contains(from));
        if left.len() == before {
            break;
        }
    }
    let Some(&(start, _, _)) = left.first() else { return };
    // From any of the rest one can walk backwards for ever; the first pipeline met twice is on the circle.
    let mut path = vec![start];
    let mut at = start;
    let circle = loop {
        let Some((from, _, _)) = left.iter().find(|(_, to, _)| *to == at) else { return };
        if let Some(met) = path.iter().position(|pipeline| pipeline == from) {
            let mut circle = path.split_off(met);
            circle.reverse();
            break circle;
        }
        path.push(*from);
        at = *from;
    };
    let names: Vec<&str> =
        circle.iter().chain(circle.first()).filter_map(|number| pipelines.get(*number)).map(|p| p.id.as_str()).collect();
    let Some(first) = circle.first().and_then(|number| pipelines.get(*number)) else { return };
    let second = circle.get(1).or(circle.first());
    let via = left.iter().find(|(from, to, _)| Some(from) == circle.first() && Some(to) == second).map(|(_, _, id)| *id);
    let origin =
        first.exporters.iter().find(|reference| Some(&reference.id) == via).map_or(first.origin, |reference| reference.origin);
    found.error(
        origin,
        format!("the pipelines run in a circle: {}", names.join(" → ")),
        Some("data would go round for ever; take one connector out".to_owned()),
    );
}
