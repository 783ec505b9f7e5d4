//! Calls of a module's function, one for each line of stdin.

use std::io::Read;
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
use serde_json::{Map, Value};

use super::lines::Lines;
use super::run::{complain, write_rows};
use super::{Loaded, Module, log};
use crate::cli::print;

/// Calls a function for each line. Gives the number of lines that failed.
pub(super) fn run(
    loaded: &Loaded,
    module: &Module,
    name: Option<&str>,
    lines: &mut Lines<impl Read>,
) -> anyhow::Result<usize> {
    let functions = wasm::functions(&loaded.guest, loaded.config.as_ref(), loaded.limits, log());
    let function = choose(functions.map_err(|error| module.told(&error))?, name)?;
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
        let (records, mut failed) = self.calls(records);
        let decoded = self.decoder.decode(&records)?;
        let line = |index: usize| records.offsets.get(index).copied().unwrap_or(-1);
        failed += decoded.errors.len();
        for error in &decoded.errors {
            // Places are those in a text that nobody has seen.
            complain(line(error.index), error.message.split(" (byte ").next().unwrap_or_default());
        }
        let good: Vec<i64> = (0..records.len())
            .filter(|index| !decoded.errors.iter().any(|error| error.index == *index))
            .map(line)
            .collect();
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
        print(&String::from_utf8_lossy(&text))?;
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

    /// The lines that are calls, as objects with the arguments' names; how many are none, which is told of each.
    fn calls(&self, records: &Records) -> (Records, usize) {
        let mut buffer = Vec::new();
        let (mut values, mut offsets) = (Vec::new(), Vec::new());
        for index in 0..records.len() {
            let line = records.offsets.get(index).copied().unwrap_or(-1);
            match self.call(records.value(index).unwrap_or_default()) {
                Ok(arguments) => {
                    let start = buffer.len() as u32;
                    buffer.extend_from_slice(Value::Object(arguments).to_string().as_bytes());
                    values.push(Some(start..buffer.len() as u32));
                    offsets.push(line);
                }
                Err(why) => complain(line, &why),
            }
        }
        let failed = records.len() - values.len();
        (Records { buffer: Bytes::from(buffer), values, offsets, ..Records::default() }, failed)
    }

    /// The arguments of a line, by name: of an array as many as the function has, of an object each by its name.
    fn call(&self, line: &[u8]) -> Result<Map<String, Value>, String> {
        let count = |n: usize| format!("{n} argument{}", if n == 1 { "" } else { "s" });
        let known = || self.columns.join(", ");
        match serde_json::from_slice(line) {
            Ok(Value::Array(values)) if values.len() == self.columns.len() => {
                Ok(self.columns.iter().cloned().zip(values).collect())
            }
            Ok(Value::Array(values)) => {
                Err(format!("the function has {}, not {}: {}", count(self.columns.len()), values.len(), known()))
            }
            Ok(Value::Object(arguments)) => {
                if let Some(name) = arguments.keys().find(|name| !self.columns.contains(name)) {
                    return Err(format!("the function has no argument `{name}`; there are {}", known()));
                }
                match self.columns.iter().find(|name| !arguments.contains_key(*name)) {
                    Some(name) => Err(format!("there is no argument `{name}`; write null if it has no value")),
                    None => Ok(arguments),
                }
            }
            Ok(_) => Err("a call is an array of arguments, or an object with them by name".to_owned()),
            Err(error) => Err(format!("no JSON: {error}")),
        }
    }
}
