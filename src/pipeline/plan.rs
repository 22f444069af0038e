//! A file's pipelines → topics and the consumers that read them. Pure: nothing is built or opened.
//!
//! One ingest topic a signal that some receiver feeds, one derived topic a (connector, signal) that some pipeline takes; one consumer a
//! (pipeline, component at its end). Where a metrics pipeline without processors leads from a connector to a `prometheus` exporter, the
//! exporter renders the connector's rows itself and reads no derived records for them.

use crate::{
    component::Tables,
    delivery::consumer_name,
    signal::{ComponentId, Signal},
};

use super::file::{File, PipelineEntry};

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicKind {
    /// The door appends what receivers take.
    Ingest,
    /// A connector appends what it makes.
    Derived(ComponentId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTopic {
    pub name: String,
    pub signal: Signal,
    pub kind: TopicKind,
    /// The receivers (or the connector) that append to it.
    pub sources: Vec<ComponentId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Exporter,
    Connector,
}

/// One (pipeline, component).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedConsumer {
    /// `traces/x`
    pub pipeline: String,
    pub signal: Signal,
    pub component: ComponentId,
    pub role: Role,
    /// Which topics it reads, and of them which sources.
    pub reads: Vec<(usize, Vec<ComponentId>)>,
    pub processors: Vec<ComponentId>,
    /// Connectors whose rows it renders directly.
    pub renders: Vec<ComponentId>,
}

impl PlannedConsumer {
    /// The name under which its place stands in the journal.
    pub fn subscriber_name(&self) -> String {
        consumer_name(&self.component, &self.pipeline)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedConnector {
    pub id: ComponentId,
    /// How many connectors lie before it, on the longest way.
    pub depth: usize,
    /// Signals that some pipeline takes from it as records.
    pub derives: Vec<Signal>,
    pub renders: bool,
}

/// What a configuration becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub receivers: Vec<ComponentId>,
    pub connectors: Vec<PlannedConnector>,
    pub exporters: Vec<ComponentId>,
    pub topics: Vec<PlannedTopic>,
    pub consumers: Vec<PlannedConsumer>,
}

fn add<T: PartialEq + Clone>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}

impl Plan {
    /// `file` has passed its checks against `tables`.
    pub fn of(file: &File, tables: &Tables) -> Self {
        let is_connector = |id: &ComponentId| file.connectors.iter().any(|declared| declared.id == *id);
        let mut plan = Self::default();
        for pipeline in &file.pipelines {
            for reference in &pipeline.receivers {
                if !is_connector(&reference.id) {
                    add(&mut plan.receivers, &reference.id);
                }
            }
            for reference in &pipeline.exporters {
                if !is_connector(&reference.id) {
                    add(&mut plan.exporters, &reference.id);
                }
            }
        }
        for connector in &file.connectors {
            if file.pipelines.iter().any(|pipeline| pipeline.exporters.iter().any(|reference| reference.id == connector.id)) {
                plan.connectors.push(PlannedConnector {
                    id: connector.id.clone(),
                    depth: 0,
                    derives: Vec::new(),
                    renders: false,
                });
            }
        }
        for pipeline in &file.pipelines {
            for exporter in &pipeline.exporters {
                let role = if is_connector(&exporter.id) { Role::Connector } else { Role::Exporter };
                let renders = if role == Role::Exporter { rendered(file, tables, pipeline, &exporter.id) } else { Vec::new() };
                let mut consumer = PlannedConsumer {
                    pipeline: pipeline.id.clone(),
                    signal: pipeline.signal,
                    component: exporter.id.clone(),
                    role,
                    reads: Vec::new(),
                    processors: pipeline.processors.iter().map(|reference| reference.id.clone()).collect(),
                    renders,
                };
                for receiver in &pipeline.receivers {
                    let derived = is_connector(&receiver.id);
                    if let Some(planned) = plan.connectors.iter_mut().find(|planned| planned.id == receiver.id) {
                        if consumer.renders.contains(&receiver.id) {
                            planned.renders = true;
                            continue;
                        }
                        add(&mut planned.derives, &pipeline.signal);
                    }
                    let kind = if derived { TopicKind::Derived(receiver.id.clone()) } else { TopicKind::Ingest };
                    let topic = plan.topic(pipeline.signal, kind, &receiver.id);
                    match consumer.reads.iter_mut().find(|(known, _)| *known == topic) {
                        Some((_, sources)) => sources.push(receiver.id.clone()),
                        None => consumer.reads.push((topic, vec![receiver.id.clone()])),
                    }
                }
                plan.consumers.push(consumer);
            }
        }
        plan.set_depths();
        plan
    }

    /// The checks have refused cycles; the bound on rounds keeps a bug from becoming a hang.
    fn set_depths(&mut self) {
        for _ in 0..self.connectors.len() {
            let deeper: Vec<(ComponentId, usize)> = self
                .consumers
                .iter()
                .filter(|consumer| consumer.role == Role::Connector)
                .map(|consumer| (consumer.component.clone(), self.depth(consumer)))
                .collect();
            for (id, depth) in deeper {
                if let Some(connector) = self.connectors.iter_mut().find(|connector| connector.id == id) {
                    connector.depth = connector.depth.max(depth);
                }
            }
        }
    }

    /// How many connectors lie before a consumer.
    pub fn depth(&self, consumer: &PlannedConsumer) -> usize {
        let before = consumer.reads.iter().flat_map(|(_, sources)| sources);
        before
            .filter_map(|source| self.connectors.iter().find(|connector| connector.id == *source))
            .map(|connector| connector.depth + 1)
            .max()
            .unwrap_or(0)
    }

    fn topic(&mut self, signal: Signal, kind: TopicKind, source: &ComponentId) -> usize {
        let at = self.topics.iter().position(|topic| topic.signal == signal && topic.kind == kind).unwrap_or_else(|| {
            let name = match &kind {
                TopicKind::Ingest => signal.to_string(),
                TopicKind::Derived(id) => format!("{signal}/{id}"),
            };
            self.topics.push(PlannedTopic { name, signal, kind, sources: Vec::new() });
            self.topics.len() - 1
        });
        if let Some(topic) = self.topics.get_mut(at) {
            add(&mut topic.sources, source);
        }
        at
    }
}

/// The connectors of a pipeline whose rows this exporter renders directly.
fn rendered(file: &File, tables: &Tables, pipeline: &PipelineEntry, exporter: &ComponentId) -> Vec<ComponentId> {
    let settings = file.exporters.iter().find(|declared| declared.id == *exporter);
    let Some((factory, node)) = settings.and_then(|declared| Some((tables.exporters.get(declared.factory)?, &declared.node)))
    else {
        return Vec::new();
    };
    if pipeline.signal != Signal::Metrics || !pipeline.processors.is_empty() {
        return Vec::new();
    }
    pipeline
        .receivers
        .iter()
        .filter(|reference| {
            let declared = file.connectors.iter().find(|declared| declared.id == reference.id);
            let connector = declared.and_then(|declared| Some((tables.connectors.get(declared.factory)?, &declared.node)));
            connector.is_some_and(|(connector, settings)| {
                (connector.has_page)(settings) && (factory.renders_pages)(node, (connector.rows_are_of_services)(settings))
            })
        })
        .map(|reference| reference.id.clone())
        .collect()
}
