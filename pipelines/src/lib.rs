//! What a pipeline is: its YAML, its diagnostics, its graph, and the vocabulary of what flows through it.

pub mod flow;
