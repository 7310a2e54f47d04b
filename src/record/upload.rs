//! Brings finished recordings to an object store: S3, Google Cloud Storage or Azure.
//!
//! Long files go up in parts, and which parts are there is kept in a file beside them, so that a
//! server that was restarted goes on where it was. What has arrived is read back and compared
//! before anything local is deleted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, RetryConfig};
use serde::{Deserialize, Serialize};

use super::manifest::{FILE_NAME, Manifest};
use super::recorder::is_file_name;

/// Bytes of one part. S3 wants 5 MiB at least, and takes 10,000 parts: files up to 78 GiB.
pub const PART_BYTES: u64 = 8 << 20;

/// Where the state of an upload is kept, in the recording's directory.
const STATE_FILE: &str = "upload.json";

/// An S3 bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Where the service is, when it is not Amazon's. `http://` is allowed.
    pub endpoint: Option<String>,
    /// Who uploads, and the secret of that; from the environment (`AWS_ACCESS_KEY_ID`, ..) or the
    /// machine's role when left out.
    pub key: Option<(String, String)>,
}

/// Where recordings go.
#[derive(Debug, Clone)]
pub struct Target {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn Parts>,
    /// What it is called in a manifest.
    name: String,
}

/// A store that takes parts, and can be told in a log.
trait Parts: MultipartStore + std::fmt::Debug {}

impl<T: MultipartStore + std::fmt::Debug> Parts for T {}

/// Why an upload has not been done yet.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The store refused, or was not reached.
    #[error("the object store: {0}")]
    Store(#[from] object_store::Error),
    /// A local file could not be read.
    #[error("a local file: {0}")]
    File(#[from] io::Error),
    /// What is in the store is not what was sent.
    #[error("{0} arrived damaged")]
    Damaged(String),
}

/// How far a recording is uploaded.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Files that are in the store, whole and compared.
    done: Vec<String>,
    /// Files that are on their way.
    open: BTreeMap<String, OpenUpload>,
}

/// A file of which some parts are in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct OpenUpload {
    id: String,
    parts: Vec<String>,
}

