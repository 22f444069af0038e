//! A plan as text, DOT or Mermaid: topics, who appends to them, who reads them.

use std::fmt::{self, Write as _};

use super::plan::{Plan, PlannedConsumer, PlannedTopic, Role};
use crate::signal::ComponentId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Dot,
    Mermaid,
}

impl Plan {
    pub fn draw(&self, form: Form) -> String {
        let mut out = String::new();
        let written = match form {
            Form::Text => self.text(&mut out),
            Form::Dot => self.dot(&mut out),
            Form::Mermaid => self.mermaid(&mut out),
        };
        written.expect("writing to a string does not fail");
        out
    }

    fn readers(&self, topic: usize) -> impl Iterator<Item = (&PlannedConsumer, &Vec<ComponentId>)> {
        self.consumers.iter().filter_map(move |consumer| {
            consumer.reads.iter().find(|(read, _)| *read == topic).map(|(_, sources)| (consumer, sources))
        })
    }

    fn text(&self, out: &mut String) -> fmt::Result {
        for (number, topic) in self.topics.iter().enumerate() {
            writeln!(out, "topic {}  ({})", topic.name, topic.signal)?;
            writeln!(out, "  from  {}", join(&topic.sources))?;
            for (consumer, sources) in self.readers(number) {
                let kind = if consumer.role == Role::Connector { "connector" } else { "exporter" };
                write!(out, "  to    {kind} {}  [pipeline {}]", consumer.component, consumer.pipeline)?;
                if sources.len() < topic.sources.len() {
                    write!(out, "  only from {}", join(sources))?;
                }
                if !consumer.processors.is_empty() {
                    write!(out, "  through {}", join(&consumer.processors))?;
                }
                writeln!(out)?;
            }
        }
        for consumer in &self.consumers {
            for connector in &consumer.renders {
                writeln!(
                    out,
                    "page  {connector} ⇒ {}  [pipeline {}]  rows rendered at each scrape",
                    consumer.component, consumer.pipeline
                )?;
            }
        }
        Ok(())
    }

    fn dot(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "digraph weir {{\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];")?;
        for (from, to, label) in self.arrows() {
            writeln!(out, "  {} -> {} [label={}];", quote(&from), quote(&to), quote(&label))?;
        }
        for topic in &self.topics {
            writeln!(out, "  {} [shape=cds];", quote(&topic_name(topic)))?;
        }
        writeln!(out, "}}")
    }

    fn mermaid(&self, out: &mut String) -> fmt::Result {
        let mut names: Vec<String> = Vec::new();
        let mut number = |name: &str| {
            names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            })
        };
        let arrows: Vec<_> = self.arrows().into_iter().map(|(from, to, label)| (number(&from), number(&to), label)).collect();
        writeln!(out, "flowchart LR")?;
        for (at, name) in names.iter().enumerate() {
            writeln!(out, "  n{at}[\"{}\"]", name.replace('"', "'"))?;
        }
        for (from, to, label) in arrows {
            if label.is_empty() {
                writeln!(out, "  n{from} --> n{to}")?;
            } else {
                writeln!(out, "  n{from} -->|\"{}\"| n{to}", label.replace('"', "'"))?;
            }
        }
        Ok(())
    }

    /// (from, to, label)
    fn arrows(&self) -> Vec<(String, String, String)> {
        let mut arrows = Vec::new();
        for (number, topic) in self.topics.iter().enumerate() {
            for source in &topic.sources {
                let kind = if self.connectors.iter().any(|connector| connector.id == *source) { "connector" } else { "receiver" };
                arrows.push((format!("{kind} {source}"), topic_name(topic), String::new()));
            }
            for (consumer, _) in self.readers(number) {
                let mut label = consumer.pipeline.clone();
                if !consumer.processors.is_empty() {
                    let through: Vec<_> = consumer.processors.iter().map(ToString::to_string).collect();
                    label = format!("{label}: {}", through.join(", "));
                }
                arrows.push((topic_name(topic), consumer_name(consumer), label));
            }
        }
        for consumer in &self.consumers {
            for connector in &consumer.renders {
                arrows.push((format!("connector {connector}"), consumer_name(consumer), format!("{}: rows", consumer.pipeline)));
            }
        }
        arrows
    }
}

fn topic_name(topic: &PlannedTopic) -> String {
    format!("topic {}", topic.name)
}

fn consumer_name(consumer: &PlannedConsumer) -> String {
    match consumer.role {
        Role::Connector => format!("connector {}", consumer.component),
        Role::Exporter => format!("exporter {}", consumer.component),
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn join(ids: &[ComponentId]) -> String {
    ids.iter().map(ComponentId::as_str).collect::<Vec<_>>().join(", ")
}
