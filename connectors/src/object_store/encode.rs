//! Encodes the rows of one file: Parquet, or lines of text, compressed or not.
//!
//! Bytes leave an encoder as soon as they are final, so that memory holds one row group of Parquet, not a file.

use std::io::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::config::Compression;
use crate::error::{BoxError, ConnectorError};
use crate::lines::{LineEncoder, TextFormat};

/// A row that the format cannot express: its number, and why.
pub(super) type RefusedRow = (usize, String);

/// The most rows of a Parquet row group.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// About how large a Parquet row group becomes, in bytes as encoded.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// A column's dictionary in a row group takes at most about this many bytes. Columns with more values are written
/// plainly: hardly larger, and the dictionaries of many open files stay in the processor's cache.
const DICTIONARY_BYTES: usize = 256 << 10;

/// What files hold.
#[derive(Clone)]
pub enum FileFormat {
    /// Parquet.
    Parquet,
    /// Lines of text.
    Text {
        /// The ending of the files' names, without the dot.
        extension: &'static str,
        /// Makes their lines.
        lines: TextFormat,
    },
}

impl FileFormat {
    /// What the YAML calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Text { extension, .. } => extension,
        }
    }

    /// The ending of the files' names, such as `parquet` or `ndjson.gz`.
    pub(super) fn extension(&self, compression: Option<Compression>) -> String {
        match self {
            Self::Parquet => "parquet".into(),
            Self::Text { extension, .. } => match compression {
                Some(Compression::Gzip) => format!("{extension}.gz"),
                Some(Compression::Zstd) => format!("{extension}.zst"),
                _ => (*extension).to_owned(),
            },
        }
    }

    /// The encoder of a new file.
    pub(crate) fn encoder(
        &self,
        compression: Option<Compression>,
        schema: &SchemaRef,
    ) -> Result<FileEncoder, ConnectorError> {
        match self {
            Self::Parquet => {
                let codec = match compression {
                    None | Some(Compression::Zstd) => Codec::ZSTD(ZstdLevel::default()),
                    Some(Compression::Snappy) => Codec::SNAPPY,
                    Some(Compression::Gzip) => Codec::GZIP(parquet::basic::GzipLevel::default()),
                    Some(Compression::None) => Codec::UNCOMPRESSED,
                };
                let properties = WriterProperties::builder()
                    .set_compression(codec)
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
                    .set_dictionary_page_size_limit(DICTIONARY_BYTES)
                    .build();
                let writer =
                    ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(encode_error)?;
                Ok(FileEncoder::Parquet(Box::new(writer)))
            }
            Self::Text { lines, .. } => {
                let text = TextEncoder {
                    lines: LineEncoder::new(lines(schema)?),
                    output: TextOutput::new(compression)?,
                    buffer: Vec::new(),
                };
                Ok(FileEncoder::Text(Box::new(text)))
            }
        }
    }
}

/// Encodes one file.
pub(crate) enum FileEncoder {
    /// Parquet, into memory that is emptied row group by row group.
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    /// Lines of text.
    Text(Box<TextEncoder>),
}

impl FileEncoder {
    /// Encodes rows, and returns those that the format cannot express. Parquet expresses every row of a schema that it
    /// takes, and that was checked before.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<Vec<RefusedRow>, ConnectorError> {
        match self {
            Self::Parquet(writer) => writer.write(rows).map(|()| Vec::new()).map_err(encode_error),
            Self::Text(text) => text.write(rows),
        }
    }

    /// The memory taken by what is not final yet, in bytes.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Parquet(writer) => writer.memory_size(),
            Self::Text(_) => 0,
        }
    }

    /// About how many bytes what is not final yet will become.
    pub(super) fn unfinished_bytes(&self) -> usize {
        match self {
            Self::Parquet(writer) => writer.in_progress_size(),
            Self::Text(_) => 0,
        }
    }

    /// Makes everything final that can be: ends the Parquet row group.
    pub(super) fn flush(&mut self) -> Result<(), ConnectorError> {
        match self {
            Self::Parquet(writer) => writer.flush().map_err(encode_error),
            Self::Text(_) => Ok(()),
        }
    }

    /// Takes the bytes that are final.
    pub(super) fn take(&mut self) -> Result<Vec<u8>, ConnectorError> {
        match self {
            Self::Parquet(writer) => {
                writer.sync().map_err(encode_error)?;
                Ok(std::mem::take(writer.inner_mut()))
            }
            Self::Text(text) => Ok(text.output.take()),
        }
    }

    /// Ends the file and returns the rest of its bytes. Nothing can be written any more.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>, ConnectorError> {
        match self {
            Self::Parquet(writer) => {
                writer.finish().map_err(encode_error)?;
                self.take()
            }
            Self::Text(text) => {
                text.output.finish()?;
                Ok(text.output.take())
            }
        }
    }
}

/// Encodes lines of text.
pub(crate) struct TextEncoder {
    lines: LineEncoder,
    output: TextOutput,
    buffer: Vec<u8>,
}

impl TextEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<Vec<RefusedRow>, ConnectorError> {
        self.buffer.clear();
        let refused = self.lines.encode_or_refuse(rows, &mut self.buffer)?;
        self.output.write(&self.buffer)?;
        Ok(refused)
    }
}

/// Text, compressed or not, in memory that is emptied as it fills.
enum TextOutput {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl TextOutput {
    fn new(compression: Option<Compression>) -> Result<Self, ConnectorError> {
        Ok(match compression {
            None | Some(Compression::None) => Self::Plain(Vec::new()),
            Some(Compression::Gzip) => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Some(Compression::Zstd) => {
                Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1).map_err(encode_error)?)
            }
            Some(Compression::Snappy) => {
                return Err(ConnectorError::Config("snappy is for parquet; text takes none, gzip or zstd".into()));
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectorError> {
        match self {
            Self::Plain(output) => output.extend_from_slice(bytes),
            Self::Gzip(output) => output.write_all(bytes).map_err(encode_error)?,
            Self::Zstd(output) => output.write_all(bytes).map_err(encode_error)?,
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(output) => std::mem::take(output),
            Self::Gzip(output) => std::mem::take(output.get_mut()),
            Self::Zstd(output) => std::mem::take(output.get_mut()),
        }
    }

    fn finish(&mut self) -> Result<(), ConnectorError> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(output) => output.try_finish().map_err(encode_error),
            Self::Zstd(output) => output.do_finish().map_err(encode_error),
        }
    }
}

fn encode_error(error: impl Into<BoxError>) -> ConnectorError {
    ConnectorError::Permanent { context: "cannot encode rows for a file".into(), source: error.into() }
}
