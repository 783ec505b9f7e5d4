//! Timestamps count microseconds in every query, as they do between operators.
//!
//! DataFusion plans casts, `AT TIME ZONE`, `now()` and more in nanoseconds, which reach from 1677 to 2262 only: rows outside
//! would fail. So what gives nanoseconds is cast to microseconds before types are coerced, and the functions that count in
//! nanoseconds inside are wrapped.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, max, min, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_datafusion_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature,
};

/// The calendar repeats itself after so many microseconds: 400 years, which are whole weeks.
const CYCLE_MICROS: i64 = 146_097 * 86_400_000_000;
/// 1850-01-01: the 400 years from here on lie well inside of what nanoseconds hold.
const CYCLE_START: i64 = -3_786_912_000_000_000;
/// Microseconds that may be counted in nanoseconds, also after they were truncated to a year.
const IN_NANOSECONDS: RangeInclusive<i64> = -9_100_000_000_000_000..=9_200_000_000_000_000;

/// Makes the timestamps of a plan microseconds. Types are resolved, but not coerced yet.
///
/// # Errors
/// An expression cannot be rewritten.
pub fn in_microseconds(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let rewritten = node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr
                .transform_up(|expr| Ok(expr_in_microseconds(expr, &schema)))?
                .update_data(|expr| name.restore(expr)))
        })?;
        if rewritten.transformed { rewritten.map_data(LogicalPlan::recompute_schema) } else { Ok(rewritten) }
    })?;
    Ok(rewritten.data)
}

fn expr_in_microseconds(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let kind = |kind: &DataType| match kind {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        DataType::Time64(TimeUnit::Nanosecond) => Some(DataType::Time64(TimeUnit::Microsecond)),
        _ => None,
    };
    let micros = |field: &FieldRef| Some(Arc::new(field.as_ref().clone().with_data_type(kind(field.data_type())?)));
    match expr {
        Expr::Cast(Cast { expr, field }) => match micros(&field) {
            Some(field) => Transformed::yes(Expr::Cast(Cast::new_from_field(expr, field))),
            None => Transformed::no(Expr::Cast(Cast { expr, field })),
        },
        Expr::TryCast(TryCast { expr, field }) => match micros(&field) {
            Some(field) => Transformed::yes(Expr::TryCast(TryCast::new_from_field(expr, field))),
            None => Transformed::no(Expr::TryCast(TryCast { expr, field })),
        },
        // What does not resolve is told by the analyzer.
        call @ Expr::ScalarFunction(_) => match call.get_type(schema).ok().as_ref().and_then(kind) {
            Some(kind) => Transformed::yes(Expr::Cast(Cast::new(Box::new(call), kind))),
            None => Transformed::no(call),
        },
        other => Transformed::no(other),
    }
}

/// Puts the wrapped functions in place of DataFusion's.
pub(super) fn register(state: &mut SessionState) {
    type Wrap = fn(Arc<ScalarUDF>) -> ScalarUDF;
    let wraps: [(&str, Wrap); 2] = [
        ("date_trunc", |inner| ScalarUDF::from(DateTrunc { inner })),
        ("to_char", |inner| {
            let signature = microseconds_first(inner.signature());
            ScalarUDF::from(ToChar { inner, signature })
        }),
    ];
    for (name, wrap) in wraps {
        if let Some(inner) = state.scalar_functions().get(name).cloned() {
            // Registering in a session that is being made cannot fail.
            let _ = state.register_udf(Arc::new(wrap(inner)));
        }
    }
}

/// The same signature, under which a timestamp of microseconds stays one.
fn microseconds_first(signature: &Signature) -> Signature {
    let mut signature = signature.clone();
    if let TypeSignature::OneOf(choices) = &mut signature.type_signature {
        let is_nanos = |choice: &TypeSignature| {
            matches!(choice, TypeSignature::Exact(types)
                if matches!(types.first(), Some(DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond))))
        };
        choices.sort_by_key(is_nanos);
    }
    signature
}

/// `to_char` that does not turn timestamps into nanoseconds first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}

/// `date_trunc` of timestamps in any year.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(DataType::Timestamp(TimeUnit::Microsecond, zone)) = args.args.get(1).map(ColumnarValue::data_type)
        else {
            return self.inner.invoke_with_args(args);
        };
        let (array, is_scalar) = match args.args.get(1) {
            Some(ColumnarValue::Scalar(value)) => (value.to_array()?, true),
            Some(ColumnarValue::Array(array)) => (Arc::clone(array), false),
            None => return self.inner.invoke_with_args(args),
        };
        let values = array.as_primitive::<TimestampMicrosecondType>();
        let fits = |value: i64| IN_NANOSECONDS.contains(&value);
        if min(values).is_none_or(fits) && max(values).is_none_or(fits) {
            return self.inner.invoke_with_args(args);
        }
        let outside: BooleanArray = values.iter().map(|value| Some(value.is_some_and(|value| !fits(value)))).collect();
        let inside = self.truncate(&args, nullif(&array, &outside)?)?;
        // Outside, the wall clock of the zone is truncated, 400 years at a time away.
        let wall = DataType::Timestamp(TimeUnit::Microsecond, None);
        let (near, cycles) = near(cast(&array, &wall)?.as_primitive());
        let truncated = self.truncate(&args, Arc::new(near))?;
        let truncated = truncated.as_primitive::<TimestampMicrosecondType>();
        let far =
            truncated.iter().zip(cycles).map(|(value, cycles)| value?.checked_add(cycles.checked_mul(CYCLE_MICROS)?));
        let far: ArrayRef = Arc::new(far.collect::<PrimitiveArray<TimestampMicrosecondType>>());
        let result = zip(&outside, &cast(&far, &DataType::Timestamp(TimeUnit::Microsecond, zone))?, &inside)?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

impl DateTrunc {
    /// Calls the inner function with these values.
    fn truncate(&self, args: &ScalarFunctionArgs, values: ArrayRef) -> Result<ArrayRef> {
        let missing = || exec_datafusion_err!("date_trunc takes two arguments");
        let granularity = args.args.first().cloned().ok_or_else(missing)?;
        let granularity_field = args.arg_fields.first().cloned().ok_or_else(missing)?;
        let field = Arc::new(Field::new("value", values.data_type().clone(), true));
        let number_rows = values.len();
        let result = self.inner.invoke_with_args(ScalarFunctionArgs {
            args: vec![granularity, ColumnarValue::Array(values)],
            arg_fields: vec![granularity_field, Arc::clone(&field)],
            number_rows,
            return_field: field,
            config_options: Arc::clone(&args.config_options),
        })?;
        result.into_array(number_rows)
    }
}

/// The same places of the calendar within the 400 years from 1850 on, and how many times 400 years they lie away.
fn near(values: &PrimitiveArray<TimestampMicrosecondType>) -> (PrimitiveArray<TimestampMicrosecondType>, Vec<i64>) {
    let cycles = |value: i64| value.saturating_sub(CYCLE_START).div_euclid(CYCLE_MICROS);
    let away = values.values().iter().map(|value| cycles(*value)).collect();
    (values.unary(|value| value.wrapping_sub(cycles(value).wrapping_mul(CYCLE_MICROS))), away)
}
