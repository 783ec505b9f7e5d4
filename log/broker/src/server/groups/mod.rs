//! The APIs of groups: finding the coordinator, membership, offsets, and looking after groups.
//!
//! Handlers translate; what a request means is decided in [`crate::groups`].

mod admin;
mod coordinator;
mod membership;
mod offsets;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

pub(super) use admin::{delete_groups, describe_groups, list_groups};
pub(super) use coordinator::find_coordinator;
pub(super) use membership::{heartbeat, join_group, leave_group, sync_group};
pub(super) use offsets::{offset_commit, offset_delete, offset_fetch};

use crate::error::BrokerError;
use crate::groups::GroupError;
use crate::server::errors;

/// The code for a failure of the coordinator's. Clients look for the coordinator again, and try again.
fn code(error: &BrokerError) -> i16 {
    match error {
        BrokerError::Closed | BrokerError::DiskFull(_) | BrokerError::Storage { .. } | BrokerError::Offline(_) => {
            ResponseError::CoordinatorNotAvailable.code()
        }
        other => errors::code(other),
    }
}

/// The code for what became of a part of a request; 0 if it was done.
fn result_code(result: &Result<(), GroupError>) -> i16 {
    result.as_ref().err().map_or(0, GroupError::code)
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(|text| text.as_str().to_owned())
}
