//! `proto/` against the specification's own descriptors, and our tables against `proto/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use prost::Message as _;
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label as ProtoLabel, Type},
};

use super::{Kind, Label, Message, request};
use crate::signal::Signal;

/// What is written in `proto/`, compiled.
fn ours() -> FileDescriptorSet {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = [
        "opentelemetry/proto/collector/trace/v1/trace_service.proto",
        "opentelemetry/proto/collector/metrics/v1/metrics_service.proto",
        "opentelemetry/proto/collector/logs/v1/logs_service.proto",
        "google/rpc/status.proto",
        "google/rpc/error_details.proto",
    ];
    protox::compile(files, [proto]).unwrap()
}

/// The descriptors that come with `opentelemetry-proto`, made by protoc from the specification's files.
fn theirs() -> FileDescriptorSet {
    FileDescriptorSet::decode(opentelemetry_proto::DESCRIPTORS).unwrap()
}

/// All fields, enumerators and methods as lines of text, of the files whose package is of ours.
fn lines(set: &FileDescriptorSet, packages: &BTreeSet<String>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| packages.contains(file.package())) {
        let package = format!(".{}", file.package());
        file.message_type.iter().for_each(|message| message_lines(&package, message, &mut lines));
        file.enum_type.iter().for_each(|one| enum_lines(&package, one, &mut lines));
        for service in &file.service {
            for method in &service.method {
                let name = format!("{package}.{}/{}", service.name(), method.name());
                lines.insert(format!("rpc {name}({}) {}", method.input_type(), method.output_type()));
            }
        }
    }
    lines
}

fn message_lines(package: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{package}.{}", message.name());
    for field in &message.field {
        let oneof = field.oneof_index.and_then(|index| message.oneof_decl.get(index as usize)).map_or("", |oneof| oneof.name());
        lines.insert(format!(
            "{name}.{} = {}: {:?} {:?} {} oneof {oneof}",
            field.name(),
            field.number(),
            field.label(),
            field.r#type(),
            field.type_name(),
        ));
    }
    message.nested_type.iter().for_each(|nested| message_lines(&name, nested, lines));
    message.enum_type.iter().for_each(|nested| enum_lines(&name, nested, lines));
}

fn enum_lines(package: &str, one: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &one.value {
        lines.insert(format!("{package}.{}.{} = {}", one.name(), value.name(), value.number()));
    }
}

#[test]
fn the_proto_files_say_what_the_specification_says() {
    let ours = ours();
    let packages: BTreeSet<_> =
        ours.file.iter().map(|file| file.package().to_owned()).filter(|package| package.starts_with("opentelemetry.")).collect();
    assert_eq!(packages.len(), 8);
    let (ours, theirs) = (lines(&ours, &packages), lines(&theirs(), &packages));
    assert!(ours.len() > 200);
    assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), Vec::<&String>::new(), "only in proto/");
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new(), "missing in proto/");
}

#[test]
fn the_tables_know_every_field() {
    let set = ours();
    let mut messages = BTreeMap::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("opentelemetry.")) {
        for message in &file.message_type {
            messages.insert(message.name().to_owned(), message);
            for nested in &message.nested_type {
                messages.insert(nested.name().to_owned(), nested);
            }
        }
    }
    let mut seen = BTreeSet::new();
    for signal in Signal::ALL {
        compare(request(signal), &messages, &mut seen);
    }
    assert_eq!(seen.len(), 34, "{seen:?}");
}

fn compare(table: &'static Message, messages: &BTreeMap<String, &DescriptorProto>, seen: &mut BTreeSet<&'static str>) {
    if !seen.insert(table.name) {
        return;
    }
    let message = messages[table.name];
    let known = (0..64).filter(|number| !matches!(table.field(*number).kind, Kind::Unknown)).count();
    assert_eq!(known, message.field.len(), "{}", table.name);
    for proto in &message.field {
        let field = table.field(proto.number() as u32);
        assert_eq!(field.name, proto.name(), "{}", table.name);
        let label = match (proto.label(), proto.oneof_index) {
            (ProtoLabel::Repeated, _) => Label::Repeated,
            // `optional` is a oneof of one member, which protobuf treats as any singular field.
            (_, Some(_)) if !proto.proto3_optional() => Label::Oneof,
            _ => Label::Singular,
        };
        assert_eq!(field.label, label, "{}.{}", table.name, field.name);
        let right = match (field.kind, proto.r#type()) {
            (Kind::Message(inner), Type::Message) => {
                compare(inner, messages, seen);
                proto.type_name().ends_with(&format!(".{}", inner.name))
            }
            (Kind::Varint, Type::Bool | Type::Enum | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Sint32)
            | (Kind::Fixed64, Type::Fixed64 | Type::Sfixed64 | Type::Double)
            | (Kind::Fixed64s, Type::Fixed64 | Type::Double)
            | (Kind::Varints, Type::Uint64)
            | (Kind::Fixed32, Type::Fixed32)
            | (Kind::String, Type::String) => true,
            (Kind::TraceId, Type::Bytes) => field.name == "trace_id",
            (Kind::SpanId, Type::Bytes) => field.name.ends_with("span_id"),
            (Kind::Bytes, Type::Bytes) => field.name == "bytes_value",
            _ => false,
        };
        assert!(right, "{}.{} is {:?} and {:?}", table.name, field.name, field.kind, proto.r#type());
    }
}