impl Target {
    /// An S3 bucket.
    ///
    /// # Errors
    ///
    /// What cannot be used of the options.
    pub fn s3(options: &S3) -> Result<Self, UploadError> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&options.bucket)
            .with_region(&options.region)
            .with_retry(no_retries());
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(true);
        }
        if let Some((id, secret)) = &options.key {
            builder = builder
                .with_access_key_id(id)
                .with_secret_access_key(secret);
        }
        let name = format!("s3://{}", options.bucket);
        Ok(Self::new(Arc::new(builder.build()?), name))
    }

    /// A bucket of Google Cloud Storage; credentials are those of the environment.
    ///
    /// # Errors
    ///
    /// What cannot be used of the options.
    pub fn gcs(bucket: &str) -> Result<Self, UploadError> {
        let builder = GoogleCloudStorageBuilder::from_env();
        let builder = builder.with_bucket_name(bucket).with_retry(no_retries());
        Ok(Self::new(
            Arc::new(builder.build()?),
            format!("gs://{bucket}"),
        ))
    }

    /// A container of Azure's; account and credentials are those of the environment.
    ///
    /// # Errors
    ///
    /// What cannot be used of the options.
    pub fn azure(container: &str) -> Result<Self, UploadError> {
        let builder = MicrosoftAzureBuilder::from_env();
        let builder = builder.with_container_name(container);
        let store = builder.with_retry(no_retries()).build()?;
        Ok(Self::new(Arc::new(store), format!("az://{container}")))
    }

    fn new<T: ObjectStore + MultipartStore + std::fmt::Debug>(store: Arc<T>, name: String) -> Self {
        Self {
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            parts: store,
            name,
        }
    }

    /// Uploads what of a recording is not in the store yet: first what it consists of, last the
    /// manifest. Then the local media are deleted, unless they are kept.
    ///
    /// # Errors
    ///
    /// The first thing that goes wrong. What was done up to it is kept.
    pub async fn upload(
        &self,
        directory: &Path,
        keeps_local: bool,
    ) -> Result<Manifest, UploadError> {
        let mut manifest = Manifest::load(directory)?;
        let mut state = State::load(directory);
        let base = manifest.directory.clone();
        let files = manifest.tracks.iter().flat_map(|track| &track.files);
        let mut names: Vec<String> = files.map(|file| file.name.clone()).collect();
        names.extend(manifest.composed.clone());
        names.retain(|name| is_file_name(name) && directory.join(name).is_file());
        for name in &names {
            if !state.done.contains(name) {
                let key = Key::from(format!("{base}/{name}"));
                self.send(&directory.join(name), &key, directory, &mut state)
                    .await?;
            }
        }
        manifest.uploaded_to = Some(format!("{}/{base}", self.name));
        let key = Key::from(format!("{base}/{FILE_NAME}"));
        let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from)?;
        self.store.put(&key, text.into()).await?;
        manifest.save(directory)?;
        if !keeps_local {
            for name in &names {
                fs::remove_file(directory.join(name))?;
            }
        }
        let _ = fs::remove_file(directory.join(STATE_FILE));
        Ok(manifest)
    }

    /// Sends one file, and compares it.
    async fn send(
        &self,
        path: &Path,
        key: &Key,
        directory: &Path,
        state: &mut State,
    ) -> Result<(), UploadError> {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        if length <= PART_BYTES {
            let bytes = read_part(&mut file, 0, length)?;
            self.store.put(key, bytes.into()).await?;
        } else {
            self.send_parts(&mut file, length, (key, &name), directory, state)
                .await?;
        }
        if self.sum(key).await?.as_ref() != local_sum(&mut file)?.as_ref() {
            state.open.remove(&name);
            state.save(directory)?;
            return Err(UploadError::Damaged(name));
        }
        state.open.remove(&name);
        state.done.push(name);
        state.save(directory)?;
        Ok(())
    }

    async fn send_parts(
        &self,
        file: &mut fs::File,
        length: u64,
        (key, name): (&Key, &str),
        directory: &Path,
        state: &mut State,
    ) -> Result<(), UploadError> {
        let mut open = match state.open.get(name) {
            Some(open) => open.clone(),
            None => {
                let open = OpenUpload {
                    id: self.parts.create_multipart(key).await?,
                    parts: Vec::new(),
                };
                state.open.insert(name.to_owned(), open.clone());
                state.save(directory)?;
                open
            }
        };
        let count = length.div_ceil(PART_BYTES) as usize;
        while open.parts.len() < count {
            let index = open.parts.len();
            let at = index as u64 * PART_BYTES;
            let bytes = read_part(file, at, PART_BYTES.min(length - at))?;
            let sent = self
                .parts
                .put_part(key, &open.id, index, bytes.into())
                .await;
            match sent {
                Ok(part) => open.parts.push(part.content_id),
                Err(error) => {
                    // A store that has forgotten the upload is sent all of it again.
                    if matches!(error, object_store::Error::NotFound { .. }) {
                        state.open.remove(name);
                        state.save(directory)?;
                    }
                    return Err(error.into());
                }
            }
            state.open.insert(name.to_owned(), open.clone());
            state.save(directory)?;
        }
        let parts = open.parts.iter().cloned();
        let parts = parts.map(|content_id| PartId { content_id }).collect();
        let completed = self.parts.complete_multipart(key, &open.id, parts).await;
        if completed.is_err() {
            // It may have been completed without our hearing of it: then what is there is right.
            state.open.remove(name);
            state.save(directory)?;
        }
        completed?;
        Ok(())
    }

    /// SHA-256 of what is in the store.
    async fn sum(&self, key: &Key) -> Result<digest::Digest, UploadError> {
        let length = self.store.head(key).await?.size;
        let mut sum = digest::Context::new(&digest::SHA256);
        let mut at = 0;
        while at < length {
            let end = length.min(at + PART_BYTES);
            sum.update(&self.store.get_range(key, at..end).await?);
            at = end;
        }
        Ok(sum.finish())
    }
}

