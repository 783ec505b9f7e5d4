//! A client that sends raw requests to a server in this process, in any version.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use logmill_broker::Broker;
use logmill_broker::server::{Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server on a port of its own.
pub async fn serve(broker: &Broker, config: ServerConfig) -> Server {
    Server::start(broker.clone(), ServerConfig { listen: vec!["127.0.0.1:0".to_owned()], ..config }).await.unwrap()
}

/// How long to wait for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
pub struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub async fn connect(server: &Server) -> Self {
        Self { stream: TcpStream::connect(server.local_addrs()[0]).await.unwrap(), correlation_id: 0 }
    }

    /// Sends a request and waits for its response, all of whose bytes must be understood.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request).await;
        let (found, response) = self.receive::<R>(version).await;
        assert_eq!(found, id);
        response
    }

    /// Sends a request; returns its correlation id.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let frame = self.frame(version, request);
        self.stream.write_all(&frame).await.unwrap();
        self.correlation_id
    }

    /// The frame of a request, its size included.
    pub fn frame<R: Request>(&mut self, version: i16, request: &R) -> BytesMut {
        self.correlation_id += 1;
        let api = ApiKey::try_from(R::KEY).unwrap();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, api.request_header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        let len = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        frame
    }

    /// The next response, whose request was of this kind, and its correlation id.
    pub async fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let api = ApiKey::try_from(R::KEY).unwrap();
        let len = self.stream.read_u32().await.unwrap_or_else(|e| panic!("{api:?} {version} is not answered: {e}"));
        let mut response = vec![0; len as usize];
        self.stream.read_exact(&mut response).await.unwrap();
        let mut response = Bytes::from(response);
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut response, header_version).unwrap();
        let decoded = R::Response::decode(&mut response, version).unwrap();
        assert!(response.is_empty(), "{api:?} {version}: {} bytes are left", response.len());
        (header.correlation_id, decoded)
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the server closes the connection; returns what it sent before. Waits for it.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        drop(read.expect("the server keeps the connection open"));
        rest
    }
}
