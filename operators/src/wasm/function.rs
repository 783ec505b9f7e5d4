//! Scalar functions of guests, for SQL: vectorised, a call for up to 64k rows.
//!
//! The instances of a module are pooled: a call takes one out, and puts it back if it is still good. An error becomes an
//! error of the query; where the query runs as an operator, that narrows it to the rows to blame. What becomes of a guest
//! that is late is the pool's business.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use logmill_pipelines::ColumnType;
use logmill_wasm::{FunctionSignature, Guest, GuestLog, Limits, Role};

use super::coerce::{Coercion, coercion, exactly};
use super::columns;
use super::error::PlanError;
use super::ipc;
use super::live::Moments;
use super::plan::{config_text, instantiate, moment};
use super::pool::Pool;

/// A function that a module has.
#[derive(Clone)]
pub struct WasmFunction {
    name: String,
    /// All nullable: a guest is given nulls, and says what comes of them.
    arguments: SchemaRef,
    returns: SchemaRef,
    deterministic: bool,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for WasmFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmFunction").field("name", &self.name).field("digest", &self.digest()).finish_non_exhaustive()
    }
}

/// The functions that a module has with a configuration.
///
/// # Errors
/// The module has no functions, does not start, refuses its configuration, or names types that SQL cannot have.
pub fn functions(
    guest: &Guest,
    config: Option<&serde_json::Value>,
    limits: Limits,
    log: Arc<dyn GuestLog>,
) -> std::result::Result<Vec<WasmFunction>, PlanError> {
    if guest.role() != Role::Function {
        let hint = "name it as a `wasm` operator under `operators:`";
        return Err(PlanError::with_hint("the module has no scalar functions, it is an operator", hint));
    }
    let config = config_text(config);
    let mut instance = instantiate(guest, &limits, &log)?;
    let signatures = instance.functions(moment(), &config).map_err(|error| PlanError::new(error.to_string()))?;
    let mut described: Vec<(String, SchemaRef, SchemaRef, bool)> = Vec::new();
    for signature in &signatures {
        let (arguments, returns) = describe(signature)?;
        if described.iter().any(|(name, ..)| *name == signature.name) {
            return Err(PlanError::new(format!("the module has two functions `{}`", signature.name)));
        }
        described.push((signature.name.clone(), arguments, returns, signature.deterministic));
    }
    if described.is_empty() {
        return Err(PlanError::new("the module has no functions"));
    }
    let pool = Arc::new(Pool::new(guest.clone(), config, limits, log, (instance, signatures)));
    let function = |(name, arguments, returns, deterministic)| WasmFunction {
        name,
        arguments,
        returns,
        deterministic,
        pool: Arc::clone(&pool),
    };
    Ok(described.into_iter().map(function).collect())
}

/// The argument and result columns of a signature.
fn describe(signature: &FunctionSignature) -> std::result::Result<(SchemaRef, SchemaRef), PlanError> {
    let read = |what: &str, stream: &[u8]| {
        let what = format!("the {what} of the function `{}`", signature.name);
        let schema = ipc::decode_schema(stream).map_err(|why| PlanError::new(format!("{what}: {why}")))?;
        for field in schema.fields() {
            columns::check_type(field).map_err(|data_type| {
                PlanError::with_hint(
                    format!("{what} has `{}` of the Arrow type {data_type}, which cannot be used", field.name()),
                    "use a type that a pipeline's `schema:` can name, such as `int64` or `string`",
                )
            })?;
        }
        Ok::<_, PlanError>(schema)
    };
    let arguments = read("arguments", &signature.arguments)?;
    let nullable = arguments.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let arguments = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let returns = read("result", &signature.returns)?;
    match returns.fields().len() {
        1 => Ok((arguments, returns)),
        columns => Err(PlanError::new(format!("the function `{}` has {columns} results, not one", signature.name))),
    }
}

impl WasmFunction {
    /// Its name in the module.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names and types of its arguments.
    #[must_use]
    pub fn arguments(&self) -> &SchemaRef {
        &self.arguments
    }

    /// The column that it gives.
    #[must_use]
    pub fn returns(&self) -> &Field {
        // There is exactly one, as `functions` checked.
        self.returns.field(0)
    }

