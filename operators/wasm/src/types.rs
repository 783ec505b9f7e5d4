//! Looks at component types before anything that trusts them does.
//!
//! Types nest, and the libraries that read them follow them by recursion. A few hundred kilobytes are enough for a nesting, or
//! a circle of packages that need one another, that ends in a full stack, and with it the process. So modules are read on a
//! thread with a large stack, and only if what they say is bounded: nothing nests deeper than there are bytes in it that can
//! begin a nesting, and no package needs itself.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentType, ComponentTypeDeclaration,
    ComponentTypeRef, InstanceTypeDeclaration, Parser, Payload, TypeBounds,
};

use crate::imports::Interface;

/// The stack on which modules are read: enough for `MAX_NESTING`, several times over.
const STACK_BYTES: usize = 256 * 1024 * 1024;
/// Bytes in a section of types that could begin a nested type. Types of a guest with all of WASI have a few hundred.
const MAX_NESTING: usize = 10_000;
/// What begins the type of a component, and that of an instance.
const NESTING: [u8; 2] = [0x41, 0x42];
/// What all sections of component types of a core module may take; those of a guest with all of WASI take a tenth.
const MAX_TYPES_BYTES: usize = 512 * 1024;
/// WIT packages that these may name.
const MAX_PACKAGES: usize = 200;
/// What a section of the historical form begins with, which current tools no longer write.
const HISTORICAL: u8 = 0x03;

/// Runs what reads a module on a thread with a large stack. An error says why it could not, or that it panicked.
pub(crate) fn with_large_stack<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, String> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("wasm-load".into()).stack_size(STACK_BYTES);
        match builder.spawn_scoped(scope, work) {
            Ok(thread) => thread.join().map_err(|_| "it contradicts itself".into()),
            Err(error) => Err(format!("there is no thread to read it: {error}")),
        }
    })
}

/// Checks that what a component's sections hold does not nest too deep.
pub(crate) fn check_nesting(component: &[u8]) -> Result<(), String> {
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::ComponentTypeSection(section) = payload.map_err(|error| error.to_string())? {
            let bytes = component.get(section.range()).unwrap_or_default();
            if bytes.iter().filter(|byte| NESTING.contains(byte)).count() > MAX_NESTING {
                return Err("its types nest too deep".into());
            }
        }
    }
    Ok(())
}

/// Checks the component types that a core module carries.
pub(crate) fn check_types(sections: &[&[u8]]) -> Result<(), String> {
    if sections.iter().map(|section| section.len()).sum::<usize>() > MAX_TYPES_BYTES {
        return Err(format!("they take more than {MAX_TYPES_BYTES} bytes"));
    }
    let mut needs = Needs::default();
    for section in sections {
        if section.first() == Some(&HISTORICAL) {
            return Err("they are of a form that is no longer read; build with a current wit-bindgen".into());
        }
        check_nesting(section)?;
        for payload in Parser::new(0).parse_all(section) {
            if let Payload::ComponentTypeSection(types) = payload.map_err(|error| error.to_string())? {
                let mut outer = Scope::default();
                for ty in types {
                    needs.component_type(&mut outer, &ty.map_err(|error| error.to_string())?)?;
                }
            }
        }
    }
    needs.check()
}

/// The packages that each package needs.
#[derive(Default)]
struct Needs(BTreeMap<String, BTreeSet<String>>);

/// The types and instances that have been declared in a component type so far.
#[derive(Default)]
struct Scope<'a> {
    types: Vec<Draws<'a>>,
    /// The names under which they are imported or exported.
    instances: Vec<&'a str>,
}

/// The interfaces on whose types a type draws. Those of values that a world declares are of no interest, as no interface can
/// draw on them.
type Draws<'a> = BTreeSet<&'a str>;

