//! Opens object stores from a sink's settings, and sorts their errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::Error as StoreError;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::config::OptionValue;
use super::uploads::Store;
use crate::error::ConnectorError;

/// Opens a bucket. Nothing is sent yet. A region need not be given where an endpoint is.
///
/// # Errors
/// Where a setting is unknown or does not fit the others.
pub(super) fn open_s3(bucket: &str, options: &BTreeMap<String, OptionValue>) -> Result<Arc<dyn Store>, ConnectorError> {
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for (name, value) in options {
        let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(|_| {
            ConnectorError::Config(format!(
                "`options.{name}` is not a setting of S3; the usual ones are endpoint, region, access_key_id, \
                 secret_access_key, session_token, allow_http, virtual_hosted_style_request"
            ))
        })?;
        builder = builder.with_config(key, value.to_string());
    }
    let store =
        builder.build().map_err(|error| ConnectorError::Config(format!("the settings of S3 do not fit: {error}")))?;
    Ok(Arc::new(store))
}

/// Sorts a store's error: those that the store's client has not retried away are transient unless they say otherwise.
pub(super) fn store_error(context: String, error: StoreError) -> ConnectorError {
    let hint = match &error {
        StoreError::NotFound { .. } => "; does the bucket exist?",
        StoreError::PermissionDenied { .. } => "; the credentials do not allow it",
        StoreError::Unauthenticated { .. } => "; set options.access_key_id and options.secret_access_key",
        StoreError::InvalidPath { .. }
        | StoreError::NotSupported { .. }
        | StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. }
        | StoreError::NotImplemented { .. }
        | StoreError::UnknownConfigurationKey { .. } => "",
        _ => return ConnectorError::Transient { context, source: error.into() },
    };
    ConnectorError::Permanent { context: format!("{context}{hint}"), source: error.into() }
}
