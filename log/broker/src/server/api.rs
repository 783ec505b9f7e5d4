//! The table of APIs: which are served, in which versions, and by whom.

use std::future::Future;
use std::pin::Pin;

use bytes::BytesMut;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, RequestHeader};
use kafka_protocol::protocol::{Decodable, StrBytes};

use crate::server::context::RequestContext;
use crate::server::reply::{Reply, Unencodable};
use crate::server::{fetch, metadata, produce};

/// The APIs that are served. Their versions are those of Kafka 4.1, the release whose messages we are built with.
const SERVED: &[ApiKey] = &[ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata, ApiKey::ApiVersions];

/// A request that took effect.
pub(super) enum Begun {
    /// The reply is ready.
    Done(Reply),
    /// The reply has to wait; the next request need not.
    Later(Pin<Box<dyn Future<Output = Result<Reply, Unencodable>> + Send>>),
    /// The client wants no reply (`acks=0`).
    Unanswered,
}

/// Why a request cannot be answered at all: its connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("request of unknown kind {0}")]
    UnknownApi(i16),
    #[error("{api:?} version {version} is not served")]
    UnsupportedVersion { api: ApiKey, version: i16 },
    #[error("malformed request: {0}")]
    Malformed(String),
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
}

fn malformed(error: impl std::fmt::Display) -> Refused {
    Refused::Malformed(error.to_string())
}

/// A request's header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    pub(super) client_id: Option<StrBytes>,
}

impl Header {
    /// The version of the response's header. That of ApiVersions is 0 for ever: it is sent before versions are agreed.
    pub(super) fn response_header_version(&self) -> i16 {
        self.api.response_header_version(self.version)
    }
}

/// Reads the header off a frame, which is the body from then on.
pub(super) fn header(frame: &mut BytesMut) -> Result<Header, Refused> {
    let field = |at: usize| Some(i16::from_be_bytes(frame.get(at..)?.first_chunk().copied()?));
    let (Some(key), Some(version)) = (field(0), field(2)) else { return Err(malformed("it ends within its header")) };
    let api = ApiKey::try_from(key).map_err(|()| Refused::UnknownApi(key))?;
    if !SERVED.contains(&api) {
        return Err(Refused::UnsupportedVersion { api, version });
    }
    let is_served = (api.valid_versions().min..=api.valid_versions().max).contains(&version);
    if !is_served && api != ApiKey::ApiVersions {
        return Err(Refused::UnsupportedVersion { api, version });
    }
    // Before versions are agreed a client may send any version of ApiVersions, in a header of the newest kind.
    let header_version = if is_served { api.request_header_version(version) } else { 1 };
    let header = RequestHeader::decode(frame, header_version).map_err(malformed)?;
    // Copied, so that it does not keep the frame in memory.
    let client_id = header.client_id.map(|id| StrBytes::from_string(id.to_string()));
    Ok(Header { api, version, correlation_id: header.correlation_id, client_id })
}

/// Lets a request take effect.
pub(super) async fn begin(context: &RequestContext, header: &Header, body: BytesMut) -> Result<Begun, Refused> {
    let version = header.version;
    /// Decodes the request, has it handled, and encodes the response.
    macro_rules! answer {
        ($request:ty, $handle:path) => {{
            let request = decode::<$request>(body, version)?;
            Begun::Done(Reply::encode(header.api, version, &$handle(context, version, request).await)?)
        }};
    }
    Ok(match header.api {
        ApiKey::Produce => produce::begin(context, version, body).await?,
        ApiKey::Fetch => Begun::Done(fetch::fetch(context, version, body).await?),
        ApiKey::Metadata => answer!(MetadataRequest, metadata::metadata),
        ApiKey::ApiVersions => Begun::Done(api_versions(version, body)?),
        api => return Err(Refused::UnsupportedVersion { api, version }),
    })
}

/// Decodes a request's body.
pub(super) fn decode<R: Decodable>(body: BytesMut, version: i16) -> Result<R, Refused> {
    R::decode(&mut body.freeze(), version).map_err(malformed)
}

/// Answers in version 0 if the version is unknown, as Kafka does, so that the client can try again with a lower one.
fn api_versions(version: i16, body: BytesMut) -> Result<Reply, Refused> {
    let versions = ApiKey::ApiVersions.valid_versions();
    let keys = SERVED.iter().map(|api| {
        let served = api.valid_versions();
        // Old versions of librdkafka drop compression where Produce is not advertised from 0.
        let min = if *api == ApiKey::Produce { 0 } else { served.min };
        ApiVersion::default().with_api_key(*api as i16).with_min_version(min).with_max_version(served.max)
    });
    let response = ApiVersionsResponse::default().with_api_keys(keys.collect());
    if !(versions.min..=versions.max).contains(&version) {
        let response = response.with_error_code(ResponseError::UnsupportedVersion.code());
        return Ok(Reply::encode(ApiKey::ApiVersions, 0, &response)?);
    }
    decode::<ApiVersionsRequest>(body, version)?;
    Ok(Reply::encode(ApiKey::ApiVersions, version, &response)?)
}
