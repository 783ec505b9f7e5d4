//! Clients under load, with a record of what they did and saw for the checker.

pub mod batch;
pub mod member;
pub mod producer;
pub mod raw;
pub mod reader;
pub mod recorder;
pub mod run;
pub mod value;
