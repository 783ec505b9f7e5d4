//! Lists multipart uploads of a bucket that were neither completed nor aborted.
//!
//! A run that is killed between the creation of an upload and the writing of its journal object leaves an upload that
//! only the store knows of. The object store's client can't list those, so the request is made here, with its signer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, Error as StoreError};
use serde::Deserialize;
use url::Url;

use super::store::store_error;
use crate::error::{BoxError, ConnectorError};

/// Pages read at most; a bucket with more than a thousand times that many open uploads has other worries.
const MAX_PAGES: usize = 100;

/// An upload that is neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PendingUpload {
    /// Where it goes, from the bucket.
    #[serde(rename = "Key")]
    pub(super) to: String,
    /// Its id.
    #[serde(rename = "UploadId")]
    pub(super) upload: String,
}

/// Knows the uploads that are open.
#[async_trait]
pub(super) trait PendingUploads: Send + Sync {
    /// Those below a prefix; `None` where the store doesn't tell.
    async fn list(&self, prefix: &str) -> Result<Option<Vec<PendingUpload>>, ConnectorError>;
}

/// The open uploads of an S3 bucket.
pub(super) struct S3Uploads {
    store: Arc<AmazonS3>,
    client: HttpClient,
    region: String,
}

/// A page of the answer to ListMultipartUploads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Page {
    #[serde(rename = "Upload")]
    uploads: Vec<PendingUpload>,
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
}

impl S3Uploads {
    /// Asks the bucket of `store`, in `region`.
    pub(super) fn new(store: Arc<AmazonS3>, options: &ClientOptions, region: String) -> Result<Self, StoreError> {
        Ok(Self { store, client: ReqwestConnector::default().connect(options)?, region })
    }

    async fn page(&self, prefix: &str, after: &(String, String)) -> Result<Option<Page>, BoxError> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        // The signed URL is that of the bucket's root however the store addresses buckets; its query isn't wanted.
        let url = self.store.signed_url(request.method().clone(), &Path::default(), Duration::from_secs(60)).await?;
        let url = page_url(url, prefix, after);
        *request.uri_mut() = url.parse()?;
        let credential = self.store.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let response = self.client.execute(request).await?;
        let status = response.status();
        let body = response.into_body().bytes().await?;
        if status.is_server_error() {
            return Err(format!("the store answered {status}").into());
        }
        if !status.is_success() {
            tracing::debug!(%status, "the store does not tell which uploads are open");
            return Ok(None);
        }
        Ok(Some(quick_xml::de::from_reader(body.as_ref())?))
    }
}

/// The query, sorted by name as a signature wants it.
fn page_url(mut bucket: Url, prefix: &str, after: &(String, String)) -> String {
    bucket.set_query(None);
    let mut query = bucket.query_pairs_mut();
    if !after.0.is_empty() {
        query.append_pair("key-marker", &after.0);
    }
    query.append_pair("prefix", prefix);
    if !after.1.is_empty() {
        query.append_pair("upload-id-marker", &after.1);
    }
    query.append_pair("uploads", "");
    drop(query);
    // Blanks are `%20` where a signature is computed; form encoding would have them as `+`.
    bucket.as_str().replace('+', "%20")
}

#[async_trait]
impl PendingUploads for S3Uploads {
    async fn list(&self, prefix: &str) -> Result<Option<Vec<PendingUpload>>, ConnectorError> {
        let mut uploads = Vec::new();
        let mut after = (String::new(), String::new());
        for _ in 0..MAX_PAGES {
            let page = self.page(prefix, &after).await.map_err(|error| {
                let error = StoreError::Generic { store: "S3", source: error };
                store_error(format!("cannot list the open uploads below `{prefix}`"), error)
            })?;
            let Some(page) = page else { return Ok(None) };
            uploads.extend(page.uploads);
            if !page.is_truncated {
                break;
            }
            after = (page.next_key_marker.unwrap_or_default(), page.next_upload_id_marker.unwrap_or_default());
        }
        Ok(Some(uploads))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_answer_of_s3_is_read() {
        let answer = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Bucket>lake</Bucket><KeyMarker></KeyMarker><UploadIdMarker></UploadIdMarker>
              <NextKeyMarker>b</NextKeyMarker><NextUploadIdMarker>2</NextUploadIdMarker>
              <MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>
              <Upload><Key>a &amp; b</Key><UploadId>1</UploadId><Initiator><ID>x</ID></Initiator></Upload>
              <Upload><Key>b</Key><UploadId>2</UploadId><StorageClass>STANDARD</StorageClass></Upload>
            </ListMultipartUploadsResult>"#;
        let page: Page = quick_xml::de::from_reader(answer.as_bytes()).unwrap();
        let upload = |to: &str, upload: &str| PendingUpload { to: to.into(), upload: upload.into() };
        assert_eq!(page.uploads, [upload("a & b", "1"), upload("b", "2")]);
        assert!(page.is_truncated);
        assert_eq!((page.next_key_marker.as_deref(), page.next_upload_id_marker.as_deref()), (Some("b"), Some("2")));
        let empty: Page = quick_xml::de::from_reader("<ListMultipartUploadsResult/>".as_bytes()).unwrap();
        assert!(empty.uploads.is_empty() && !empty.is_truncated);
    }
}
