//! Bounds of a module, counted before anything compiles it.
//!
//! ```text
//!   component C2 ─ two of C1 ─ two of C0:   a few bytes each, and 2^n instances of C0 in Cn
//! ```
//!
//! A component is expanded when it is compiled: what it instantiates is compiled into it each time. So its parts are counted as
//! often as they are instantiated. A function is compiled as a whole, in a time that grows faster than its size.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef, Encoding,
    FunctionBody, Operator, Parser, Payload,
};

/// Parts of a component: instances, aliases, functions lifted and lowered, each as often as it is instantiated. A guest of Python
/// with all of WASI has a few thousand.
const MAX_PARTS: u64 = 100_000;
/// How deep components and modules nest.
const MAX_NESTING: usize = 16;
/// Functions of all core modules together; a guest with Python's runtime has 30,000.
const MAX_FUNCTIONS: u64 = 200_000;
/// Types of all core modules together.
const MAX_TYPES: u64 = 100_000;
/// The largest function, in bytes. The loop of an interpreter has some 100,000.
const MAX_FUNCTION_BYTES: usize = 1024 * 1024;
/// The local variables of a function.
const MAX_LOCALS: u64 = 20_000;
/// The targets of all `br_table` of a function.
const MAX_BRANCH_TARGETS: u64 = 65_536;
/// The blocks of a function, and places in it that branch.
const MAX_BRANCHES: u64 = 100_000;

/// Checks that a module, or component, is within its bounds; the error says what there is too much of.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(bytes) {
        counts.payload(payload.map_err(|error| error.to_string())?)?;
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    /// The components and modules that have begun and not ended, the outermost first.
    open: Vec<Scope>,
    functions: u64,
    types: u64,
}

/// A component or a core module.
#[derive(Default)]
struct Scope {
    is_component: bool,
    /// Of the components that can be named in it: how many parts one more of each has.
    components: Vec<u64>,
    parts: u64,
}

impl Scope {
    fn add(&mut self, parts: u64) -> Result<(), String> {
        self.parts = self.parts.saturating_add(parts);
        if self.parts <= MAX_PARTS {
            return Ok(());
        }
        Err(format!("it has more than {MAX_PARTS} parts, each counted as often as it is instantiated"))
    }

    fn parts_of(&self, component: u32) -> Result<u64, String> {
        let known = usize::try_from(component).ok().and_then(|index| self.components.get(index));
        known.copied().ok_or_else(|| format!("it names the component {component}, which it does not have"))
    }
}

