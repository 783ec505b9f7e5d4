//! DescribeConfigs: the values in force, where they come from, and what they mean.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::configs::{self, Described};
use super::{Refusal, text};
use crate::names::check_topic_name;
use crate::server::context::RequestContext;

/// The version from which on types and documentation are told.
const DOC_VERSION: i16 = 3;

/// Answers a DescribeConfigs request.
pub(in crate::server) async fn describe_configs(
    context: &RequestContext,
    version: i16,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(None);
        let described = match find(context, resource) {
            Ok(described) => described,
            Err(refusal) => return result.with_error_code(refusal.code).with_error_message(refusal.text()),
        };
        let is_wanted = |config: &Described| match &resource.configuration_keys {
            None => true,
            Some(keys) => keys.iter().any(|key| key.as_str() == config.name),
        };
        let configs = described.into_iter().filter(is_wanted);
        let configs = configs.map(|config| {
            let documented = version >= DOC_VERSION && request.include_documentation;
            let mut config = describe(config, request.include_synonyms, documented);
            if version < DOC_VERSION {
                config.config_type = 0;
            }
            config
        });
        result.with_configs(configs.collect())
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn find(context: &RequestContext, resource: &DescribeConfigsResource) -> Result<Vec<Described>, Refusal> {
    let name = &resource.resource_name;
    match resource.resource_type {
        configs::TOPIC => {
            check_topic_name(name)
                .map_err(|error| Refusal::new(ResponseError::InvalidTopicException, error.to_string()))?;
            Ok(configs::of_topic(&context.broker().topic_configs(name)?))
        }
        // Without a name: what all nodes share that was set at run time, which nothing can be.
        configs::NODE if name.is_empty() => Ok(Vec::new()),
        configs::NODE => {
            super::check_node(context, name)?;
            Ok(configs::of_node(&context.node))
        }
        other => Err(super::unsupported_resource(other)),
    }
}

fn describe(config: Described, synonyms: bool, documented: bool) -> DescribeConfigsResourceResult {
    let value = |value: Option<String>| value.as_deref().map(text);
    let synonym = |(name, given, source): (&str, _, configs::Source)| {
        DescribeConfigsSynonym::default().with_name(text(name)).with_value(value(given)).with_source(source as i8)
    };
    let synonyms = match synonyms {
        true => config.synonyms.into_iter().map(synonym).collect(),
        false => Vec::new(),
    };
    DescribeConfigsResourceResult::default()
        .with_name(text(config.name))
        .with_value(value(config.value))
        .with_read_only(config.read_only)
        .with_config_source(config.source as i8)
        .with_synonyms(synonyms)
        .with_config_type(config.kind as i8)
        .with_documentation(documented.then(|| text(config.doc)))
}
