//! A file's pipelines → topics, consumers and the components between them.

pub mod file;
