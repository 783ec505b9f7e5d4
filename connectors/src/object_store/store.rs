//! Opens object stores from a sink's settings, and sorts their errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientOptions, Error as StoreError};

use super::config::OptionValue;
use super::pending::{PendingUploads, S3Uploads};
use super::uploads::Store;
use crate::error::ConnectorError;

/// The region of buckets whose settings name none, as S3's clients have it.
const DEFAULT_REGION: &str = "us-east-1";

/// A store, and what knows its open uploads where something does.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) pending: Option<Arc<dyn PendingUploads>>,
}

/// Opens a bucket. Nothing is sent yet.
///
/// # Errors
/// Where a setting is unknown or does not fit the others.
pub(super) fn open_s3(bucket: &str, options: &BTreeMap<String, OptionValue>) -> Result<Opened, ConnectorError> {
    let unfit = |error: StoreError| ConnectorError::Config(format!("the settings of S3 do not fit: {error}"));
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    let mut client = ClientOptions::new();
    for (name, value) in options {
        let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(|_| {
            ConnectorError::Config(format!(
                "`options.{name}` is not a setting of S3; the usual ones are endpoint, region, access_key_id, \
                 secret_access_key, session_token, allow_http, virtual_hosted_style_request"
            ))
        })?;
        builder = builder.with_config(key, value.to_string());
        if let AmazonS3ConfigKey::Client(key) = key {
            client = client.with_config(key, value.to_string());
        }
    }
    let setting = |key| builder.get_config_value(&key);
    let signed = !setting(AmazonS3ConfigKey::SkipSignature).is_some_and(|skip| skip.eq_ignore_ascii_case("true"));
    let region = setting(AmazonS3ConfigKey::Region).unwrap_or_else(|| DEFAULT_REGION.to_owned());
    let store = Arc::new(builder.build().map_err(unfit)?);
    let pending: Option<Arc<dyn PendingUploads>> = match signed {
        true => Some(Arc::new(S3Uploads::new(store.clone(), &client, region).map_err(unfit)?)),
        false => None,
    };
    Ok(Opened { store, pending })
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