impl Counts {
    fn payload(&mut self, payload: Payload<'_>) -> Result<(), String> {
        match payload {
            Payload::Version { encoding, .. } => {
                if self.open.len() >= MAX_NESTING {
                    return Err(format!("its components nest more than {MAX_NESTING} deep"));
                }
                self.open.push(Scope { is_component: encoding == Encoding::Component, ..Scope::default() });
            }
            Payload::End(_) => self.end()?,
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    self.instance(&instance.map_err(|error| error.to_string())?)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(&alias.map_err(|error| error.to_string())?)?;
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    if let ComponentTypeRef::Component(_) = import.map_err(|error| error.to_string())?.ty {
                        return Err(given());
                    }
                    self.scope()?.add(1)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.map_err(|error| error.to_string())?;
                    let scope = self.scope()?;
                    scope.add(1)?;
                    if export.kind == ComponentExternalKind::Component {
                        let parts = scope.parts_of(export.index)?;
                        scope.components.push(parts);
                    }
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    let parts = match instance.map_err(|error| error.to_string())? {
                        wasmparser::Instance::Instantiate { args, .. } => args.len(),
                        wasmparser::Instance::FromExports(exports) => exports.len(),
                    };
                    self.scope()?.add(1 + parts as u64)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => self.scope()?.add(section.count().into())?,
            Payload::ComponentTypeSection(section) => self.scope()?.add(section.count().into())?,
            Payload::CoreTypeSection(section) => self.scope()?.add(section.count().into())?,
            Payload::TypeSection(section) => {
                self.types += u64::from(section.count());
                bounded("types", self.types, MAX_TYPES)?;
            }
            Payload::CodeSectionStart { count, .. } => {
                self.functions += u64::from(count);
                bounded("functions", self.functions, MAX_FUNCTIONS)?;
            }
            Payload::CodeSectionEntry(body) => function(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn scope(&mut self) -> Result<&mut Scope, String> {
        self.open.last_mut().ok_or_else(|| "it has a section outside of it".to_owned())
    }

    fn end(&mut self) -> Result<(), String> {
        let ended = self.open.pop();
        if let (Some(ended), Some(around)) = (ended, self.open.last_mut())
            && ended.is_component
        {
            around.components.push(ended.parts.saturating_add(1));
        }
        Ok(())
    }

    fn instance(&mut self, instance: &ComponentInstance<'_>) -> Result<(), String> {
        let scope = self.scope()?;
        match instance {
            ComponentInstance::Instantiate { component_index, args } => {
                if args.iter().any(|arg| arg.kind == ComponentExternalKind::Component) {
                    return Err(given());
                }
                let parts = scope.parts_of(*component_index)?;
                scope.add(parts.saturating_add(1 + args.len() as u64))
            }
            ComponentInstance::FromExports(exports) => scope.add(1 + exports.len() as u64),
        }
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), String> {
        self.scope()?.add(1)?;
        match alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => Err(given()),
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                let around = usize::try_from(*count).ok().and_then(|count| self.open.len().checked_sub(1 + count));
                let around = around.and_then(|at| self.open.get(at)).ok_or("it names what is around it and is not")?;
                let parts = around.parts_of(*index)?;
                self.scope()?.components.push(parts);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn given() -> String {
    "it instantiates components that it is given; compose it so that each names the one it instantiates".to_owned()
}

fn bounded(what: &str, found: u64, most: u64) -> Result<(), String> {
    if found <= most { Ok(()) } else { Err(format!("it has more than {most} {what}")) }
}

/// Checks what decides how long a function takes to compile.
fn function(body: &FunctionBody<'_>) -> Result<(), String> {
    let bytes = body.range().len();
    if bytes > MAX_FUNCTION_BYTES {
        return Err(format!("it has a function of {bytes} bytes, {MAX_FUNCTION_BYTES} are allowed"));
    }
    let mut locals = 0;
    for group in body.get_locals_reader().map_err(|error| error.to_string())? {
        let (count, _) = group.map_err(|error| error.to_string())?;
        locals += u64::from(count);
        bounded("local variables in a function", locals, MAX_LOCALS)?;
    }
    let (mut targets, mut branches) = (0, 0);
    for operator in body.get_operators_reader().map_err(|error| error.to_string())? {
        match operator.map_err(|error| error.to_string())? {
            Operator::BrTable { targets: table } => {
                targets += u64::from(table.len());
                bounded("branch targets in a function", targets, MAX_BRANCH_TARGETS)?;
            }
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Br { .. }
            | Operator::BrIf { .. } => {
                branches += 1;
                bounded("branches in a function", branches, MAX_BRANCHES)?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        check(&wat::parse_str(text).unwrap())
    }

    fn refuses(text: &str, expected: &str) {
        let message = checked(text).expect_err("a module that is refused");
        assert!(message.contains(expected), "{message}");
    }

    /// A component that doubles this many times.
    fn doubling(times: usize) -> String {
        let levels = (1..=times).map(|level| {
            let below = level - 1;
            format!(
                "(component $c{level} (alias outer $top $c{below} (component $below))
                    (instance (instantiate $below)) (instance (instantiate $below)))"
            )
        });
        let levels: String = levels.collect();
        format!("(component $top (component $c0) {levels} (instance (instantiate $c{times})))")
    }

    #[test]
    fn what_is_instantiated_is_counted_each_time() {
        checked(&doubling(10)).unwrap();
        refuses(&doubling(26), "parts, each counted as often as it is instantiated");
        assert!(wat::parse_str(doubling(26)).unwrap().len() < 2_000, "a bomb of a few bytes");
        let exported =
            "(component $top (component $c0) (export $e0 \"e\" (component $c0)) (instance (instantiate $e0)))";
        checked(exported).unwrap();
    }

    #[test]
    fn components_that_are_given_cannot_be_counted() {
        refuses("(component (import \"c\" (component)))", "components that it is given");
        refuses(
            "(component (component $a (component $x) (export \"x\" (component $x)))
                (instance $i (instantiate $a)) (alias export $i \"x\" (component $y)) (instance (instantiate $y)))",
            "components that it is given",
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "(component ".repeat(depth), ")".repeat(depth));
        checked(&nested(16)).unwrap();
        refuses(&nested(17), "nest more than 16 deep");
    }

    #[test]
    fn functions_are_bounded() {
        let function = |body: &str| format!("(module (func {body}))");
        refuses(&function(&format!("(local {})", "i32 ".repeat(20_001))), "20000 local variables");
        refuses(&function(&"nop ".repeat(1024 * 1024)), "1048576 are allowed");
        refuses(&function(&"(block)".repeat(100_001)), "100000 branches");
        let table = format!("(block (br_table {} (i32.const 0)))", "0 ".repeat(65_538));
        refuses(&function(&table), "65536 branch targets");
        let many = format!("(component {})", format!("(core module {})", "(func)".repeat(50_001)).repeat(4));
        refuses(&many, "200000 functions");
        let types = format!("(module {})", "(type (func))".repeat(100_001));
        refuses(&types, "100000 types");
        checked(&function("(loop (br_if 0 (i32.const 0)))")).unwrap();
    }
}
