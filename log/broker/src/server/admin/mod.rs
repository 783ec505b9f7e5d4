//! Administration: making, changing, describing and deleting topics, and describing the node.

pub(in crate::server) mod operations;
