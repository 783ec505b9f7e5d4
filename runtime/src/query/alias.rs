//! A file goes by its name without folders and ending: `FROM 'data/flights.ndjson'` is as good as `… AS flights`.
//!
//! Else the whole path would stand before the columns in `avg(flights.delay)`, and could not be written shorter.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, TableAlias, TableFactor, VisitMut, VisitorMut,
};

use super::files;

/// Gives files without an alias their names, unless two of them have the same.
pub(super) fn name_files(query: &mut Query) {
    let mut names = Names { paths: BTreeMap::new(), give: false };
    let _ = query.visit(&mut names);
    names.give = true;
    let _ = query.visit(&mut names);
}

struct Names {
    /// How often each name stands for a file.
    paths: BTreeMap<String, usize>,
    /// Whether the names are given, having been counted.
    give: bool,
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias: alias @ None, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(stem) = path(name).and_then(stem) else { return ControlFlow::Continue(()) };
        if !self.give {
            *self.paths.entry(stem).or_default() += 1;
        } else if self.paths.get(&stem) == Some(&1) {
            let name = Ident::with_quote('"', stem);
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        ControlFlow::Continue(())
    }
}

/// A name that is the path of files.
fn path(name: &ObjectName) -> Option<&str> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] if files::is_path(&name.value) => Some(&name.value),
        _ => None,
    }
}

/// The last part of a path that is not a pattern, without its ending.
fn stem(path: &str) -> Option<String> {
    let last = path.rsplit('/').find(|part| !part.is_empty() && !part.contains(['*', '?', '[']))?;
    // Without a slash in it, a name is a path by its ending.
    let stem = match files::is_path(last) {
        true => last.rsplit_once('.')?.0,
        false => last,
    };
    (!matches!(stem, "" | "." | "..")).then(|| stem.to_owned())
}
