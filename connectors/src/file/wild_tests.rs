//! Files whose bytes may be anything: what cannot be read is an error, or a row that is rejected, and never more than that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Date64Array, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    Time32SecondArray, TimestampMicrosecondArray, TimestampSecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use logmill_pipelines::{ColumnType, UnknownFields};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use proptest::prelude::*;
use tempfile::TempDir;

use super::parquet::rows_after;
use super::{Config, FileSource, Files};
use crate::conformance::decoder::records;
use crate::error::ConnectorError;
use crate::format::Format;
use crate::source::{ChunkData, RejectedRow, Source};

fn write_parquet(path: &Path, rows: &RecordBatch, properties: WriterProperties) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// The rows of a Parquet file and those that are rejected, or why it cannot be read.
async fn read(folder: &Path, schema: Option<Arc<Schema>>) -> Result<(usize, Vec<RejectedRow>), ConnectorError> {
    let config: Config = serde_yaml::from_str("{path: a.parquet}").unwrap();
    let files = Files::new(config, Format::Parquet, folder);
    let schema = match schema {
        Some(schema) => schema,
        None => files.sample(None).await?,
    };
    let source = FileSource::new(files, schema, None)?;
    let (mut rows, mut rejected) = (0, Vec::new());
    for split in source.discover(&BTreeSet::new()).await?.new {
        let mut reader = source.open(&split, None).await?;
        while let Some(chunk) = reader.next().await? {
            let ChunkData::Rows(batch, unfit) = chunk.data else { panic!("Parquet has rows") };
            rows += batch.rows.num_rows();
            rejected.extend(unfit);
        }
    }
    Ok((rows, rejected))
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

#[tokio::test]
async fn numbers_of_parquet_whose_digits_a_declared_type_would_cut_are_rejected() {
    let folder = TempDir::new().unwrap();
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(3.7), None, Some(-0.0)]));
    let decimals = Decimal128Array::from(vec![100, 370, 0, 125]).with_precision_and_scale(9, 2).unwrap();
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([
        Some(vec![Some(1.0)]),
        Some(vec![Some(2.0), None, Some(2.5)]),
        None,
        Some(vec![Some(-0.0)]),
    ]));
    let integers = ColumnType::Int64;
    // A float rounds to the nearest decimal: its scaled value need not come back as the same float.
    let rounded: ArrayRef = Arc::new(Float64Array::from(vec![846_363_768.98, 0.1, 3.7, -0.0]));
    let cases: [(ArrayRef, DataType, &[i64]); 4] = [
        (floats, integers.to_field("x").data_type().clone(), &[1]),
        (rounded, DataType::Decimal128(38, 12), &[]),
        (Arc::new(decimals), DataType::Decimal128(9, 1), &[3]),
        (lists, DataType::new_list(DataType::Int64, true), &[1]),
    ];
    for (column, wanted, expected) in cases {
        let batch = rows(vec![("x", column)]);
        write_parquet(&folder.path().join("a.parquet"), &batch, WriterProperties::default());
        let schema = Schema::new(vec![Field::new("x", wanted.clone(), true)]);
        let (taken, rejected) = read(folder.path(), Some(Arc::new(schema))).await.unwrap();
        let offsets: Vec<i64> = rejected.iter().map(|row| row.offset).collect();
        assert_eq!(offsets, expected, "{wanted}");
        assert_eq!(taken, 4 - expected.len(), "{wanted}");
        for row in rejected {
            assert!(row.message.starts_with("column `x`: ") && row.message.contains(" has digits that "), "{row:?}");
        }
    }
}

