//! `logmill wasm run`: a module alone, from lines of stdin to lines of stdout.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use logmill_connectors::format::{self, Format};
use logmill_connectors::source::Records;
use logmill_operators::operator::{OpenContext, Operator, Output, Port, PortSchema, Progress};
use logmill_pipelines::flow::{META_COLUMNS, Origin, RowBatch, SplitId};
use logmill_pipelines::spec::UnknownFields;
use logmill_wasm::Role;

use super::lines::Lines;
use super::{Loaded, Module, function, invite, parse_schema};
use crate::cli::{Told, print};
use crate::stderr;

/// Run lines of stdin through a module, and print what it makes of them as lines of JSON.
///
/// A transform gets each line as the value of a record, unless --schema says that the lines are JSON objects with these
/// columns. An operator gets JSON objects; their columns are inferred from the first lines if --schema does not name them.
/// A function gets a line for each call: a JSON object with its arguments by name, or an array of them.
///
/// Rows of a module with several outputs are printed beside the output's name: `{"scored.rejects": {…}}`. Lines that fail
/// are reported on stderr, with their numbers, and the command fails at the end.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    module: Module,
    /// The columns of the lines, which are JSON objects then: `carrier: string, delay: float64`.
    #[arg(long, value_name = "COLUMNS", value_parser = parse_schema)]
    schema: Option<Schema>,
    /// The function to call, if the module has several.
    #[arg(long, value_name = "NAME", conflicts_with = "schema")]
    function: Option<String>,
}

pub(super) fn execute(arguments: &Arguments, data_dir: &Path) -> anyhow::Result<()> {
    let loaded = arguments.module.load(data_dir)?;
    invite("lines");
    let mut lines = Lines::new(std::io::stdin());
    let failed = match (loaded.guest.role(), &arguments.function) {
        (Role::Function, name) => function::run(&loaded, &arguments.module, name.as_deref(), &mut lines)?,
        (_, Some(_)) => bail!("--function is for modules with functions, and this one has none"),
        (role, None) => {
            let declared = arguments.schema.clone().map(Arc::new);
            let first = lines.next().context("could not read stdin")?;
            let raw = declared.is_none() && matches!(role, Role::Transform { .. });
            let (format, schema) = match (declared, raw, &first) {
                (Some(schema), _, _) => (Format::Json, schema),
                (None, true, _) => {
                    (Format::Raw, Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)])))
                }
                (None, false, None) => return Ok(()),
                (None, false, Some(records)) => {
                    let inferred = format::infer(&Format::Json, records, None);
                    (
                        Format::Json,
                        inferred.context("no columns can be inferred from the first lines; name them with --schema")?,
                    )
                }
            };
            let mut trial = Trial::open(&loaded, &arguments.module, format, schema)?;
            let mut batch = first;
            while let Some(records) = batch {
                trial.push(&records)?;
                batch = lines.next().context("could not read stdin")?;
            }
            trial.end()?
        }
    };
    match failed {
        0 => Ok(()),
        1 => Err(Told("1 line failed\n".into()).into()),
        n => Err(Told(format!("{n} lines failed\n")).into()),
    }
}

/// Says on stderr what is wrong with a line.
pub(super) fn complain(line: i64, message: &str) {
    stderr::print_line(&format!("line {line}: {message}"));
}

/// A module at work as an operator.
struct Trial {
    operator: Box<dyn Operator>,
    decoder: Box<dyn logmill_connectors::decode::Decoder>,
    printer: Printer,
}

impl Trial {
    fn open(loaded: &Loaded, module: &Module, format: Format, schema: SchemaRef) -> anyhow::Result<Self> {
        let plan = loaded.plan(&module.name(), schema.clone()).map_err(|error| module.told(&error))?;
        // Every column, so that rows that fail can be found by their offset, which is the line's number.
        let hidden = META_COLUMNS.iter().filter(|name| schema.index_of(name).is_err());
        let columns: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .chain(hidden.copied())
            .map(str::to_owned)
            .collect();
        let decoder = format.decoder(&schema, &columns, UnknownFields::Ignore)?;
        let mut operator = plan.operator()?;
        operator.open(OpenContext::default())?;
        let printer =
            Printer { outputs: plan.outputs().to_vec(), emitted: Vec::new(), rejected: Vec::new(), failed: 0 };
        Ok(Self { operator, decoder, printer })
    }

