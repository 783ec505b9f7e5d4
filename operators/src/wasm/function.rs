//! Scalar functions of guests, for SQL: vectorised, a call for up to 64k rows.
//!
//! The instances of a module are pooled: a call takes one out, and puts it back if it is still good. An error becomes an
//! error of the query; where the query runs as an operator, that narrows it to the rows to blame.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use logmill_pipelines::ColumnType;
use logmill_wasm::{CallError, FunctionSignature, Guest, GuestLog, Instance, Limits, Role};

use super::columns;
use super::error::PlanError;
use super::ipc;
use super::live::{Failure, Moments};
use super::patience::{BATCH_ROWS, Patience};
use super::plan::{config_text, instantiate, moment};
use crate::operator::system_time_us;

/// How many instances wait for calls at most: as many as workers are likely to call at once.
const MAX_IDLE_INSTANCES: usize = 16;

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
    let moments = Moments::new(Arc::new(system_time_us), &format!("{} {config}", guest.digest()), 0);
    let idle = Idle { instances: vec![instance], patience: Patience::default(), moments };
    let pool = Arc::new(Pool { guest: guest.clone(), config, limits, log, signatures, idle: Mutex::new(idle) });
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
        let Pool { guest, config, .. } = self.pool.as_ref();
        format!("wasm {} {}({arguments}) {}\nconfig {config}", guest.digest(), self.name, self.returns().data_type())
    }

    /// The function as SQL calls it.
    #[must_use]
    pub fn udf(&self, sql_name: &str) -> ScalarUDF {
        let volatility = if self.deterministic { Volatility::Immutable } else { Volatility::Volatile };
        let signature = Signature::user_defined(volatility);
        ScalarUDF::new_from_impl(GuestFunction { sql_name: sql_name.to_owned(), signature, function: self.clone() })
    }

    /// Computes the function over columns of its argument types.
    fn call(&self, arguments: &RecordBatch) -> Result<ArrayRef> {
        let rows = arguments.num_rows();
        if rows == 0 {
            return Ok(new_empty_array(self.returns().data_type()));
        }
        let pieces = (0..rows).step_by(BATCH_ROWS).map(|start| arguments.slice(start, BATCH_ROWS.min(rows - start)));
        let mut results = pieces.map(|piece| self.call_once(&piece)).collect::<Result<Vec<_>>>()?;
        match (results.pop(), results.is_empty()) {
            (Some(only), true) => Ok(only),
            (last, _) => {
                results.extend(last);
                Ok(concat(&results.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?)
            }
        }
    }

    fn call_once(&self, arguments: &RecordBatch) -> Result<ArrayRef> {
        let stream = ipc::encode_rows(arguments)?;
        let mut result = None;
        let mut take = |stream: Vec<u8>| {
            let batches = ipc::decode_rows(stream, &self.returns)?;
            let columns: Vec<&dyn Array> =
                batches.iter().filter_map(|rows| Some(rows.columns().first()?.as_ref())).collect();
            let given: usize = columns.iter().map(|column| column.len()).sum();
            if given != arguments.num_rows() {
                return Err(format!("it gave {given} values for {} rows", arguments.num_rows()));
            }
            result = Some(concat(&columns).map_err(|error| error.to_string())?);
            Ok(())
        };
        self.pool.invoke(&self.name, &stream, arguments.num_rows(), &mut take)?;
        match result {
            Some(result) => Ok(result),
            None => exec_err!("the guest gave no result"),
        }
    }
}

/// The instances of a module that no call uses.
struct Pool {
    guest: Guest,
    config: String,
    limits: Limits,
    log: Arc<dyn GuestLog>,
    /// What every instance must say of itself.
    signatures: Vec<FunctionSignature>,
    idle: Mutex<Idle>,
}

