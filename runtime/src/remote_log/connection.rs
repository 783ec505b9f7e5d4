//! One connection to a broker: frames out, frames in, one request at a time.
//!
//! A call that is dropped half-way leaves an answer behind that nobody reads: the caller drops the connection with it.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes, VersionRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::error::CallError;

/// How long a broker may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a broker may take to answer, beyond what the request itself asks it to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// The largest answer that is read.
const MAX_FRAME_BYTES: usize = 512 << 20;
/// Versions of this client above these are not used: from there on topics go by ids, or answers are of another shape.
const MAX_VERSIONS: [(ApiKey, i16); 8] = [
    (ApiKey::Produce, 12),
    (ApiKey::Fetch, 12),
    (ApiKey::Metadata, 12),
    (ApiKey::DeleteTopics, 5),
    (ApiKey::OffsetFetch, 7),
    (ApiKey::OffsetCommit, 8),
    (ApiKey::FindCoordinator, 3),
    (ApiKey::ListOffsets, 7),
];

/// A connection on which versions are agreed.
pub(super) struct Connection {
    stream: TcpStream,
    last_id: i32,
    served: HashMap<i16, VersionRange>,
    /// When the last answer came.
    pub(super) used: Instant,
}

impl Connection {
    /// Connects, and asks which versions the broker serves.
    pub(super) async fn open(address: &str) -> Result<Self, CallError> {
        let failed = |source| CallError::Io { address: address.to_owned(), source };
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let stream = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Self { stream, last_id: 0, served: HashMap::new(), used: Instant::now() };
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("logmill"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let wait = Duration::ZERO;
        let mut answer = connection.exchange(address, &request, 3, wait).await?;
        if answer.error_code != 0 {
            answer = connection.exchange(address, &ApiVersionsRequest::default(), 0, wait).await?;
        }
        let served = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, VersionRange { min: api.min_version, max: api.max_version }));
        connection.served = served.collect();
        Ok(connection)
    }

    /// Sends a request in the newest version that both know, and waits for its answer: `wait` is how long the request
    /// allows the broker to take.
    pub(super) async fn call<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        wait: Duration,
    ) -> Result<R::Response, CallError> {
        let version = self.version::<R>().ok_or_else(|| CallError::NotServed {
            address: address.to_owned(),
            api: ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), |api| format!("{api:?}")),
        })?;
        self.exchange(address, request, version, wait).await
    }

    fn version<R: Request>(&self) -> Option<i16> {
        let cap = MAX_VERSIONS.iter().find(|(api, _)| *api as i16 == R::KEY).map_or(i16::MAX, |(_, cap)| *cap);
        let served = self.served.get(&R::KEY)?;
        let max = served.max.min(R::VERSIONS.max).min(cap);
        (max >= served.min.max(R::VERSIONS.min)).then_some(max)
    }

    async fn exchange<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        version: i16,
        wait: Duration,
    ) -> Result<R::Response, CallError> {
        let failed = |source| CallError::Io { address: address.to_owned(), source };
        self.last_id = self.last_id.wrapping_add(1);
        let id = self.last_id;
        let frame = encode(request, version, id).map_err(failed)?;
        let exchanged = tokio::time::timeout(ANSWER_TIMEOUT + wait, async {
            self.stream.write_all(&frame).await?;
            read_frame(&mut self.stream).await
        });
        let mut frame = exchanged.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        self.used = Instant::now();
        let is_versions = R::KEY == ApiKey::ApiVersions as i16;
        // A broker that does not know this version of ApiVersions answers in version 0.
        let version = if is_versions && frame.get(4..6) == Some(&[0, 35]) { 0 } else { version };
        decode::<R>(&mut frame, version, id).map_err(failed)
    }
}

fn encode<R: Request>(request: &R, version: i16, id: i32) -> io::Result<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(StrBytes::from_static_str("logmill")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version)).map_err(io::Error::other)?;
    request.encode(&mut frame, version).map_err(io::Error::other)?;
    let length = i32::try_from(frame.len().saturating_sub(4)).map_err(io::Error::other)?;
    if let Some(place) = frame.first_chunk_mut::<4>() {
        *place = length.to_be_bytes();
    }
    Ok(frame)
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not Kafka's, or too large"));
    }
    let mut frame = BytesMut::with_capacity(length.min(1 << 20));
    let mut rest = stream.take(length as u64);
    while frame.len() < length {
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(frame.freeze())
}

fn decode<R: Request>(frame: &mut Bytes, version: i16, id: i32) -> io::Result<R::Response> {
    let bad = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(frame, header_version).map_err(|error| bad(error.to_string()))?;
    if header.correlation_id != id {
        return Err(bad("the answer belongs to another request".to_owned()));
    }
    R::Response::decode(frame, version).map_err(|error| bad(format!("the answer cannot be read: {error}")))
}
