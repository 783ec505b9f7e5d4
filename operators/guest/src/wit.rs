//! The bindings that are generated from the WIT packages: a small world for each interface, because what a guest exports is
//! the union of the worlds it uses, and generated macros of one crate may not share names.

#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, reason = "generated")]

/// `logmill:operator/host`.
pub mod host {
    wit_bindgen::generate!({
        path: "../wit/operator",
        inline: "package logmill:guest-host; world with-host { import logmill:operator/host@0.1.0; }",
        world: "logmill:guest-host/with-host",
        generate_all,
    });
}

/// `logmill:operator/batch` and `types`.
#[cfg(feature = "arrow")]
pub mod batch {
    wit_bindgen::generate!({
        path: "../wit/operator",
        world: "operator",
        pub_export_macro: true,
        export_macro_name: "export_batch",
        with: { "logmill:operator/host@0.1.0": crate::wit::host::logmill::operator::host },
    });
}

/// `logmill:operator/state`.
#[cfg(feature = "arrow")]
pub mod state {
    wit_bindgen::generate!({
        path: "../wit/operator",
        inline: "package logmill:guest-state; world with-state { export logmill:operator/state@0.1.0; }",
        world: "logmill:guest-state/with-state",
        pub_export_macro: true,
        export_macro_name: "export_state",
        generate_all,
    });
}

/// `logmill:operator/watermark`.
#[cfg(feature = "arrow")]
pub mod watermark {
    wit_bindgen::generate!({
        path: "../wit/operator",
        inline: "package logmill:guest-watermark; world with-watermark { export logmill:operator/watermark@0.1.0; }",
        world: "logmill:guest-watermark/with-watermark",
        pub_export_macro: true,
        export_macro_name: "export_watermark",
        with: { "logmill:operator/types@0.1.0": crate::wit::batch::logmill::operator::types },
    });
}

/// `logmill:transform/describe` and `packed`.
pub mod transform {
    wit_bindgen::generate!({
        path: ["../wit/operator", "../wit/transform"],
        world: "logmill:transform/packed-transform",
        pub_export_macro: true,
        export_macro_name: "export_transform",
        with: { "logmill:operator/host@0.1.0": crate::wit::host::logmill::operator::host },
        generate_all,
    });
}

/// `logmill:function/scalar`.
#[cfg(feature = "arrow")]
pub mod function {
    wit_bindgen::generate!({
        path: ["../wit/operator", "../wit/function"],
        world: "logmill:function/function",
        pub_export_macro: true,
        export_macro_name: "export_function",
        with: { "logmill:operator/host@0.1.0": crate::wit::host::logmill::operator::host },
    });
}
