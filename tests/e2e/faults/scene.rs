//! A node in trouble, and those whom it must not concern.

use logmill_tests::load::raw::Raw;
use logmill_tests::load::run::{Load, create_topic};
use logmill_tests::node::Node;
use tempfile::TempDir;

/// What a node may hold at its most while all of this is done to it, in bytes: a few times what it needs anyhow.
const MAX_MEMORY_BYTES: u64 = 256 << 20;

/// A node with a topic `victim` for those who misbehave, and bystanders who do not.
pub(super) struct Scene {
    pub(super) node: Node,
    pub(super) bystanders: Load,
    folder: TempDir,
}

impl Scene {
    /// A node with these lines in the `limits` of its config.
    pub(super) fn new(limits: &str) -> Self {
        Self::with_environment(limits, &[])
    }

    pub(super) fn with_environment(limits: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("node.yaml");
        let limits = if limits.is_empty() { String::new() } else { format!("limits:\n{limits}") };
        std::fs::write(&config, format!("{limits}groups: {{ initial_rebalance_delay: 0s }}\n")).unwrap();
        let mut node = Node::new(folder.path());
        node.arguments(&["--config", config.to_str().unwrap()]);
        for (name, value) in environment {
            node.set(name, *value);
        }
        node.start();
        create_topic(&node.bootstrap(), "victim", 1, &[]);
        let bystanders = Load::bystanders(&node.bootstrap());
        bystanders.assert_goes_on(&node);
        Self { node, bystanders, folder }
    }

    pub(super) fn connect(&self) -> Raw {
        Raw::connect(self.node.port()).unwrap_or_else(|error| panic!("{error}\n{}", self.node))
    }

    /// Everything is as before: the others go on, and memory has not grown out of bounds.
    #[track_caller]
    pub(super) fn assert_unharmed(&self, what: &str) {
        self.assert_unharmed_within(MAX_MEMORY_BYTES, what);
    }

    /// The same, where more memory may be needed, in bytes.
    #[track_caller]
    pub(super) fn assert_unharmed_within(&self, bytes: u64, what: &str) {
        self.bystanders.assert_goes_on(&format!("after {what}\n{}", self.node));
        let memory = self.node.peak_memory_bytes();
        assert!(memory < bytes, "{what}: {memory} bytes of memory\n{}", self.node);
        assert!(!self.node.log().contains("panicked"), "{what}: {}", self.node);
    }

    /// Nothing has happened to the bystanders' records and commits, and the node ends well.
    #[track_caller]
    pub(super) fn end(self) {
        let Self { mut node, bystanders, folder } = self;
        bystanders.check(&node).assert_none(&node);
        assert_eq!(node.terminate(), Some(0), "{node}");
        drop(folder);
    }
}