impl Needs {
    fn component_type<'a>(&mut self, scope: &mut Scope<'a>, ty: &ComponentType<'a>) -> Result<(), String> {
        let draws = match ty {
            ComponentType::Component(declarations) => {
                let mut inner = Scope::default();
                for declaration in declarations {
                    self.declaration(scope, &mut inner, declaration)?;
                }
                inner.instances.into_iter().collect()
            }
            ComponentType::Instance(declarations) => instance_draws(scope, declarations)?,
            _ => Draws::new(),
        };
        scope.types.push(draws);
        Ok(())
    }

    fn declaration<'a>(
        &mut self,
        outer: &Scope<'a>,
        scope: &mut Scope<'a>,
        declaration: &ComponentTypeDeclaration<'a>,
    ) -> Result<(), String> {
        match declaration {
            ComponentTypeDeclaration::CoreType(_) => {}
            ComponentTypeDeclaration::Type(ty) => self.component_type(scope, ty)?,
            ComponentTypeDeclaration::Alias(ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Type,
                instance_index,
                ..
            }) => {
                let instance = scope.instances.get(*instance_index as usize);
                scope.types.push(instance.into_iter().copied().collect());
            }
            ComponentTypeDeclaration::Alias(alias) => scope.types.extend(outer_draws(outer, alias)?),
            ComponentTypeDeclaration::Import(import) => self.named(scope, import.name.name, import.ty),
            ComponentTypeDeclaration::Export { name, ty } => self.named(scope, name.name, *ty),
        }
        Ok(())
    }

    /// Something is imported or exported under a name: its package needs those on which it draws.
    fn named<'a>(&mut self, scope: &mut Scope<'a>, name: &'a str, ty: ComponentTypeRef) {
        let draws = |index: u32| scope.types.get(index as usize).cloned().unwrap_or_default();
        match ty {
            ComponentTypeRef::Instance(index) => {
                self.add(name, &draws(index));
                scope.instances.push(name);
            }
            ComponentTypeRef::Component(index) => self.add(name, &draws(index)),
            ComponentTypeRef::Type(TypeBounds::Eq(index)) => scope.types.push(draws(index)),
            ComponentTypeRef::Type(TypeBounds::SubResource) => scope.types.push(Draws::new()),
            _ => {}
        }
    }

    fn add(&mut self, name: &str, draws: &Draws<'_>) {
        let needing = package(name);
        let others = draws.iter().map(|other| package(other)).filter(|other| *other != needing);
        let others: Vec<String> = others.collect();
        self.0.entry(needing).or_default().extend(others);
    }

    /// Checks that the packages are not too many, and that none needs itself by way of others.
    fn check(mut self) -> Result<(), String> {
        if self.0.len() > MAX_PACKAGES {
            return Err(format!("they name more than {MAX_PACKAGES} packages"));
        }
        // Each round takes away those that need no other that is left; what remains in the end needs itself.
        loop {
            let left: BTreeSet<String> = self.0.keys().cloned().collect();
            self.0.retain(|_, others| others.iter().any(|other| left.contains(other)));
            if self.0.len() == left.len() {
                break;
            }
        }
        match self.0.keys().next() {
            Some(name) => Err(format!("package `{name}` needs itself")),
            None => Ok(()),
        }
    }
}

/// What an instance draws on: types of the component around it, which had them of other instances.
fn instance_draws<'a>(outer: &Scope<'a>, declarations: &[InstanceTypeDeclaration<'a>]) -> Result<Draws<'a>, String> {
    let mut draws = Draws::new();
    for declaration in declarations {
        match declaration {
            InstanceTypeDeclaration::Alias(alias) => draws.extend(outer_draws(outer, alias)?.unwrap_or_default()),
            InstanceTypeDeclaration::Type(ComponentType::Component(_) | ComponentType::Instance(_)) => {
                return Err("an interface holds another".into());
            }
            _ => {}
        }
    }
    Ok(draws)
}

/// What an alias of a type of the scope around draws on; nothing if it is no alias of a type.
fn outer_draws<'a>(outer: &Scope<'a>, alias: &ComponentAlias<'a>) -> Result<Option<Draws<'a>>, String> {
    match alias {
        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, count: 1, index } => {
            Ok(Some(outer.types.get(*index as usize).cloned().unwrap_or_default()))
        }
        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, .. } => {
            Err("a type is taken from too far away".into())
        }
        _ => Ok(None),
    }
}

/// The package of an interface or a world, with its version; the name itself for what is in none.
fn package(name: &str) -> String {
    match Interface::parse(name) {
        Some(Interface { package, version: Some((major, minor, patch)), .. }) => {
            format!("{package}@{major}.{minor}.{patch}")
        }
        Some(Interface { package, .. }) => package.to_owned(),
        None => name.to_owned(),
    }
}
