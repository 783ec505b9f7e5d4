//! InitProducerId: an identity for an idempotent producer.
//!
//! Without a transactional id an identity is all there is to it: every call gets a fresh producer id, also from a producer
//! whose epochs have run out. With one it would begin a transactional life, which clients cannot lead yet.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use logmill_protocol::{ProducerEpoch, ProducerId};

use crate::server::context::RequestContext;
use crate::server::errors;

/// Answers an InitProducerId request.
pub(super) async fn init_producer_id(
    context: &RequestContext,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let fail = |code: i16| {
        InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId::NONE.0.into())
            .with_producer_epoch(ProducerEpoch::NONE.0)
    };
    match &request.transactional_id {
        Some(id) if id.is_empty() => return fail(ResponseError::InvalidRequest.code()),
        Some(id) => {
            let id = id.as_str();
            tracing::warn!(id, peer = %context.peer, principal = ?context.principal, "refusing a transactional id: transactions are not supported yet");
            // The one code that Java and librdkafka both take for final, instead of trying again.
            return fail(ResponseError::TransactionalIdAuthorizationFailed.code());
        }
        None => {}
    }
    let has_id = *request.producer_id != ProducerId::NONE.0;
    if version >= 3 && has_id != (request.producer_epoch != ProducerEpoch::NONE.0) {
        return fail(ResponseError::InvalidRequest.code());
    }
    match context.broker().new_producer_id().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(id.0.into()).with_producer_epoch(0),
        Err(error) => fail(errors::code(&error)),
    }
}
