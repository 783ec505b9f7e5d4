//! Functions that a pipeline brings along: called, typed, refused and told apart.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::fixtures::{events, open_context, relations};
use crate::conformance::{Case, play};
use crate::sql::{FunctionNameError, Functions, SqlPlan, plan, register_functions};

/// Doubles a number.
fn twice(name: &str, volatility: Volatility) -> ScalarUDF {
    let compute = |arguments: &[ColumnarValue]| {
        let numbers = ColumnarValue::values_to_arrays(arguments)?;
        let doubled: Int64Array = numbers[0].as_primitive::<Int64Type>().unary(|n| n * 2);
        Ok(ColumnarValue::Array(Arc::new(doubled) as ArrayRef))
    };
    create_udf(name, vec![DataType::Int64], DataType::Int64, volatility, Arc::new(compute))
}

fn functions(identity: &str) -> Functions {
    let mut functions = Functions::default();
    functions.insert(twice("twice", Volatility::Immutable), identity).unwrap();
    functions.insert(twice("dice", Volatility::Volatile), identity).unwrap();
    functions
}

fn planned(sql: &str) -> SqlPlan {
    plan("op", sql, &relations(), &functions("v1")).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"))
}

#[test]
fn a_function_is_called_with_its_arguments_cast() {
    let check = |sql: &str, expected: &[&str]| {
        let plan = planned(sql);
        let make = || plan.operator();
        let case = Case { make: &make, open: open_context(&plan), events: events(&plan), ordered: true };
        assert_eq!(play(&case).unwrap().rows[0], expected, "{sql}");
    };
    check("SELECT twice(flight) AS n FROM flights WHERE flight < 4", &["2", "4", "6"]);
    check("SELECT TWICE(twice(flight)) AS n FROM flights WHERE twice(flight) = 4", &["8"]);
    check("SELECT twice(4) + flight AS n FROM flights WHERE flight = 1", &["9"]);
}

#[test]
fn mistakes_about_functions_have_places_and_hints() {
    let check = |sql: &str, place: (u32, u32), message: &str, hint: Option<&str>| {
        let errors = plan("op", sql, &relations(), &functions("v1")).unwrap_err();
        let error = &errors[0];
        assert_eq!((error.line, error.column, error.message.as_str()), (place.0, place.1, message), "{sql}");
        if hint.is_some() {
            assert_eq!(error.hint.as_deref(), hint, "{sql}");
        }
    };
    check("SELECT twise(flight) AS n FROM flights", (1, 8), "unknown function `twise`", Some("did you mean `twice`?"));
    check(
        "SELECT flight,\n  dice(flight) AS n FROM flights",
        (2, 3),
        "`dice` may give another value when rows are processed again after a restart",
        None,
    );
    for (sql, column) in
        [("SELECT twice(flight, 1) AS n FROM flights", 8), ("SELECT 1 + twice(tags) AS n FROM flights", 18)]
    {
        let errors = plan("op", sql, &relations(), &functions("v1")).unwrap_err();
        assert_eq!((errors.len(), errors[0].column), (1, column), "{sql}: {errors:?}");
        assert!(errors[0].message.contains("twice"), "{sql}: {errors:?}");
    }
}

#[test]
fn the_fingerprint_tells_what_the_functions_called_are() {
    let fingerprint =
        |sql: &str, identity: &str| plan("op", sql, &relations(), &functions(identity)).unwrap().fingerprint();
    let calls = "SELECT twice(flight) AS n FROM flights";
    assert_eq!(fingerprint(calls, "v1"), fingerprint(calls, "v1"));
    assert_ne!(fingerprint(calls, "v1"), fingerprint(calls, "v2"));
    let calls_none = "SELECT flight FROM flights";
    assert_eq!(fingerprint(calls_none, "v1"), fingerprint(calls_none, "v2"));
}

#[test]
fn names_that_are_taken_or_cannot_be_called_are_refused() {
    let check = |name: &str, expected: FunctionNameError| {
        let mut functions = functions("v1");
        assert_eq!(functions.insert(twice(name, Volatility::Immutable), "v1"), Err(expected), "{name}");
    };
    for name in ["upper", "sum", "row_number", "json_get", "unnest", "array_transform", "now"] {
        check(name, FunctionNameError::BuiltIn(name.to_owned()));
    }
    check("twice", FunctionNameError::Twice("twice".to_owned()));
    for name in ["", "Geo", "geo.hash", "1st", "geo hash", "a(b)--"] {
        check(name, FunctionNameError::Unfit(name.to_owned()));
    }
}

#[tokio::test]
async fn batch_queries_call_the_same_functions_and_volatile_ones_too() {
    let context = datafusion::prelude::SessionContext::new();
    register_functions(&context, &functions("v1"));
    let rows = context.sql("SELECT twice(x) AS n, dice(x) AS m FROM (VALUES (1), (2)) t(x)").await.unwrap();
    let rows = rows.collect().await.unwrap();
    let sum: i64 = rows
        .iter()
        .flat_map(|rows| rows.columns().to_vec())
        .map(|column| column.as_primitive::<Int64Type>().values().iter().sum::<i64>())
        .sum();
    assert_eq!(sum, 12);
}
