//! Write WebAssembly operators, transforms and functions for Logmill in Rust.
