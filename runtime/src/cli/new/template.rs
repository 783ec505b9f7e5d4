//! The files of the templates, which are part of the binary.

/// All of them: `templates/js/README.md`, `guest/src/lib.rs`, `wit/transform/transform.wit`…
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/template_files.rs"));

/// A folder of files, and where it goes within the new one.
pub(super) type Folder = (&'static str, &'static str);

/// The interface of transforms, as the tools of JavaScript and Python want it.
pub(super) const WIT: [Folder; 2] = [("wit/transform", "wit"), ("wit/operator", "wit/deps/logmill-operator")];
/// The Rust SDK, and the interface beside it where it looks for it.
pub(super) const SDK: [Folder; 2] = [("guest", "vendor/logmill-guest"), ("wit", "vendor/wit")];

/// The files of some folders: where each goes, and its text.
pub(super) fn files(folders: &[Folder]) -> impl Iterator<Item = (String, &'static str)> {
    folders.iter().flat_map(|(folder, target)| {
        FILES.iter().filter_map(move |(path, text)| {
            let path = path.strip_prefix(folder)?.strip_prefix('/')?;
            let path = if target.is_empty() { path.to_owned() } else { format!("{target}/{path}") };
            Some((unquoted(path), *text))
        })
    })
}

/// Names that would mean something where the template lies are written otherwise there.
fn unquoted(path: String) -> String {
    let path = path.strip_suffix(".in").map_or(path.clone(), str::to_owned);
    match path.strip_suffix("gitignore") {
        Some(folder) => format!("{folder}.gitignore"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_file_goes_where_its_tools_look_for_it() {
        let check = |folders: &[Folder], expected: &[&str]| {
            let mut names: Vec<String> = files(folders).map(|(name, _)| name).collect();
            names.sort();
            assert_eq!(names, expected);
        };
        check(&WIT, &["wit/PACKED.md", "wit/deps/logmill-operator/operator.wit", "wit/transform.wit"]);
        check(&[("templates/rust/common", "")], &[".gitignore"]);
        check(
            &[("templates/js", "a")],
            &["a/.gitignore", "a/README.md", "a/build.mjs", "a/package.json", "a/pipeline.yaml", "a/transform.js"],
        );
        let sdk: Vec<String> = files(&SDK).map(|(name, _)| name).collect();
        for file in
            ["vendor/logmill-guest/Cargo.toml", "vendor/logmill-guest/src/lib.rs", "vendor/wit/function/function.wit"]
        {
            assert!(sdk.iter().any(|name| name == file), "{file} is not in {sdk:?}");
        }
    }
}
