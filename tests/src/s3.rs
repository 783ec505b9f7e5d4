//! An S3-compatible server (moto) on loopback, with one bucket.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::data::python;
use crate::port;

const BUCKET: &str = "lake";

/// A running server; stopped when dropped.
pub struct S3 {
    server: Child,
    port: u16,
}

impl S3 {
    pub fn start() -> Self {
        let port = port::free();
        let server = Command::new(python())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let s3 = Self { server, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the S3 server did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        s3.script(&format!("s3.create_bucket(Bucket='{BUCKET}')"));
        s3
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Copies every object of the bucket below a folder.
    pub fn download(&self, folder: &Path) {
        let folder = folder.display();
        self.script(&format!(
            "import os\n\
             for page in s3.get_paginator('list_objects_v2').paginate(Bucket='{BUCKET}'):\n\
            \x20   for item in page.get('Contents', []):\n\
            \x20       path = os.path.join('{folder}', item['Key'])\n\
            \x20       os.makedirs(os.path.dirname(path), exist_ok=True)\n\
            \x20       s3.download_file('{BUCKET}', item['Key'], path)"
        ));
    }

    /// How many multipart uploads are open.
    pub fn open_uploads(&self) -> usize {
        let printed =
            self.script(&format!("print(len(s3.list_multipart_uploads(Bucket='{BUCKET}').get('Uploads', [])))"));
        printed.trim().parse().unwrap()
    }

    fn script(&self, body: &str) -> String {
        let script = format!(
            "import boto3\ns3 = boto3.client('s3', endpoint_url='{}', region_name='us-east-1', \
             aws_access_key_id='test', aws_secret_access_key='test')\n{body}",
            self.endpoint()
        );
        let output = Command::new(python()).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
