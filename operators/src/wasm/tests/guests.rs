//! Guests that are WebAssembly.