/// Whether nothing of a recording is to be uploaded or, having been, to be deleted.
pub(super) fn is_done(manifest: &Manifest, directory: &Path) -> bool {
    manifest.uploaded_to.is_some() && !directory.join(STATE_FILE).exists()
}

impl State {
    /// What is known of an earlier try; nothing where there was none.
    fn load(directory: &Path) -> Self {
        let text = fs::read(directory.join(STATE_FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn save(&self, directory: &Path) -> io::Result<()> {
        let beside: PathBuf = directory.join(".upload.json.new");
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(&beside, directory.join(STATE_FILE))
    }
}

/// Tries are counted here, and logged.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn read_part(file: &mut fs::File, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut part = vec![0; bytes as usize];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut part)?;
    Ok(part)
}

fn local_sum(file: &mut fs::File) -> io::Result<digest::Digest> {
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 16];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum.finish()),
            bytes => sum.update(&buffer[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use hyper::body::Incoming;
    use hyper::header::HeaderValue;
    use hyper::service::{Service, service_fn};
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use object_store::ClientOptions;
    use s3s::auth::SimpleAuth;
    use s3s::service::S3ServiceBuilder;
    use s3s_fs::FileSystem;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::backoff::Backoff;
    use crate::record::after::{Options, WAITING, finish, work};
    use crate::record::fixture::Directory;
    use crate::record::manifest::{RecordedFile, RecordedTrack, State as RecordingState};
    use crate::record::order::{Notice, RecordingId};

    const BUCKET: &str = "recordings";
    const ONE: &str = "daily/one";

    /// An S3 server that checks signatures.
    fn serve(listener: TcpListener, root: &Path) -> JoinHandle<()> {
        serve_but(listener, root, 0..0)
    }

    /// The same; it hangs up on these requests, counted from 0.
    fn serve_but(listener: TcpListener, root: &Path, away: Range<usize>) -> JoinHandle<()> {
        let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
        service.set_auth(SimpleAuth::from_single("ada", "lovelace"));
        let service = service.build();
        let requests = Arc::new(AtomicUsize::new(0));
        let service = service_fn(move |request: Request<Incoming>| {
            let is_away = away.contains(&requests.fetch_add(1, Ordering::Relaxed));
            let answer = (!is_away).then(|| Service::call(&service, request));
            async {
                let gone = io::Error::from(io::ErrorKind::ConnectionReset);
                match answer {
                    Some(answer) => answer.await.map_err(io::Error::other),
                    None => Err(gone),
                }
            }
        });
        accept(listener, service)
    }

    /// A server that speaks as Google Cloud Storage does, to whoever has the token: its XML API is
    /// that of S3, with an ETag in every answer about an object.
    fn serve_google(listener: TcpListener, root: &Path) -> JoinHandle<()> {
        let service = S3ServiceBuilder::new(FileSystem::new(root).unwrap()).build();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let shown = request.headers_mut().remove("authorization");
            let answer = (shown
                .as_ref()
                .is_some_and(|token| token == "Bearer lovelace"))
            .then(|| Service::call(&service, request));
            async {
                let Some(answer) = answer else {
                    return Err(io::Error::from(io::ErrorKind::PermissionDenied));
                };
                let mut answer = answer.await.map_err(io::Error::other)?;
                let tag = HeaderValue::from_static("\"tag\"");
                answer.headers_mut().entry("etag").or_insert(tag);
                Ok(answer)
            }
        });
        accept(listener, service)
    }

