//! How wasmtime is set up: what guests may use of WebAssembly, and where their memories come from.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::error::WasmError;
use crate::state::MAX_TABLE_ELEMENTS;

/// The stack of a guest's calls. Threads that call guests need as much free of their own, and some more.
const STACK_BYTES: usize = 512 * 1024;
/// Instances that may live at once in a process: components, and the memories that they have.
const POOL_COMPONENTS: u32 = 4_000;
/// Core modules of which these components consist, and their tables.
const POOL_PARTS: u32 = 16_000;
/// Tables that one module may define.
const MAX_TABLES_OF_MODULE: u32 = 4;
/// What the host's own record of an instance may take: it grows with the number of functions.
const MAX_INSTANCE_BYTES: usize = 4 * 1024 * 1024;

/// An engine whose memories come from a pool, or one by one where the pool's address space cannot be had.
pub(crate) fn engine() -> Result<Engine, WasmError> {
    let mut pooled = config();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    match Engine::new(&pooled) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::debug!("no pool for guests' memories, each is made when needed: {error:#}");
            Engine::new(&config()).map_err(|error| WasmError::Engine(format!("{error:#}")))
        }
    }
}

/// An engine that compiles, and makes no instances: what it compiles can be run by the other.
pub(crate) fn compiler() -> Result<Engine, WasmError> {
    Engine::new(&config()).map_err(|error| WasmError::Engine(format!("{error:#}")))
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // The same input gives the same output. Only the payload of a NaN may be another on another kind of processor: to keep
        // those equal as well would cost arithmetic four fifths of its speed.
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_COMPONENTS)
        .total_memories(POOL_COMPONENTS)
        .total_core_instances(POOL_PARTS)
        .total_tables(POOL_PARTS)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_tables_per_module(MAX_TABLES_OF_MODULE)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .max_component_instance_size(MAX_INSTANCE_BYTES);
    pool
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use wasmtime::{Instance, Module, Store};

    #[test]
    fn what_one_engine_compiles_the_other_runs() {
        let hash = |engine: &Engine| {
            let mut hasher = std::hash::DefaultHasher::new();
            std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
            std::hash::Hasher::finish(&hasher)
        };
        assert_eq!(hash(&engine().unwrap()), hash(&compiler().unwrap()));
    }

    #[test]
    fn without_a_pool_guests_run_as_well() {
        let engine = Engine::new(&config()).unwrap();
        let text = r#"(module (memory 1) (func (export "f") (result i32) (memory.size)))"#;
        let module = Module::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let function = instance.get_typed_func::<(), i32>(&mut store, "f").unwrap();
        assert_eq!(function.call(&mut store, ()).unwrap(), 1);
    }
}
