//! AlterConfigs, which replaces all configs of a topic, and IncrementalAlterConfigs (KIP-339), which changes some.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    alter_configs_response, incremental_alter_configs_request, incremental_alter_configs_response,
};

use super::{Refusal, check_node, configs, counts, unsupported_resource};
use crate::error::BrokerError;
use crate::names::{check_not_of_engine, check_topic_name};
use crate::server::context::RequestContext;
use crate::topic_config::nearest;
use crate::topics::Alteration;
use crate::types::ConfigChange;

/// What is to be changed of one resource.
struct Wanted<'a> {
    resource_type: i8,
    resource_name: &'a str,
    /// The names of the configs, as they were sent.
    names: Vec<&'a str>,
    alteration: Result<Alteration, Refusal>,
}

/// Answers an AlterConfigs request.
pub(in crate::server) async fn alter_configs(
    context: &RequestContext,
    _version: i16,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let wanted = request.resources.iter().map(|resource| {
        let set = resource.configs.iter().map(|config| match &config.value {
            Some(value) => Ok((config.name.to_string(), value.to_string())),
            None => Err(no_value(&config.name)),
        });
        Wanted {
            resource_type: resource.resource_type,
            resource_name: &resource.resource_name,
            names: resource.configs.iter().map(|config| config.name.as_str()).collect(),
            alteration: set.collect::<Result<_, _>>().map(Alteration::Replace),
        }
    });
    let done = alter_all(context, wanted.collect(), request.validate_only).await;
    let responses = request.resources.iter().zip(done).map(|(resource, done)| {
        let response = alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match done {
            Ok(()) => response.with_error_message(None),
            Err(refusal) => response.with_error_code(refusal.code).with_error_message(refusal.text()),
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

/// Answers an IncrementalAlterConfigs request.
pub(in crate::server) async fn incremental_alter_configs(
    context: &RequestContext,
    _version: i16,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let wanted = request.resources.iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        resource_name: &resource.resource_name,
        names: resource.configs.iter().map(|config| config.name.as_str()).collect(),
        alteration: resource.configs.iter().map(change).collect::<Result<_, _>>().map(Alteration::Change),
    });
    let done = alter_all(context, wanted.collect(), request.validate_only).await;
    let responses = request.resources.iter().zip(done).map(|(resource, done)| {
        let response = incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match done {
            Ok(()) => response.with_error_message(None),
            Err(refusal) => response.with_error_code(refusal.code).with_error_message(refusal.text()),
        }
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn change(config: &incremental_alter_configs_request::AlterableConfig) -> Result<ConfigChange, Refusal> {
    let name = config.name.to_string();
    let value = || config.value.as_ref().map(ToString::to_string).ok_or_else(|| no_value(&config.name));
    Ok(match config.config_operation {
        0 => ConfigChange::Set(name, value()?),
        1 => ConfigChange::Reset(name),
        2 => ConfigChange::Append(name, value()?),
        3 => ConfigChange::Subtract(name, value()?),
        other => {
            let message = format!("config `{name}`: there is no operation {other}");
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
    })
}

fn no_value(name: &str) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, format!("config `{name}` has no value"))
}

/// Sees to each resource by itself, in the order of the request.
async fn alter_all(context: &RequestContext, wanted: Vec<Wanted<'_>>, validate_only: bool) -> Vec<Result<(), Refusal>> {
    let counts = counts(wanted.iter().map(|wanted| (wanted.resource_type, wanted.resource_name)));
    let mut done = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let is_repeated = counts.get(&(wanted.resource_type, wanted.resource_name)).is_some_and(|count| *count > 1);
        done.push(match is_repeated {
            true => {
                let message = "the request names the resource more than once";
                Err(Refusal::new(ResponseError::InvalidRequest, message))
            }
            false => alter(context, wanted, validate_only).await,
        });
    }
    done
}

async fn alter(context: &RequestContext, wanted: Wanted<'_>, validate_only: bool) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    if let Some(twice) = wanted.names.iter().find(|name| !seen.insert(**name)) {
        return Err(Refusal::new(ResponseError::InvalidRequest, format!("config `{twice}` is named more than once")));
    }
    match wanted.resource_type {
        configs::TOPIC => alter_topic(context, wanted.resource_name, wanted.alteration?, validate_only).await,
        configs::NODE => {
            if !wanted.resource_name.is_empty() {
                check_node(context, wanted.resource_name)?;
            }
            refuse_node(&wanted.names)
        }
        other => Err(unsupported_resource(other)),
    }
}

async fn alter_topic(
    context: &RequestContext,
    name: &str,
    alteration: Alteration,
    validate_only: bool,
) -> Result<(), Refusal> {
    check_topic_name(name).map_err(|error| Refusal::new(ResponseError::InvalidTopicException, error.to_string()))?;
    let open = context.broker().open_topic(name)?;
    if open.internal {
        let message = format!("topic `{name}` is the broker's own, its configs cannot be changed");
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    check_not_of_engine(name)?;
    let altered = context.broker().alter_topic(name, alteration, validate_only).await;
    altered.map_err(|error| match error {
        BrokerError::Invalid(message) => Refusal::new(ResponseError::InvalidConfig, message),
        other => other.into(),
    })
}

/// None of the node's configs changes while it runs.
fn refuse_node(names: &[&str]) -> Result<(), Refusal> {
    let Some(name) = names.first() else { return Ok(()) };
    let is_known = configs::node_names().any(|known| known == *name);
    let message = match is_known {
        true => format!("config `{name}` cannot be changed while the node runs: set it in its config and restart it"),
        false => match nearest(name, configs::node_names()) {
            Some(known) => format!("there is no config `{name}` of a node, did you mean `{known}`?"),
            None => format!("there is no config `{name}` of a node"),
        },
    };
    Err(Refusal::new(ResponseError::InvalidConfig, message))
}