    fn push(&mut self, records: &Records) -> anyhow::Result<()> {
        let decoded = self.decoder.decode(records)?;
        for error in &decoded.errors {
            self.printer.failed += 1;
            complain(records.offsets.get(error.index).copied().unwrap_or(-1), &error.message);
        }
        if decoded.rows.num_rows() == 0 {
            return Ok(());
        }
        let offset = records.offsets.first().copied().unwrap_or(-1);
        let origin = Origin { source: "stdin".into(), split: SplitId::new("0"), offset };
        let batch = RowBatch { rows: decoded.rows, ops: None, origin: Some(origin), lineage: None };
        let progress = self.operator.on_batch(0, batch, &mut self.printer)?;
        self.drain(progress)
    }

    /// Ends the input. Gives the number of lines that failed.
    fn end(mut self) -> anyhow::Result<usize> {
        let progress = self.operator.on_end(0, &mut self.printer)?;
        self.drain(progress)?;
        Ok(self.printer.failed)
    }

    fn drain(&mut self, mut progress: Progress) -> anyhow::Result<()> {
        loop {
            self.printer.print()?;
            if progress == Progress::Done {
                return Ok(());
            }
            progress = self.operator.resume(&mut self.printer)?;
        }
    }
}

/// Prints what an operator puts out.
struct Printer {
    outputs: Vec<PortSchema>,
    emitted: Vec<(Port, RecordBatch)>,
    rejected: Vec<(RecordBatch, String)>,
    failed: usize,
}

impl Output for Printer {
    fn emit(&mut self, port: Port, batch: RowBatch) {
        self.emitted.push((port, batch.rows));
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        self.rejected.push((batch.rows, reason.to_owned()));
    }

    fn is_full(&self) -> bool {
        !self.emitted.is_empty()
    }
}

impl Printer {
    fn print(&mut self) -> anyhow::Result<()> {
        let mut text = Vec::new();
        for (port, rows) in self.emitted.drain(..) {
            let Some(output) = self.outputs.get(port) else { continue };
            // Hidden columns come after those of the output.
            let columns: Vec<usize> = (0..output.schema.fields().len().min(rows.num_columns())).collect();
            let name = (self.outputs.len() > 1).then_some(&*output.name);
            write_rows(&rows.project(&columns)?, name, &mut text)?;
        }
        print(&String::from_utf8_lossy(&text))?;
        for (rows, reason) in self.rejected.drain(..) {
            let lines =
                rows.column_by_name("_offset").and_then(|column| column.as_primitive_opt::<Int64Type>().cloned());
            for row in 0..rows.num_rows() {
                self.failed += 1;
                complain(lines.as_ref().and_then(|lines| lines.values().get(row)).copied().unwrap_or(-1), &reason);
            }
        }
        Ok(())
    }
}

/// Writes rows as lines of JSON, beside a name if there is one.
pub(super) fn write_rows(rows: &RecordBatch, name: Option<&str>, text: &mut Vec<u8>) -> anyhow::Result<()> {
    let (mut buffer, mut values) = (bytes::BytesMut::new(), Vec::new());
    let mut encoder = format::json_encoder(&rows.schema()).context("the rows cannot be printed")?;
    encoder.encode(rows, &mut buffer, &mut values).context("the rows cannot be printed")?;
    for range in values {
        let row = buffer.get(range).unwrap_or_default();
        match name {
            Some(name) => {
                write!(text, "{{{}:", serde_json::Value::from(name))?;
                text.extend_from_slice(row);
                text.extend_from_slice(b"}\n");
            }
            None => {
                text.extend_from_slice(row);
                text.push(b'\n');
            }
        }
    }
    Ok(())
}