struct Idle {
    instances: Vec<Instance>,
    patience: Patience,
    moments: Moments,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        // What it guards is whole between any two lines of ours.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invoke(
        &self,
        name: &str,
        arguments: &[u8],
        rows: usize,
        take: &mut dyn FnMut(Vec<u8>) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let (instance, at) = {
            let mut idle = self.idle();
            (idle.instances.pop(), idle.moments.next())
        };
        let mut instance = match instance {
            Some(instance) => instance,
            None => self.instantiate()?,
        };
        let invoked = instance.invoke(at, name, arguments, take);
        let mut idle = self.idle();
        if matches!(invoked, Ok(()) | Err(CallError::Refused { .. })) && idle.instances.len() < MAX_IDLE_INSTANCES {
            idle.instances.push(instance);
        }
        match invoked {
            Ok(()) => {
                idle.patience.rewarded(rows);
                Ok(())
            }
            Err(error) => {
                let failure = Failure::from(error);
                // Not the fault of some rows that could be narrowed further.
                idle.patience.tried(&failure).map_err(DataFusionError::ResourcesExhausted)?;
                exec_err!("{}", failure.message)
            }
        }
    }

    fn instantiate(&self) -> Result<Instance> {
        let internal = |message: String| DataFusionError::ResourcesExhausted(message);
        let instance = self.guest.instantiate(&self.limits, Arc::clone(&self.log));
        let mut instance = instance.map_err(|error| internal(error.to_string()))?;
        let signatures = instance.functions(moment(), &self.config).map_err(|error| internal(error.to_string()))?;
        if signatures == self.signatures {
            Ok(instance)
        } else {
            Err(internal("an instance of the module has other functions than the one that was asked first".to_owned()))
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
}

fn type_name(field: &Field) -> String {
    ColumnType::from_field(field).map_or_else(|_| field.data_type().to_string(), |known| known.to_string())
}

/// Whether SQL may cast one type to the other for a call: where nothing is lost, or a value that does not fit fails.
fn casts(from: &DataType, to: &DataType) -> bool {
    use DataType::{BinaryView, Date32, LargeBinary, LargeList, LargeUtf8, List, Struct, Timestamp, Utf8, Utf8View};
    match (from, to) {
        _ if from == to || from.is_null() => true,
        // A literal is of the widest type.
        _ if from.is_integer() && to.is_integer() => true,
        _ if from.is_numeric() && (to.is_floating() || to.is_decimal()) => true,
        (Timestamp(..) | Date32 | Utf8 | Utf8View, Timestamp(..)) | (Utf8 | Utf8View, Date32) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View | DataType::Binary | LargeBinary) => true,
        (BinaryView | LargeBinary | DataType::Binary, DataType::Binary | LargeBinary | BinaryView) => true,
        (List(from) | LargeList(from), List(to) | LargeList(to)) => casts(from.data_type(), to.data_type()),
        (Struct(from), Struct(to)) => {
            let mut pairs = from.iter().zip(to);
            from.len() == to.len() && pairs.all(|(a, b)| a.name() == b.name() && casts(a.data_type(), b.data_type()))
        }
        _ => false,
    }
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

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(self.function.returns().clone().with_name(&self.sql_name)))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = self.function.arguments.fields();
        if given.len() != wanted.len() {
            return plan_err!("`{}` takes {} arguments, not {}", self.form(), wanted.len(), given.len());
        }
        for (index, (given, wanted)) in given.iter().zip(wanted).enumerate() {
            if !casts(given, wanted.data_type()) {
                let given = type_name(&Field::new("", given.clone(), true));
                let number = index + 1;
                return plan_err!("argument {number} of `{}` is of type {given}; cast it", self.form());
            }
        }
        Ok(wanted.iter().map(|field| field.data_type().clone()).collect())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant =
            self.function.deterministic && args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let columns = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let arguments = RecordBatch::try_new_with_options(Arc::clone(&self.function.arguments), columns, &options)?;
        let result = self.function.call(&arguments)?;
        if is_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}