    fn accept<S>(listener: TcpListener, service: S) -> JoinHandle<()>
    where
        S: Service<Request<Incoming>, Response = Response<s3s::Body>, Error = io::Error>,
        S: Clone + Send + 'static,
        S::Future: Send,
    {
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service.clone());
                tokio::spawn(connection);
            }
        })
    }

    fn target(address: SocketAddr, secret: &str) -> Target {
        Target::s3(&S3 {
            bucket: BUCKET.to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(format!("http://{address}")),
            key: Some(("ada".to_owned(), secret.to_owned())),
        })
        .unwrap()
    }

    /// A finished recording with a short file and one of three parts.
    fn recording(directory: &Path, name: &str) -> [Vec<u8>; 2] {
        let short = b"short".to_vec();
        let long: Vec<u8> = (0..PART_BYTES * 5 / 2).map(|n| (n % 251) as u8).collect();
        let files = [("short.webm", &short), ("long.webm", &long)].map(|(name, bytes)| {
            fs::write(directory.join(name), bytes).unwrap();
            RecordedFile {
                name: name.to_owned(),
                codec: "opus".to_owned(),
                offset_ms: 0,
                duration_ms: 1,
                frames: 1,
                bytes: bytes.len() as u64,
                width: 0,
                height: 0,
            }
        });
        let track = RecordedTrack {
            track_id: "t".to_owned(),
            participant_id: "p".to_owned(),
            kind: "audio".to_owned(),
            source: "microphone".to_owned(),
            files: files.into(),
            gaps: Vec::new(),
            gap_count: 0,
        };
        let id = RecordingId::new(0);
        let mut manifest = Manifest::new(&id, "daily", 0, Path::new(name));
        manifest.state = RecordingState::Finished;
        manifest.tracks = vec![track];
        manifest.save(directory).unwrap();
        [short, long]
    }

    /// What a test works with: a local recording, and the directory of the store.
    fn places(name: &str) -> (Directory, Directory) {
        let store = Directory::new(&format!("{name}-store"));
        fs::create_dir(store.0.join(BUCKET)).unwrap();
        (Directory::new(&format!("{name}-local")), store)
    }

    fn assert_arrived(store: &Directory, recording: &str, media: &[Vec<u8>; 2]) {
        let there = store.0.join(BUCKET).join(recording);
        for (name, bytes) in ["short.webm", "long.webm"].iter().zip(media) {
            assert!(fs::read(there.join(name)).unwrap() == *bytes, "{name}");
        }
        assert!(there.join(FILE_NAME).is_file());
    }

    #[tokio::test]
    async fn a_recording_arrives_whole_and_only_then_leaves_the_disk() {
        let (local, store) = places("whole");
        let media = recording(&local.0, ONE);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap(), "lovelace");
        let _server = serve(listener, &store.0);
        let manifest = target.upload(&local.0, false).await.unwrap();
        assert_eq!(
            manifest.uploaded_to.as_deref(),
            Some("s3://recordings/daily/one")
        );
        assert_arrived(&store, ONE, &media);
        assert!(!local.0.join("long.webm").exists());
        assert_eq!(Manifest::load(&local.0).unwrap(), manifest);
    }

    #[tokio::test]
    async fn google_gets_the_same_files_in_parts_and_they_are_compared() {
        let (local, store) = places("google");
        let media = recording(&local.0, ONE);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let _server = serve_google(listener, &store.0);
        let builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(BUCKET)
            .with_base_url(&at)
            .with_bearer_token("lovelace")
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(no_retries());
        let bucket = Arc::new(builder.build().unwrap());
        let target = Target::new(bucket, format!("gs://{BUCKET}"));
        let manifest = target.upload(&local.0, false).await.unwrap();
        assert_eq!(
            manifest.uploaded_to.as_deref(),
            Some("gs://recordings/daily/one")
        );
        assert_arrived(&store, ONE, &media);
        assert!(!local.0.join("long.webm").exists());
    }

    #[tokio::test]
    async fn a_store_that_refuses_leaves_everything_where_it_is() {
        let (local, store) = places("refused");
        recording(&local.0, ONE);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap(), "byron");
        let _server = serve(listener, &store.0);
        let refused = target.upload(&local.0, false).await;
        assert!(matches!(refused, Err(UploadError::Store(_))), "{refused:?}");
        assert!(local.0.join("short.webm").exists() && local.0.join("long.webm").exists());
    }

    #[tokio::test]
    async fn an_upload_goes_on_with_the_part_where_it_was() {
        let (local, store) = places("resumed");
        let media = recording(&local.0, ONE);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap(), "lovelace");
        let _server = serve(listener, &store.0);
        let key = Key::from("daily/one/long.webm");
        let begin = async |first: Vec<u8>| {
            let id = target.parts.create_multipart(&key).await.unwrap();
            let part = target.parts.put_part(&key, &id, 0, first.into()).await;
            let mut state = State::default();
            let parts = vec![part.unwrap().content_id];
            state
                .open
                .insert("long.webm".to_owned(), OpenUpload { id, parts });
            state.save(&local.0).unwrap();
        };
        // What another process has sent is not sent again: were it wrong, that would be found.
        begin(vec![7; PART_BYTES as usize]).await;
        let damaged = target.upload(&local.0, false).await;
        assert!(
            matches!(damaged, Err(UploadError::Damaged(_))),
            "{damaged:?}"
        );
        assert!(local.0.join("long.webm").exists());
        target.upload(&local.0, true).await.unwrap();
        assert_arrived(&store, ONE, &media);
        fs::remove_file(store.0.join(BUCKET).join("daily/one/long.webm")).unwrap();
        begin(media[1][..PART_BYTES as usize].to_vec()).await;
        target.upload(&local.0, false).await.unwrap();
        assert_arrived(&store, ONE, &media);
    }

    const SHORT: Backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(5),
    };

    fn uploading(to: Target) -> Options {
        Options {
            target: Some(to),
            ..Options::default()
        }
    }

    #[tokio::test]
    async fn a_store_that_is_away_gets_everything_when_it_is_back_and_only_then_it_is_deleted() {
        let (local, store) = places("away");
        let names = ["daily/one", "daily/two", "weekly/one"];
        let directories = names.map(|name| local.0.join(name));
        let media: Vec<_> = directories
            .iter()
            .zip(names)
            .map(|(directory, name)| {
                fs::create_dir_all(directory).unwrap();
                recording(directory, name)
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let options = uploading(target(address, "lovelace"));
        let (more, next) = mpsc::channel(WAITING);
        let (tell, mut told) = mpsc::unbounded_channel();
        let tell = move |notice| drop(tell.send(notice));
        let working = tokio::spawn(async move { work(&options, SHORT, next, tell).await });
        // What is gone before its turn comes holds up nobody.
        more.try_send(local.0.join("gone")).unwrap();
        for directory in &directories {
            more.try_send(directory.clone()).unwrap();
        }
        tokio::time::sleep(SHORT.longest * 10).await;
        assert!(told.try_recv().is_err());
        assert!(directories.iter().all(|at| at.join("long.webm").exists()));
        // It is back, hangs up in the middle of a long file, and is back again.
        let listener = TcpListener::bind(address).await.unwrap();
        let _server = serve_but(listener, &store.0, 5..45);
        for _ in names {
            let Some(Notice::Uploaded(manifest)) = told.recv().await else {
                panic!("it ends");
            };
            assert!(manifest.uploaded_to.is_some());
        }
        for ((name, directory), media) in names.iter().zip(&directories).zip(&media) {
            assert_arrived(&store, name, media);
            assert!(!directory.join("long.webm").exists());
        }
        drop(more);
        working.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_server_had_uploaded_but_not_deleted_is_deleted() {
        let (local, store) = places("undeleted");
        let media = recording(&local.0, "daily/one");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = target(listener.local_addr().unwrap(), "lovelace");
        let _server = serve(listener, &store.0);
        // The server ends before it deletes: its state is there, and so is all it has uploaded.
        let uploaded = to.upload(&local.0, true).await.unwrap();
        fs::write(local.0.join("upload.json"), r#"{"done": [], "open": {}}"#).unwrap();
        assert!(!is_done(&uploaded, &local.0));
        finish(&uploading(to), uploaded, &local.0, drop)
            .await
            .unwrap();
        assert_arrived(&store, "daily/one", &media);
        assert!(!local.0.join("long.webm").exists());
        assert!(is_done(&Manifest::load(&local.0).unwrap(), &local.0));
    }
}
