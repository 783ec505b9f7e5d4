//! A request's header: which API in which version, from whom.

use bytes::{Buf, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;
use logmill_protocol::wire::RequestHead;

use crate::server::api::{self, Refused};

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

    /// Takes the header off a frame, which is the body from then on. `last_client_id` is what the connection's
    /// last request said: clients always say the same, which need not be copied again.
    pub(super) fn take(frame: &mut BytesMut, last_client_id: Option<&StrBytes>) -> Result<Self, Refused> {
        let field = |at: usize| Some(i16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
        let (Some(key), Some(version)) = (field(0), field(2)) else { return Err(api::malformed("it has no header")) };
        let api = ApiKey::try_from(key).map_err(|()| Refused::UnknownApi(key))?;
        let is_served = api::versions(api).is_some_and(|served| served.contains(&version));
        if !is_served && api != ApiKey::ApiVersions {
            return Err(Refused::UnsupportedVersion { api, version });
        }
        // Before versions are agreed a client may send any version of ApiVersions; what follows is not read then.
        let header_version = if is_served { api.request_header_version(version) } else { 1 };
        let head = RequestHead::parse(frame, header_version).map_err(api::malformed)?;
        let client_id = head.client_id.and_then(|place| std::str::from_utf8(frame.get(place)?).ok());
        let client_id = client_id.map(|id| match last_client_id.filter(|last| last.as_str() == id) {
            Some(last) => last.clone(),
            // Copied, so that it does not keep the frame in memory.
            None => StrBytes::from_string(id.to_owned()),
        });
        frame.advance(head.body);
        Ok(Self { api, version, correlation_id: head.correlation_id, client_id })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kafka_protocol::messages::RequestHeader;
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn frame(api: ApiKey, version: i16, client_id: Option<&'static str>) -> BytesMut {
        let mut header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(client_id.map(StrBytes::from_static_str));
        header.unknown_tagged_fields.insert(3, bytes::Bytes::from_static(b"abc"));
        let mut out = BytesMut::new();
        header.encode(&mut out, api.request_header_version(version)).unwrap();
        out.extend_from_slice(b"body");
        out
    }

    #[test]
    fn headers_of_every_kind_are_read() {
        for (api, version) in
            [(ApiKey::Produce, 3), (ApiKey::Produce, 9), (ApiKey::ApiVersions, 0), (ApiKey::ApiVersions, 3)]
        {
            for client_id in [None, Some("me"), Some("")] {
                let mut frame = frame(api, version, client_id);
                let header = Header::take(&mut frame, Some(&StrBytes::from_static_str("me"))).unwrap();
                assert_eq!((header.api, header.version, header.correlation_id), (api, version, 7));
                assert_eq!(header.client_id.as_deref(), client_id);
                assert_eq!(&frame[..], b"body");
            }
        }
    }

    #[test]
    fn a_header_that_is_cut_off_or_not_served_is_refused() {
        let whole = frame(ApiKey::Produce, 9, Some("me"));
        for len in 0..whole.len() - 4 {
            assert!(Header::take(&mut BytesMut::from(&whole[..len]), None).is_err(), "{len}");
        }
        for (api, version) in [(ApiKey::Produce, 2_i16), (ApiKey::Produce, 99), (ApiKey::BrokerHeartbeat, 0)] {
            let bytes = [(api as i16).to_be_bytes(), version.to_be_bytes(), [0, 0], [0, 1], [0xff, 0xff]].concat();
            let refused = Header::take(&mut BytesMut::from(&bytes[..]), None);
            assert!(matches!(refused, Err(Refused::UnsupportedVersion { .. })), "{api:?}");
        }
        assert!(matches!(Header::take(&mut BytesMut::from(&[0x70, 0, 0, 0][..]), None), Err(Refused::UnknownApi(_))));
    }
}
