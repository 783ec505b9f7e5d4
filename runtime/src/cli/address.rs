//! Where the log is that a command works on: a data dir opened by this process, or a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, BrokerConfig};
use logmill_connectors::log::Log;

use super::pipeline_file;
use crate::embedded_log::EmbeddedLog;
use crate::remote_log::RemoteLog;

/// The name of the data dir where none is named: of commands that take a pipeline, beside the pipeline's file; of others, in
/// the working directory.
pub(super) const DEFAULT_DATA_DIR: &str = "logmill-data";

/// What to do where a command needs a log and no data dir is there.
pub(super) const NO_DATA_DIR: &str = "the working directory has no `logmill-data`; name a data dir with --data-dir DIR or \
                                      LOGMILL_DATA_DIR (that of a pipeline lies beside its file), or a server with --bootstrap";

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// In this data dir, which this process opens.
    DataDir(PathBuf),
    /// Behind a server, reached at these `host:port`s, separated by commas.
    Bootstrap(String),
}

/// What was said about it. Flags come before the environment.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) bootstrap: Option<String>,
    pub(super) data_dir_by_env: Option<PathBuf>,
    pub(super) bootstrap_by_env: Option<String>,
    /// Whether the working directory has a data dir of the default name.
    pub(super) is_default_there: bool,
}

impl Said {
    /// Flags, with the environment of this process.
    pub(super) fn new(data_dir: Option<PathBuf>, bootstrap: Option<String>) -> Self {
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            data_dir,
            bootstrap,
            data_dir_by_env: env("LOGMILL_DATA_DIR").map(PathBuf::from),
            bootstrap_by_env: env("LOGMILL_BOOTSTRAP").map(|text| text.to_string_lossy().into_owned()),
            is_default_there: Path::new(DEFAULT_DATA_DIR).is_dir(),
        }
    }

    /// For commands that work on either.
    ///
    /// # Errors
    /// None is named, and there is none in the working directory.
    pub(super) fn address(&self) -> anyhow::Result<Address> {
        self.address_if_any()?.with_context(|| format!("there is no log to work on\n  hint: {NO_DATA_DIR}"))
    }

    /// For commands that work on either, or on none.
    pub(super) fn address_if_any(&self) -> anyhow::Result<Option<Address>> {
        let default = || self.is_default_there.then(|| PathBuf::from(DEFAULT_DATA_DIR));
        Ok(Some(match (&self.data_dir, &self.bootstrap, &self.data_dir_by_env, &self.bootstrap_by_env) {
            (_, Some(servers), ..) => Address::Bootstrap(servers.clone()),
            (Some(path), None, ..) => Address::DataDir(path.clone()),
            (None, None, Some(_), Some(_)) => bail!(
                "LOGMILL_DATA_DIR and LOGMILL_BOOTSTRAP are both set: unset one, or say --data-dir or --bootstrap"
            ),
            (None, None, None, Some(servers)) => Address::Bootstrap(servers.clone()),
            (None, None, path, None) => match path.clone().or_else(default) {
                Some(path) => Address::DataDir(path),
                None => return Ok(None),
            },
        }))
    }

    /// The data dir that was named, for commands that work in this process only.
    pub(super) fn named_data_dir(&self, command: &str) -> anyhow::Result<Option<PathBuf>> {
        if self.bootstrap.is_some() {
            bail!("`logmill {command}` works in this process, on a data dir: it does not take --bootstrap");
        }
        Ok(self.data_dir.clone().or_else(|| self.data_dir_by_env.clone()))
    }

    /// The data dir of a pipeline, for commands that work in this process only: where none is named, beside its file.
    pub(super) fn pipeline_data_dir(&self, command: &str, pipeline: &Path) -> anyhow::Result<PathBuf> {
        Ok(self.named_data_dir(command)?.unwrap_or_else(|| {
            let base_dir = pipeline_file::base_dir(pipeline);
            if base_dir == Path::new(".") { PathBuf::from(DEFAULT_DATA_DIR) } else { base_dir.join(DEFAULT_DATA_DIR) }
        }))
    }

    /// What to add to commands without a pipeline so that they work on this data dir: nothing, if they do so by themselves.
    pub(super) fn flag_for(&self, data_dir: &Path) -> String {
        let unsaid = Self { data_dir: None, bootstrap: None, ..self.clone() };
        match unsaid.address_if_any() {
            Ok(Some(Address::DataDir(path))) if is_same(&path, data_dir) => String::new(),
            _ => data_dir_flag(data_dir),
        }
    }

    /// The data dir, for commands that work in this process only.
    pub(super) fn own_data_dir(&self, command: &str) -> anyhow::Result<PathBuf> {
        Ok(self.named_data_dir(command)?.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)))
    }
}

/// Whether two paths lead to the same folder.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// ` --data-dir DIR`, as a shell takes it.
pub(super) fn data_dir_flag(data_dir: &Path) -> String {
    let path = data_dir.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=@%,:".contains(c);
    match path.chars().all(is_plain) {
        true => format!(" --data-dir {path}"),
        false => format!(" --data-dir '{}'", path.replace('\'', r"'\''")),
    }
}