    /// Whether the result depends on the arguments alone.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        self.deterministic
    }

    /// The SHA-256 of its module, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.pool.guest.digest()
    }

    /// A stable text of what is computed: the module, its configuration, and the function's types.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let arguments = self.arguments.fields().iter().map(|field| field.data_type().to_string());
        let arguments = arguments.collect::<Vec<_>>().join(", ");
        let config = &self.pool.config;
        format!("wasm {} {}({arguments}) {}\nconfig {config}", self.digest(), self.name, self.returns().data_type())
    }

    /// The function as SQL calls it.
    #[must_use]
    pub fn udf(&self, sql_name: &str) -> ScalarUDF {
        let volatility = if self.deterministic { Volatility::Immutable } else { Volatility::Volatile };
        let signature = Signature::user_defined(volatility);
        ScalarUDF::new_from_impl(GuestFunction { sql_name: sql_name.to_owned(), signature, function: self.clone() })
    }

    /// From now on calls are made at these moments.
    pub(super) fn set_moments(&self, moments: Moments) {
        self.pool.set_moments(moments);
    }

    /// Computes the function over columns of its argument types.
    pub(super) fn call(&self, arguments: &RecordBatch) -> Result<ArrayRef> {
        match arguments.num_rows() {
            0 => Ok(new_empty_array(self.returns().data_type())),
            _ => self.pool.call(&self.name, &self.returns, arguments),
        }
    }
}

/// A function under the name that SQL calls it by.
#[derive(Clone, Debug)]
struct GuestFunction {
    sql_name: String,
    signature: Signature,
    function: WasmFunction,
}

impl PartialEq for GuestFunction {
    fn eq(&self, other: &Self) -> bool {
        self.sql_name == other.sql_name && self.function.fingerprint() == other.function.fingerprint()
    }
}

impl Eq for GuestFunction {}

impl Hash for GuestFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sql_name.hash(state);
        self.function.fingerprint().hash(state);
    }
}

impl GuestFunction {
    /// What it takes, in the words of a pipeline: `geohash(float64, float64)`.
    fn form(&self) -> String {
        let types = self.function.arguments.fields().iter().map(|field| type_name(field));
        format!("{}({})", self.sql_name, types.collect::<Vec<_>>().join(", "))
    }

    /// What is said of an argument whose values another type may not keep.
    fn cast_it<T>(&self, index: usize, given: &DataType) -> Result<T> {
        let given = type_name(&Field::new("", given.clone(), true));
        plan_err!("argument {} of `{}` is of type {given}; cast it", index + 1, self.form())
    }
}

fn type_name(field: &Field) -> String {
    ColumnType::from_field(field).map_or_else(|_| field.data_type().to_string(), |known| known.to_string())
}

impl ScalarUDFImpl for GuestFunction {
    fn name(&self) -> &str {
        &self.sql_name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.function.returns().data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        // What `coerce_types` left as it is: only literals may be that.
        for (index, (given, wanted)) in args.arg_fields.iter().zip(self.function.arguments.fields()).enumerate() {
            if given.data_type() == wanted.data_type() {
                continue;
            }
            match args.scalar_arguments.get(index).copied().flatten() {
                Some(literal) if exactly(literal, wanted.data_type()).is_ok() => {}
                Some(literal) => {
                    let (form, number, wanted) = (self.form(), index + 1, type_name(wanted));
                    return plan_err!("argument {number} of `{form}` is {literal}, which is no {wanted}; cast it");
                }
                None => return self.cast_it(index, given.data_type()),
            }
        }
        Ok(Arc::new(self.function.returns().clone().with_name(&self.sql_name)))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = self.function.arguments.fields();
        if given.len() != wanted.len() {
            return plan_err!("`{}` takes {} arguments, not {}", self.form(), wanted.len(), given.len());
        }
        let pairs = given.iter().zip(wanted).enumerate();
        let coerced = pairs.map(|(index, (given, wanted))| match coercion(given, wanted.data_type()) {
            Coercion::Any => Ok(wanted.data_type().clone()),
            // Types alone do not tell literals: `return_field_from_args` does.
            Coercion::Literal => Ok(given.clone()),
            Coercion::None => self.cast_it(index, given),
        });
        coerced.collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant =
            self.function.deterministic && args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let wanted = self.function.arguments.fields();
        let column = |(arg, wanted): (ColumnarValue, &FieldRef)| match arg {
            ColumnarValue::Scalar(literal) if literal.data_type() != *wanted.data_type() => {
                exactly(&literal, wanted.data_type())?.to_array_of_size(rows)
            }
            arg => arg.into_array(rows),
        };
        let columns = args.args.into_iter().zip(wanted).map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let arguments = RecordBatch::try_new_with_options(Arc::clone(&self.function.arguments), columns, &options)?;
        let result = self.function.call(&arguments)?;
        if is_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}
