//! The table of APIs for readers, made from what is served.

use std::fmt::Write;

use kafka_protocol::messages::ApiKey;

use crate::server::api;

/// The APIs that are served, as a Markdown table: name, versions, and what is not as in Kafka.
#[must_use]
pub fn api_table() -> String {
    let mut apis = api::SERVED.to_vec();
    apis.sort_unstable_by_key(|api| *api as i16);
    let mut table = "| API | versions | |\n|---|---|---|\n".to_owned();
    for api in apis {
        let Some(versions) = api::versions(api) else { continue };
        let versions = match versions.into_inner() {
            (min, max) if min == max => min.to_string(),
            (min, max) => format!("{min} to {max}"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(table, "| {api:?} | {versions} |{} |", note(api));
    }
    table
}

/// What a reader would not expect, after a space.
fn note(api: ApiKey) -> &'static str {
    match api {
        ApiKey::Produce => " advertised from 0, since old librdkafka asks for it",
        ApiKey::InitProducerId => " idempotent producers; transactional ids are refused",
        _ => "",
    }
}
