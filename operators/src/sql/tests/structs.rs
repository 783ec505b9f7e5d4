//! What lies in the columns of a null struct is not its fields' value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, RecordBatch, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use logmill_pipelines::flow::RowBatch;

use crate::conformance::{Case, Event, play};
use crate::operator::OpenContext;
use crate::sql::{Functions, Relation, RelationKind, plan};

/// A plane in a flight: of the three flights the second is null, and of the third the plane is.
fn rows() -> RecordBatch {
    let tails: ArrayRef = Arc::new(StringArray::from(vec!["N1", "N2", "N3"]));
    let plane_fields = Fields::from(vec![Field::new("tail", DataType::Utf8, true)]);
    let planes = StructArray::new(plane_fields, vec![tails], Some(NullBuffer::from(vec![true, true, false])));
    let flight_fields = Fields::from(vec![Field::new("plane", planes.data_type().clone(), true)]);
    let flights = vec![Arc::new(planes) as ArrayRef];
    let flights: ArrayRef =
        Arc::new(StructArray::new(flight_fields, flights, Some(NullBuffer::from(vec![true, false, true]))));
    let id: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    RecordBatch::try_from_iter_with_nullable([("id", id, false), ("flight", flights, true)]).unwrap()
}

#[test]
fn fields_of_a_null_struct_are_null() {
    let check = |sql: &str, expected: [&str; 3]| {
        let rows = rows();
        let relation =
            Relation { name: "t".into(), schema: rows.schema(), kind: RelationKind::Stream, has_meta: false };
        let plan = plan("op", sql, &[relation], &Functions::default()).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let make = || plan.operator();
        let events = vec![Event::Batch(0, RowBatch::inserts(rows))];
        let said = play(&Case { make: &make, open: OpenContext::default(), events, ordered: true }).unwrap();
        assert_eq!(said.rows[0], expected, "{sql}");
    };
    let tails = ["1|N1", "2|null", "3|null"];
    check("SELECT id, flight['plane']['tail'] AS tail FROM t", tails);
    check("SELECT id, t.flight.plane.tail AS tail FROM t", tails);
    check("SELECT id, plane['tail'] AS tail FROM (SELECT id, flight['plane'] AS plane FROM t)", tails);
    check("SELECT id, unnest(plane) FROM (SELECT id, flight['plane'] AS plane FROM t)", tails);
    check("SELECT id, coalesce(flight['plane']['tail'], 'none') AS tail FROM t", ["1|N1", "2|none", "3|none"]);
}
