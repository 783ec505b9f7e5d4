//! Bytes over a socket: requests no client library would send, and answers as they come.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer that takes longer is taken for none.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub struct Raw {
    pub stream: TcpStream,
}

/// A request as it goes over the wire: size, header of version 1, body.
pub fn frame(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    request.extend(string("raw"));
    request.extend(body);
    sized(&request)
}

/// The same with the header of version 2, which flexible versions have: tagged fields follow, of which there are none.
pub fn flexible_frame(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    frame(api, version, &[&[0], body].concat())
}

/// Bytes as a frame.
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut frame = i32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(bytes);
    frame
}

/// A string of the protocol, not of its compact kind.
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = i16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl Raw {
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self { stream })
    }

    /// Sends a request and waits for its answer: what follows the correlation id, or nothing if the other end closes.
    pub fn ask(&mut self, api: i16, version: i16, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.send(&frame(api, version, body))?;
        self.answer()
    }

    /// Sends bytes. That the other end has closed is not an error: that is found by whoever asks for the answer.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream.write_all(bytes) {
            Err(error) if closed(&error) => Ok(()),
            result => result,
        }
    }

    /// The next answer: what follows the correlation id, or nothing if the other end closes first.
    pub fn answer(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut size = [0; 4];
        match self.stream.read_exact(&mut size) {
            Err(error) if closed(&error) => return Ok(None),
            result => result?,
        }
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
        match self.stream.read_exact(&mut answer) {
            Err(error) if closed(&error) => return Ok(None),
            result => result?,
        }
        Ok(Some(answer.split_off(4)))
    }
}

fn closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}