#[tokio::test]
async fn values_of_parquet_that_cannot_be_shown_are_rejected_with_their_rows() {
    let folder = TempDir::new().unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, i64::MAX, 1]).with_timezone("UTC"));
    let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, i64::MAX, 1]));
    let days: ArrayRef = Arc::new(Date64Array::from(vec![0, i64::MAX, 86_400_000]));
    let times: ArrayRef = Arc::new(Time32SecondArray::from(vec![0, -1, 86_399]));
    for (name, column, reason) in [
        ("at", micros, "the timestamp 9223372036854775807 µs from 1970 is outside the years -262142 to 262141"),
        ("at", seconds, "the timestamp 9223372036854775807"),
        ("at", days, "the date 9223372036854775807 ms from 1970 is outside"),
        ("at", times, "the time -1 s after midnight is outside a day"),
    ] {
        let kind = column.data_type().clone();
        let batch = rows(vec![("id", ids.clone()), (name, column)]);
        write_parquet(&folder.path().join("a.parquet"), &batch, WriterProperties::default());
        let (good, rejected) = read(folder.path(), None).await.unwrap();
        assert_eq!((good, rejected.len()), (2, 1), "{kind}");
        let RejectedRow { place, offset, message, value } = &rejected[0];
        assert!(place.ends_with("a.parquet, row 2") && *offset == 1, "{place}");
        assert!(message.starts_with(&format!("column `at`: {reason}")), "{message}");
        let value: serde_json::Value = serde_json::from_slice(value).unwrap();
        assert!(value["id"] == 2 && value["at"].is_number(), "{value}");
    }
    // A value that does not fit a declared type is one row's matter, too, and so is text that is no JSON.
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["{}", "7", "\"x\nERROR\""]));
    let batch = rows(vec![("id", ids), ("c", texts)]);
    write_parquet(&folder.path().join("a.parquet"), &batch, WriterProperties::default());
    for (kind, good) in [("int32", 1), ("json", 2), ("string", 3)] {
        let schema = Arc::new(Schema::new(vec![kind.parse::<ColumnType>().unwrap().to_field("c")]));
        let (rows, rejected) = read(folder.path(), Some(schema)).await.unwrap();
        assert_eq!((rows, rejected.len()), (good, 3 - good), "{kind}: {rejected:?}");
        assert!(rejected.iter().all(|row| row.message.starts_with("column `c`: ")), "{rejected:?}");
    }
}

#[tokio::test]
async fn what_a_footer_claims_is_not_allocated() {
    let folder = TempDir::new().unwrap();
    // A schema of one column of no type, no rows, and 2^31 - 1 row groups; or as many columns.
    let schema = [0x15, 2, 0x19, 0x1c, 0x48, 1, b's', 0x15, 0, 0];
    let groups = [0x16, 0, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 7, 0];
    let elements = [0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 7, 0];
    for footer in [[schema, groups].concat(), elements.to_vec()] {
        let length = (footer.len() as u32).to_le_bytes();
        fs::write(folder.path().join("a.parquet"), [b"PAR1", &footer[..], &length, b"PAR1"].concat()).unwrap();
        let error = read(folder.path(), None).await.unwrap_err().to_string();
        assert!(error.ends_with("the Parquet file is damaged: its footer claims more than it holds"), "{error}");
    }
}

/// The ways to write texts and numbers: with dictionaries, or in the delta encodings.
const ENCODINGS: [Option<(Encoding, Encoding)>; 3] = [
    None,
    Some((Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_LENGTH_BYTE_ARRAY)),
    Some((Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_BYTE_ARRAY)),
];

fn sound_rows() -> RecordBatch {
    let numbers = Int64Array::from_iter((0..2000).map(|n| (n % 7 > 0).then_some(n * n)));
    let texts = StringArray::from_iter_values((0..2000).map(|n| format!("text {}", n % 50)));
    let lists = (0..2000).map(|n| (n % 5 > 0).then(|| (0..n % 4).map(|i| (i > 0).then_some(i)).collect::<Vec<_>>()));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    rows(vec![("n", Arc::new(numbers)), ("s", Arc::new(texts)), ("l", Arc::new(lists))])
}

fn sound_file(folder: &Path, encodings: Option<(Encoding, Encoding)>, version: WriterVersion) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(700))
        .set_data_page_row_count_limit(100)
        .set_write_batch_size(50)
        .set_statistics_enabled(EnabledStatistics::Page);
    let properties = match encodings {
        None => properties,
        Some((numbers, texts)) => properties
            .set_dictionary_enabled(false)
            .set_column_encoding("n".into(), numbers)
            .set_column_encoding("l.list.item".into(), numbers)
            .set_column_encoding("s".into(), texts),
    };
    write_parquet(&folder.join("a.parquet"), &sound_rows(), properties.build());
    fs::read(folder.join("a.parquet")).unwrap()
}

