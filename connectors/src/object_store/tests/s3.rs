//! The object_store sink against a real S3 server, where `LOGMILL_TEST_S3_ENDPOINT` names one with a bucket `lake` and
//! the credentials `test`/`test`; without it these tests pass by doing nothing, and say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use super::super::store::{Opened, open_s3};
use super::*;

struct S3Destination {
    config: Config,
    prefix: String,
}

fn destination(rows: u64) -> Option<S3Destination> {
    let Ok(endpoint) = std::env::var("LOGMILL_TEST_S3_ENDPOINT") else {
        eprintln!("LOGMILL_TEST_S3_ENDPOINT is not set: S3 was not tested");
        return None;
    };
    let prefix = format!("test {}", uuid::Uuid::new_v4());
    let mut config = config(&format!("s3://lake/{prefix}"), true, roll(LONG, 1 << 40, Some(rows)));
    config.options = [
        ("endpoint", OptionValue::Text(endpoint)),
        ("allow_http", OptionValue::Bool(true)),
        ("access_key_id", OptionValue::Text("test".into())),
        ("secret_access_key", OptionValue::Text("test".into())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    Some(S3Destination { config, prefix })
}

impl S3Destination {
    fn open(&self) -> Opened {
        open_s3("lake", &self.config.options).unwrap()
    }
}

#[async_trait]
impl Destination for S3Destination {
    fn sink(&self, deployment: &str) -> Result<Arc<dyn Sink>, ConnectorError> {
        sink(&self.config, FileFormat::Parquet, &context_of(deployment, PathBuf::new(), ticking()))
    }

    async fn expire(&self, token: &Token) -> Result<(), ConnectorError> {
        abort(&*self.open().store, token).await;
        Ok(())
    }

    fn impossible_group(&self) -> Option<String> {
        impossible_group(&self.config)
    }

    async fn visible(&self) -> Result<Vec<TestRow>, ConnectorError> {
        let store = self.open().store;
        let folder = Path::parse(&self.prefix).unwrap();
        let objects: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
        let mut rows = Vec::new();
        for object in objects {
            let name = object.location.to_string();
            if !name.contains("/_logmill/") {
                rows.extend(read_rows(&name, store.get(&object.location).await.unwrap().bytes().await.unwrap()));
            }
        }
        Ok(rows)
    }

    async fn staged(&self) -> Result<Vec<String>, ConnectorError> {
        let Opened { store, pending } = self.open();
        let folder = Path::parse(format!("{}/_logmill", self.prefix)).unwrap();
        let journals: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
        let mut staged: Vec<_> = journals.into_iter().map(|object| object.location.to_string()).collect();
        let open = pending.unwrap().list(&format!("{}/", self.prefix)).await?.expect("the server lists uploads");
        staged.extend(open.into_iter().map(|upload| upload.to));
        Ok(staged)
    }
}

#[tokio::test]
async fn s3_is_exactly_once() {
    for rows in [9, 60] {
        if destination(rows).is_none() {
            return;
        }
        let make = || Ok(Box::new(destination(rows).unwrap()) as Box<dyn Destination>);
        if let Err(error) = check(make, 2).await {
            panic!("rolling at {rows} rows: {error}");
        }
    }
}

#[tokio::test]
async fn uploads_that_died_before_they_were_journaled_are_aborted() {
    let Some(destination) = destination(1 << 40) else { return };
    let sink = destination.sink("d").unwrap();
    let mut writer = sink.open(open("a")).await.unwrap();
    writer.write(batch(&[(1, "x")])).await.unwrap();
    let tokens = writer.prepare(CheckpointEpoch(1), true).await.unwrap().tokens;
    let Opened { store, pending } = destination.open();
    let journal = tokens[0].0["journal"].as_str().unwrap();
    store.delete(&Path::parse(journal).unwrap()).await.unwrap();
    let foreign = Path::parse(format!("{}/part-of-something-else.parquet", destination.prefix)).unwrap();
    let foreign_id = store.create_multipart(&foreign).await.unwrap();
    let next = destination.sink("d").unwrap();
    next.collect(&tokens, &Attempt("b".into())).await.unwrap();
    let list = || async { pending.as_ref().unwrap().list(&format!("{}/", destination.prefix)).await.unwrap().unwrap() };
    assert_eq!(list().await.len(), 2, "a live token's upload stays");
    next.collect(&[], &Attempt("b".into())).await.unwrap();
    let left = list().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].upload, foreign_id, "another's upload stays");
    assert!(matches!(next.commit(&tokens[0]).await.unwrap(), Committed::Lost(_)));
    store.abort_multipart(&foreign, &foreign_id).await.unwrap();
}

#[tokio::test]
async fn a_missing_bucket_and_wrong_settings_are_told() {
    let Some(mut destination) = destination(1 << 40) else { return };
    destination.config.url = "s3://no-such-bucket/x".into();
    let sink = destination.sink("d").unwrap();
    let mut writer = sink.open(open("a")).await.unwrap();
    writer.write(RowBatch::inserts(batch(&[(1, "x")]).rows)).await.unwrap();
    let error = writer.prepare(CheckpointEpoch(1), true).await.unwrap_err();
    assert!(matches!(error, ConnectorError::Permanent { .. }), "{error:?}");
    assert!(error.to_string().ends_with("; does the bucket exist?"), "{error}");
    destination.config.options.insert("acces_key".into(), OptionValue::Bool(true));
    let error = destination.sink("d").err().unwrap().to_string();
    assert!(
        error.starts_with("options: `options.acces_key` is not a setting of S3; the usual ones are endpoint"),
        "{error}"
    );
}
