//! The names of interfaces: `package:name/interface@version`.

/// A parsed name of an interface, as components import and export them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interface<'a> {
    /// `namespace:package`.
    pub(crate) package: &'a str,
    pub(crate) name: &'a str,
    /// Major, minor and patch.
    pub(crate) version: Option<(u64, u64, u64)>,
}

impl<'a> Interface<'a> {
    /// Nothing if the name is not that of an interface in a package.
    pub(crate) fn parse(text: &'a str) -> Option<Interface<'a>> {
        let (path, version) = match text.split_once('@') {
            Some((path, version)) => (path, Some(parse_version(version)?)),
            None => (text, None),
        };
        let (package, name) = path.split_once('/')?;
        package.contains(':').then_some(Interface { package, name, version })
    }
}

fn parse_version(text: &str) -> Option<(u64, u64, u64)> {
    let release = text.split(['-', '+']).next()?;
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_come_apart() {
        let check = |text, expected| assert_eq!(Interface::parse(text), expected, "{text}");
        let batch = Interface { package: "logmill:operator", name: "batch", version: Some((0, 1, 3)) };
        check("logmill:operator/batch@0.1.3", Some(batch));
        check("logmill:operator/batch@0.1.3-rc.1", Some(batch));
        check("logmill:operator/batch", Some(Interface { version: None, ..batch }));
        check("logmill:operator/batch@0.1", None);
        check("logmill:operator/batch@0.1.x", None);
        check("batch", None);
        check("logmill/batch", None);
        check("", None);
    }
}
