//! Calls of a module's function, one for each line of stdin.

use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use logmill_connectors::decode::Decoder;
use logmill_connectors::format::Format;
use logmill_connectors::source::Records;
use logmill_operators::wasm::{self, WasmFunction};
use logmill_pipelines::nearest;
use logmill_pipelines::spec::UnknownFields;
use serde_json::Value;

use super::lines::Lines;
use super::run::{complain, write_rows};
use super::{Loaded, log, told};

/// Calls a function for each line. Gives the number of lines that failed.
pub(super) fn run(loaded: &Loaded, name: Option<&str>, lines: &mut Lines<impl Read>) -> anyhow::Result<usize> {
    let functions = wasm::functions(&loaded.guest, loaded.config.as_ref(), loaded.limits, log());
    let function = choose(functions.map_err(|error| told(&error))?, name)?;
    let columns: Vec<String> = function.arguments().fields().iter().map(|field| field.name().clone()).collect();
    let mut call = Call {
        decoder: Format::Json.decoder(function.arguments(), &columns, UnknownFields::Error)?,
        udf: function.udf(function.name()),
        returns: Arc::new(function.returns().clone().with_name(function.name()).with_nullable(true)),
        columns,
    };
    let mut failed = 0;
    while let Some(records) = lines.next().context("could not read stdin")? {
        failed += call.lines(&records)?;
    }
    Ok(failed)
}

fn choose(functions: Vec<WasmFunction>, name: Option<&str>) -> anyhow::Result<WasmFunction> {
    let names: Vec<String> = functions.iter().map(|function| function.name().to_owned()).collect();
    let listed = names.join(", ");
    let mut found = functions.into_iter().filter(|function| name.is_none_or(|name| function.name() == name));
    match (found.next(), found.next(), name) {
        (Some(function), None, _) => Ok(function),
        (Some(_), Some(_), _) => bail!("say which function with --function: there are {listed}"),
        (None, _, name) => match name.and_then(|name| nearest(name, names.iter().map(String::as_str))) {
            Some(near) => bail!("the module has no such function; did you mean `{near}`?"),
            None => bail!("the module has no such function; there are {listed}"),
        },
    }
}

/// A function, ready to be called.
struct Call {
    decoder: Box<dyn Decoder>,
    udf: ScalarUDF,
    returns: Arc<Field>,
    columns: Vec<String>,
}

impl Call {
    /// Calls the function for each of some lines and prints the results. Gives the number of lines that failed.
    fn lines(&mut self, records: &Records) -> anyhow::Result<usize> {
        let records = self.by_name(records);
        let decoded = self.decoder.decode(&records)?;
        let line = |index: usize| records.offsets.get(index).copied().unwrap_or(-1);
        for error in &decoded.errors {
            // That no argument may be unknown is a rule of this command.
            let message = error.message.split(", and `unknown: error`").next().unwrap_or_default();
            complain(line(error.index), message);
        }
        let good: Vec<i64> = (0..records.len())
            .filter(|index| !decoded.errors.iter().any(|error| error.index == *index))
            .map(line)
            .collect();
        let mut failed = decoded.errors.len();
        let mut text = Vec::new();
        match self.invoke(&decoded.rows) {
            Ok(results) => write_rows(&results, None, &mut text)?,
            // Alone, each line tells what is wrong with it.
            Err(_) => {
                for (row, line) in good.into_iter().enumerate() {
                    match self.invoke(&decoded.rows.slice(row, 1)) {
                        Ok(result) => write_rows(&result, None, &mut text)?,
                        Err(error) => {
                            failed += 1;
                            complain(line, &error.to_string());
                        }
                    }
                }
            }
        }
        std::io::stdout().lock().write_all(&text)?;
        Ok(failed)
    }

    fn invoke(&self, arguments: &RecordBatch) -> anyhow::Result<RecordBatch> {
        let rows = arguments.num_rows();
        let call = ScalarFunctionArgs {
            args: arguments.columns().iter().cloned().map(ColumnarValue::Array).collect(),
            arg_fields: arguments.schema().fields().iter().cloned().collect(),
            number_rows: rows,
            return_field: self.returns.clone(),
            config_options: Arc::new(ConfigOptions::new()),
        };
        let result =
            self.udf.invoke_with_args(call).map_err(|error| anyhow::anyhow!("{}", error.find_root().message()))?;
        let result: ArrayRef = result.into_array(rows)?;
        Ok(RecordBatch::try_new(Arc::new(Schema::new(vec![self.returns.clone()])), vec![result])?)
    }

    /// Lines that are arrays become objects with the arguments' names.
    fn by_name(&self, records: &Records) -> Records {
        let mut buffer = Vec::new();
        let mut named = Records { buffer: Bytes::new(), values: Vec::new(), ..records.clone() };
        for index in 0..records.len() {
            let line = records.value(index).unwrap_or_default();
            let start = buffer.len() as u32;
            match serde_json::from_slice(line) {
                Ok(Value::Array(values)) if values.len() == self.columns.len() => {
                    let object: serde_json::Map<_, _> = self.columns.iter().cloned().zip(values).collect();
                    buffer.extend_from_slice(Value::Object(object).to_string().as_bytes());
                }
                _ => buffer.extend_from_slice(line),
            }
            named.values.push(Some(start..buffer.len() as u32));
        }
        named.buffer = Bytes::from(buffer);
        named
    }
}
