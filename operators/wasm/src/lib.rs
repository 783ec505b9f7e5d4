//! Runs WebAssembly guests: compiles them, keeps them in their bounds, and calls them.
