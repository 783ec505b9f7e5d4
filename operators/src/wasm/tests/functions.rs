//! Functions of a module, called by SQL.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::prelude::{SessionConfig, SessionContext};
use logmill_wasm::Limits;

use super::guests::{Silent, module};
use crate::conformance::as_text;
use crate::wasm::{WasmFunction, functions};

const LIMITS: Limits = Limits { memory_bytes: 64 * 1024 * 1024, deadline: Duration::from_secs(60) };

static FUNCTIONS: LazyLock<Vec<WasmFunction>> =
    LazyLock::new(|| functions(&module("functions"), None, LIMITS, Arc::new(Silent)).unwrap());

fn function(name: &str) -> &'static WasmFunction {
    FUNCTIONS.iter().find(|function| function.name() == name).unwrap()
}

/// The rows of a query over three numbers, or its error.
fn query(sql: &str) -> Result<Vec<String>, String> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let context = SessionContext::new_with_config(config);
    for function in FUNCTIONS.iter() {
        context.register_udf(function.udf(function.name()));
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![Some(1), Some(-2), None]))),
        ("small", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        ("text", Arc::new(StringArray::from(vec![Some("a b c"), None, Some("")]))),
        ("x", Arc::new(Float64Array::from(vec![1.5, 2.5, -1.0]))),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    context.register_batch("rows", rows).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = runtime.block_on(async { context.sql(sql).await?.collect().await });
    let batches = found.map_err(|error: DataFusionError| error.to_string())?;
    Ok(batches.iter().flat_map(|rows| as_text(rows, None)).collect())
}

#[test]
fn functions_are_typed_by_their_module() {
    let geohash = function("geohash");
    let types: Vec<&DataType> = geohash.arguments().fields().iter().map(|field| field.data_type()).collect();
    assert_eq!(types, [&DataType::Float64, &DataType::Float64, &DataType::Int64]);
    assert_eq!(geohash.returns().data_type(), &DataType::Utf8);
    assert!(geohash.is_deterministic());
    assert_eq!(geohash.udf("hash").signature().volatility, Volatility::Immutable);
    assert!(geohash.fingerprint().contains(geohash.digest()));
}

#[test]
fn queries_call_them_on_columns_and_constants() {
    for (sql, expected) in [
        ("SELECT multiply_add(x, 2, small) FROM rows", vec!["4.0", "7.0", "1.0"]),
        ("SELECT multiply_add(CAST(n AS DOUBLE), -1, NULL) FROM rows WHERE n > 0", vec!["null"]),
        ("SELECT multiply_add(small, 2, 0.5) FROM rows", vec!["2.5", "4.5", "6.5"]),
        ("SELECT reverse_words(text) FROM rows", vec!["c b a", "null", "null"]),
        ("SELECT geohash(57.64911, 10.40744, 11)", vec!["u4pruydqqvj"]),
        ("SELECT small FROM rows WHERE multiply_add(x, 1, 0) > 1 ORDER BY small", vec!["1", "2"]),
        ("SELECT not_negative(small) FROM rows WHERE small > 7", vec![]),
        ("SELECT not_negative(n) FROM rows WHERE n > 0", vec!["1"]),
        ("SELECT reverse_words('x ' || text) FROM rows", vec!["c b a x", "null", "x"]),
    ] {
        assert_eq!(query(sql).unwrap(), expected, "{sql}");
    }
}

#[test]
fn what_does_not_fit_is_told() {
    for (sql, expected) in [
        ("SELECT not_negative(n) FROM rows", "-2 is negative"),
        ("SELECT multiply_add(x, 1) FROM rows", "`multiply_add(float64, float64, float64)` takes 3 arguments, not 2"),
        ("SELECT not_negative(text) FROM rows", "argument 1 of `not_negative(int64)` is of type string; cast it"),
        ("SELECT not_negative(x) FROM rows", "argument 1 of `not_negative(int64)` is of type float64; cast it"),
        ("SELECT multiply_add(n, 1, 2) FROM rows", "(float64, float64, float64)` is of type int64; cast it"),
        (
            "SELECT multiply_add(x, 1, 9007199254740993) FROM rows",
            "argument 3 of `multiply_add(float64, float64, float64)`",
        ),
    ] {
        let error = query(sql).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

fn invoke(udf: &ScalarUDF, args: Vec<ColumnarValue>, number_rows: usize) -> ColumnarValue {
    let fields = args.iter().map(|arg| Arc::new(Field::new("a", arg.data_type(), true))).collect();
    let return_field = Arc::new(Field::new("r", DataType::Int64, true));
    let config_options = Arc::new(ConfigOptions::new());
    udf.invoke_with_args(ScalarFunctionArgs { args, arg_fields: fields, number_rows, return_field, config_options })
        .unwrap()
}

#[test]
fn as_many_values_come_back_as_rows_went_in() {
    let udf = function("not_negative").udf("f");
    for rows in [0, 1, 70_000] {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let rows = usize::try_from(rows).unwrap();
        let ColumnarValue::Array(result) = invoke(&udf, vec![ColumnarValue::Array(Arc::clone(&column))], rows) else {
            panic!("a column gives a column")
        };
        assert_eq!(result.as_primitive::<Int64Type>(), column.as_primitive::<Int64Type>());
    }
    let constant = ColumnarValue::Scalar(ScalarValue::Int64(Some(5)));
    let result = invoke(&udf, vec![constant], 1000);
    assert!(matches!(result, ColumnarValue::Scalar(ScalarValue::Int64(Some(5)))), "it is called once");
}

#[test]
fn many_threads_call_at_once() {
    let udf = function("not_negative").udf("f");
    std::thread::scope(|scope| {
        for thread in 0..4i64 {
            let udf = &udf;
            scope.spawn(move || {
                for n in 0..20 {
                    let column: ArrayRef = Arc::new(Int64Array::from(vec![thread * 100 + n; 3]));
                    let ColumnarValue::Array(result) = invoke(udf, vec![ColumnarValue::Array(column.clone())], 3)
                    else {
                        panic!("a column gives a column")
                    };
                    assert_eq!(result.to_data(), column.to_data());
                }
            });
        }
    });
}