#[tokio::test]
async fn sound_files_of_all_encodings_are_read_from_any_row() {
    for (encodings, version) in
        ENCODINGS.into_iter().flat_map(|e| [(e, WriterVersion::PARQUET_1_0), (e, WriterVersion::PARQUET_2_0)])
    {
        let folder = TempDir::new().unwrap();
        sound_file(folder.path(), encodings, version);
        assert_eq!(read(folder.path(), None).await.unwrap(), (2000, Vec::new()), "{encodings:?}");
        let path = folder.path().join("a.parquet");
        for start in [0, 1, 699, 700, 1333, 1999, 2000] {
            let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
            let batches = rows_after(&path, builder, start as u64, &sound_rows().schema()).unwrap();
            let batches: Vec<RecordBatch> = batches.map(Result::unwrap).collect();
            let rows = concat_batches(&sound_rows().schema(), &batches).unwrap();
            assert_eq!(rows, sound_rows().slice(start, 2000 - start), "{encodings:?} from row {start}");
        }
    }
}

/// Claims 2^48 values in a page: nothing catches an allocation that fails.
#[tokio::test]
async fn a_page_that_claims_more_values_than_its_header_is_an_error() {
    let folder = TempDir::new().unwrap();
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..2000).map(|n| format!("text {n}"))));
    let batch = RecordBatch::try_from_iter([("s", texts)]).unwrap();
    for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
        let properties = WriterProperties::builder().set_dictionary_enabled(false).set_encoding(encoding);
        let path = folder.path().join("a.parquet");
        write_parquet(&path, &batch, properties.build());
        let mut bytes = fs::read(&path).unwrap();
        // The block's size, its mini-blocks, and the 2000 values.
        let header = [0x80, 0x01, 0x04, 0xd0, 0x0f];
        let at = bytes.windows(5).position(|window| window == header).unwrap();
        bytes[at + 3..at + 10].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        fs::write(&path, &bytes).unwrap();
        let error = read(folder.path(), None).await.unwrap_err().to_string();
        assert!(error.contains("a page of 2000 values claims 562949953421311"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_parquet_is_an_error_or_other_rows(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        encodings in prop::sample::select(ENCODINGS.to_vec()),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let folder = TempDir::new().unwrap();
        let mut bytes = sound_file(folder.path(), encodings, WriterVersion::PARQUET_1_0);
        let footer = bytes.len() / 3;
        for (at, byte, is_footer) in changes {
            // Most of what a file claims stands at its end.
            let place = if is_footer { bytes.len() - 1 - at.index(footer) } else { at.index(bytes.len()) };
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(folder.path().join("a.parquet"), &bytes).unwrap();
        // That it comes to an end is what is tested; a panic inside is an error of the file.
        let _ = runtime.block_on(read(folder.path(), None));
    }

    #[test]
    fn wild_text_is_rows_or_errors(
        parts in prop::collection::vec(prop_oneof![
            Just("[".repeat(100_000)), Just("{\"a\":".repeat(50_000)), Just("9".repeat(10_000)), Just("1e999999999".to_owned()),
            Just("-0.000000000000000000000000000000000000000000001e-999999999999".to_owned()), Just("\"".repeat(99_999)),
            Just("\\u".to_owned()), Just("x".repeat(3_000_000)), Just(",".repeat(20_000)), Just("\"a\":".to_owned()),
            Just("{\"a\":".to_owned()), Just("}".to_owned()), Just("null".to_owned()), ".{0,12}",
        ], 0..5),
        kind in prop::sample::select(vec![
            "json", "int64", "float32", "decimal(38,10)", "string", "binary", "timestamp", "list<list<json>>", "struct{a: int8}",
        ]),
    ) {
        let schema = Schema::new(vec![kind.parse::<ColumnType>().unwrap().to_field("a")]);
        let text = parts.concat();
        let whole = format!("{{\"a\":{text}}}");
        for format in [Format::Json, Format::Csv(crate::format::CsvOptions::default())] {
            let values = [Some(text.as_bytes()), Some(whole.as_bytes()), Some(b"".as_slice())];
            let mut decoder = format.decoder(&schema, &["a".to_owned()], UnknownFields::Ignore).unwrap();
            let decoded = decoder.decode(&records(&values)).unwrap();
            prop_assert_eq!(decoded.rows.num_rows() + decoded.errors.len(), values.len());
            // A message shows what is wrong, not all of it.
            prop_assert!(decoded.errors.iter().all(|error| error.message.len() < 1000));
            let _ = format.infer(&records(&values), None);
        }
    }
}