/// Opens a broker, does some work with it, and closes it again.
pub(super) async fn with_broker<T>(
    config: BrokerConfig,
    work: impl AsyncFnOnce(Broker) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (broker, _report) = Broker::open(config).await?;
    let result = work(broker.clone()).await;
    let closed = broker.close().await;
    let value = result?;
    closed.context("could not close the log")?;
    Ok(value)
}

/// Opens the log of a data dir, does some work with it, and closes it again.
pub(super) async fn with_log<T>(
    data_dir: &Path,
    work: impl AsyncFnOnce(Arc<dyn Log>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    with_broker(BrokerConfig::new(data_dir), async |broker| work(Arc::new(EmbeddedLog::new(broker))).await).await
}

impl Address {
    /// Does some work with the log, wherever it is.
    pub(super) async fn with_log<T>(
        &self,
        work: impl AsyncFnOnce(Arc<dyn Log>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match self {
            Self::DataDir(data_dir) => with_log(data_dir, work).await,
            Self::Bootstrap(servers) => work(Arc::new(RemoteLog::new(servers))).await,
        }
    }

    /// Does some work with the log as a server shows it. That of a data dir is served to this process alone while it works,
    /// so that there is one way to look at groups.
    pub(super) async fn with_remote_log<T>(
        &self,
        work: impl AsyncFnOnce(&RemoteLog) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let data_dir = match self {
            Self::Bootstrap(servers) => return work(&RemoteLog::new(servers)).await,
            Self::DataDir(data_dir) => data_dir,
        };
        with_broker(BrokerConfig::new(data_dir), async |broker| {
            let config = ServerConfig { listen: vec!["127.0.0.1:0".to_owned()], ..ServerConfig::default() };
            let server = Server::start(broker, config).await.context("could not look at the log")?;
            let addresses: Vec<String> = server.local_addrs().iter().map(ToString::to_string).collect();
            let log = RemoteLog::new(&addresses.join(","));
            let result = work(&log).await;
            // Its connections end with it, so that the server need not wait for them.
            drop(log);
            server.shutdown().await;
            result
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn flags_come_before_the_environment() {
        let check = |flags: [Option<&str>; 2], env: [Option<&str>; 2], expected: Option<Address>| {
            let said = Said {
                is_default_there: true,
                data_dir: flags[0].map(PathBuf::from),
                bootstrap: flags[1].map(str::to_owned),
                data_dir_by_env: env[0].map(PathBuf::from),
                bootstrap_by_env: env[1].map(str::to_owned),
            };
            assert_eq!(said.address().ok(), expected, "{said:?}");
        };
        let dir = |path: &str| Some(Address::DataDir(path.into()));
        let server = |name: &str| Some(Address::Bootstrap(name.to_owned()));
        check([None, None], [None, None], dir(DEFAULT_DATA_DIR));
        check([None, None], [Some("e"), None], dir("e"));
        check([None, None], [None, Some("s:1")], server("s:1"));
        check([None, None], [Some("e"), Some("s:1")], None);
        check([Some("d"), None], [Some("e"), Some("s:1")], dir("d"));
        check([None, Some("f:1")], [Some("e"), Some("s:1")], server("f:1"));
    }

    #[test]
    fn where_nothing_is_named_and_nothing_is_there_no_log_is_made() {
        let error = Said::default().address().unwrap_err().to_string();
        assert!(error.contains("no log") && error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn a_pipelines_data_dir_lies_beside_its_file() {
        for (named, pipeline, expected) in [
            (None, "p.yaml", "logmill-data"),
            (None, "-", "logmill-data"),
            (None, "a/b/p.yaml", "a/b/logmill-data"),
            (None, "/a/p.yaml", "/a/logmill-data"),
            (Some("d"), "a/p.yaml", "d"),
        ] {
            let said = Said { data_dir_by_env: named.map(PathBuf::from), ..Said::default() };
            assert_eq!(said.pipeline_data_dir("run", Path::new(pipeline)).unwrap(), Path::new(expected), "{pipeline}");
        }
    }

    #[test]
    fn a_flag_is_suggested_where_commands_would_work_elsewhere() {
        let said = |env: Option<&str>, is_default_there| Said {
            data_dir_by_env: env.map(PathBuf::from),
            is_default_there,
            ..Said::default()
        };
        for (said, data_dir, expected) in [
            (said(None, true), DEFAULT_DATA_DIR, ""),
            (said(None, false), DEFAULT_DATA_DIR, " --data-dir logmill-data"),
            (said(None, true), "a/logmill-data", " --data-dir a/logmill-data"),
            (said(Some("e"), true), "e", ""),
            (said(Some("e"), true), "it's here", r" --data-dir 'it'\''s here'"),
        ] {
            assert_eq!(said.flag_for(Path::new(data_dir)), expected, "{said:?} {data_dir}");
        }
    }
}
